"""UNCHA: contrast within wholes, within boxes and of boxes against wholes, summed; cones that also pull inside.

Each contrast has a scale of its own. The uncertainty of a box tempers its contrast with wholes, and is calibrated by
how far the whole sticks out of the box's cone. The entropy of uncertainties is nearly constant: it is logged apart.
"""

from hypvl.config import LazyCall as L
from hypvl.losses.base import Objective
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.uncertainty import (
    AngledEntailment,
    Calibration,
    GlobalLocalContrastive,
    UncertaintyEntropy,
)

_ENTAIL_WEIGHT, _ANGLE_WEIGHT, _CALIBRATION = 0.2, 0.1, 10.0
_BOX_IMAGE, _BOX_TEXT = "image:box_image", "text:box_text"
_ORDERS = dict(  # general, specific, aperture factor, weight within the entailment
    text_image=("text", "image", 0.7, 0.5),
    box_text_image=(_BOX_TEXT, _BOX_IMAGE, 0.7, 0.5),
    cross_image=(_BOX_IMAGE, "image", 1.2, 0.25),
    cross_text=(_BOX_TEXT, "text", 1.2, 0.25),
)
_terms = dict(
    global_contrastive=L(Contrastive)(pairs=[["image", "text"], ["text", "image"]]),
    local_contrastive=L(Contrastive)(
        pairs=[[_BOX_IMAGE, _BOX_TEXT], [_BOX_TEXT, _BOX_IMAGE]], scale="local", over="gathered"
    ),
    global_local_contrastive=L(GlobalLocalContrastive)(
        pairs=[[_BOX_IMAGE, "text"], [_BOX_TEXT, "image"]],
        scale="global_local",
        same_image="mask",
        over="gathered",
    ),
)
_weights = dict.fromkeys(_terms, 1.0)
for _name, (_general, _specific, _factor, _weight) in _ORDERS.items():
    _pair = dict(general=_general, specific=_specific, aperture_factor=_factor, angle_weight=_ANGLE_WEIGHT)
    _terms[f"{_name}_entailment"] = L(AngledEntailment)(**_pair, over="gathered")
    _weights[f"{_name}_entailment"] = _ENTAIL_WEIGHT * _weight
    if _name.startswith("cross"):  # within a modality
        _terms[f"{_name}_calibration"] = L(Calibration)(**_pair, over="gathered")
        _terms[f"{_name}_entropy"] = L(UncertaintyEntropy)(view=_general, over="gathered", eps=0.0)
        _weights[f"{_name}_calibration"] = _weights[f"{_name}_entropy"] = _ENTAIL_WEIGHT * _CALIBRATION

objective = L(Objective)(terms=_terms, weights=_weights)
