"""Hyper3-CLIP: UNCHA's contrasts and calibration, plain cones of unit weight, and the hierarchy of queries.

The weights of `query_*` are, within the entailment: 1 for texts above what images show of them, 1 for that above whole
images, 1 for texts above their parents; calibrations weigh 10 times their pair.
"""

from hypvl.config import LazyCall as L
from hypvl.losses.base import Objective
from hypvl.losses.entailment import Entailment
from hypvl.losses.query_hierarchy import QueryCalibration, QueryEntailment
from hypvl.losses.uncertainty import Calibration

from .uncha import objective as _uncha

_ENTAIL_WEIGHT, _CALIBRATION, _INTER, _INTRA = 0.2, 10.0, 0.7, 1.2
_BOX_IMAGE, _BOX_TEXT, _QUERY = "image:box_image", "text:box_text", "text:query_text"
_ORDERS = dict(  # general, specific, aperture factor
    text_image=("text", "image", _INTER),
    box_text_image=(_BOX_TEXT, _BOX_IMAGE, _INTER),
    cross_image=(_BOX_IMAGE, "image", _INTRA),
    cross_text=(_BOX_TEXT, "text", _INTRA),
)
_QUERIES = dict(  # order, aperture factor
    query_text_image=("text_image", _INTER),
    query_image=("image_whole", _INTRA),
    query_text=("text_parent", _INTRA),
)
_terms = {_name: _term for _name, _term in _uncha.terms.items() if _name.endswith("contrastive")}
_weights = dict.fromkeys(_terms, 1.0)
for _name, (_general, _specific, _factor) in _ORDERS.items():
    _pair = dict(general=_general, specific=_specific, aperture_factor=_factor, over="gathered")
    _terms[f"{_name}_entailment"] = L(Entailment)(**_pair)
    _weights[f"{_name}_entailment"] = _ENTAIL_WEIGHT
    if _name.startswith("cross"):  # within a modality
        _terms[f"{_name}_calibration"] = L(Calibration)(**_pair, angle_weight=0.0, gradient="uncertainty")
        _weights[f"{_name}_calibration"] = _ENTAIL_WEIGHT * _CALIBRATION
for _name, (_order, _factor) in _QUERIES.items():
    _pair = dict(order=_order, query=_QUERY, aperture_factor=_factor, parents="own", over="gathered")
    _terms[f"{_name}_entailment"] = L(QueryEntailment)(**_pair)
    _weights[f"{_name}_entailment"] = _ENTAIL_WEIGHT
    if _name != "query_text_image":
        _terms[f"{_name}_calibration"] = L(QueryCalibration)(**_pair, gradient="uncertainty")
        _weights[f"{_name}_calibration"] = _ENTAIL_WEIGHT * _CALIBRATION

objective = L(Objective)(terms=_terms, weights=_weights)
