"""ARGENT as Hyper3Labs reads it: HyCoCLIP's contrast, the exterior angle itself, and a regulariser of norms.

The authors' equations are not published (hypvl/losses/argent.py); the contrast and the weights are hypvl's choice.
"""

from hypvl.config import LazyCall as L
from hypvl.losses.argent import AdaptiveEntailment, NormRegularization
from hypvl.losses.base import Objective
from hypvl.losses.contrastive import Contrastive

_ENTAIL_WEIGHT, _NORM_WEIGHT, _BETA = 0.2, 0.1, 1.0
_BOX_IMAGE, _BOX_TEXT = "image:box_image", "text:box_text"
_WITHIN = 0.25  # of box -> image and phrase -> caption: as UNCHA; 0.5 weighs all four pairs the same
_ORDERS = dict(  # general, specific, weight within the entailment
    text_image=("text", "image", 0.5),
    box_text_image=(_BOX_TEXT, _BOX_IMAGE, 0.5),
    cross_image=(_BOX_IMAGE, "image", _WITHIN),
    cross_text=(_BOX_TEXT, "text", _WITHIN),
)

objective = L(Objective)(
    terms=dict(
        contrastive=L(Contrastive)(
            pairs=[["image", "text"], ["text", "image"], [_BOX_IMAGE, "text"], [_BOX_TEXT, "image"]]
        ),
        **{
            f"{_name}_entailment": L(AdaptiveEntailment)(
                general=_general,
                specific=_specific,
                beta=_BETA,
                weighting="distance" if _name.startswith("cross") else "none",
            )
            for _name, (_general, _specific, _) in _ORDERS.items()
        },
        norm=L(NormRegularization)(views=["image", "text", _BOX_IMAGE, _BOX_TEXT]),
    ),
    weights={
        "contrastive": 1.0,
        **{f"{_name}_entailment": _ENTAIL_WEIGHT * _weight for _name, (*_, _weight) in _ORDERS.items()},
        "norm": _NORM_WEIGHT,
    },
)
