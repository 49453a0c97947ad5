"""MERU ViT-L/16: hyperboloid with learned curvature, negative Lorentz distance."""

from hypvl.config import LazyCall as L
from hypvl.encoders.heads import ScaledProjectionHead
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import NegativeDistance

from .clip import model

model.visual_head = L(ScaledProjectionHead, partial=True)(out_features=512)
model.textual_head = L(ScaledProjectionHead, partial=True)(out_features=512)
model.geometry = L(Lorentz)(curv_init=1.0, learn_curv=True)
model.scorer = L(NegativeDistance)()
