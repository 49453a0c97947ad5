"""UNCHA: HyCoCLIP's pairs, with a temperature and a calibration that follow each item's uncertainty.

Contrast between wholes (global), between boxes (local) and of boxes against wholes (global-local), averaged; the
entailment of each of HyCoCLIP's pairs keeps a pull towards the axis, and calibrates the general item's uncertainty.
"""

from hypvl.config import LazyCall as L
from hypvl.losses.base import Objective
from hypvl.losses.uncertainty import AngledEntailment, UncertainContrastive, UncertaintyCalibration

_ENTAIL_WEIGHT, _ANGLE_WEIGHT = 0.2, 0.1
_BOX_IMAGE, _BOX_TEXT = "image:box_image", "text:box_text"
_CONTRASTS = dict(
    global_contrastive=[["image", "text"], ["text", "image"]],
    local_contrastive=[[_BOX_IMAGE, _BOX_TEXT], [_BOX_TEXT, _BOX_IMAGE]],
    global_local_contrastive=[[_BOX_IMAGE, "text"], [_BOX_TEXT, "image"]],
)
_ORDERS = dict(
    text_image=("text", "image", 0.7),
    box_text_image=(_BOX_TEXT, _BOX_IMAGE, 0.7),
    cross_image=(_BOX_IMAGE, "image", 1.2),
    cross_text=(_BOX_TEXT, "text", 1.2),
)
_terms = {name: L(UncertainContrastive)(pairs=pairs) for name, pairs in _CONTRASTS.items()}
_weights = {name: 1 / len(_CONTRASTS) for name in _CONTRASTS}
for _kind, _term in (("entailment", AngledEntailment), ("calibration", UncertaintyCalibration)):
    for _name, (_general, _specific, _factor) in _ORDERS.items():
        _terms[f"{_name}_{_kind}"] = L(_term)(
            general=_general, specific=_specific, aperture_factor=_factor, angle_weight=_ANGLE_WEIGHT
        )
        _weights[f"{_name}_{_kind}"] = 0.5 * _ENTAIL_WEIGHT

objective = L(Objective)(terms=_terms, weights=_weights)
