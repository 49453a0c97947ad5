"""MERU on the weights of CLIP ViT-B/32, ranking as it did at the start: directions kept, one radius a modality.

Texts begin nearer the root than images, as entailment wants them; then radii are learned like all the rest.
`train.init_missing` of a recipe names what such a checkpoint lacks: the scalars of geometry and heads.
"""

from hypvl.config import LazyCall as L
from hypvl.encoders.heads import UnitProjectionHead
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import NegativeDistance

from .clip_vit_b_32 import model

model.visual_head = L(UnitProjectionHead, partial=True)(out_features=512, radius_init=1.0)
model.textual_head = L(UnitProjectionHead, partial=True)(out_features=512, radius_init=0.5)
model.geometry = L(Lorentz)(curv_init=1.0, learn_curv=True, pooling="direction")
model.scorer = L(NegativeDistance)()
