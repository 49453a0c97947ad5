"""HyCoCLIP: boxes and phrases as further queries; what is general entails what is specific.

Text -> image and box text -> box image as in MERU, with narrowed cones; a box (and its phrase) is more general
than the image (and the caption) it is part of, with widened ones. The 0.5 averages within and across.
"""

from hypvl.config import LazyCall as L
from hypvl.losses.base import Objective
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.entailment import Entailment

_ENTAIL_WEIGHT = 0.2
_BOX_IMAGE, _BOX_TEXT = "image:box_image", "text:box_text"

objective = L(Objective)(
    terms=dict(
        contrastive=L(Contrastive)(
            pairs=[["image", "text"], ["text", "image"], [_BOX_IMAGE, "text"], [_BOX_TEXT, "image"]]
        ),
        text_image_entailment=L(Entailment)(general="text", specific="image", aperture_factor=0.7),
        box_text_image_entailment=L(Entailment)(general=_BOX_TEXT, specific=_BOX_IMAGE, aperture_factor=0.7),
        cross_image_entailment=L(Entailment)(general=_BOX_IMAGE, specific="image", aperture_factor=1.2),
        cross_text_entailment=L(Entailment)(general=_BOX_TEXT, specific="text", aperture_factor=1.2),
    ),
    weights=dict(
        contrastive=1.0,
        text_image_entailment=0.5 * _ENTAIL_WEIGHT,
        box_text_image_entailment=0.5 * _ENTAIL_WEIGHT,
        cross_image_entailment=0.5 * _ENTAIL_WEIGHT,
        cross_text_entailment=0.5 * _ENTAIL_WEIGHT,
    ),
)
