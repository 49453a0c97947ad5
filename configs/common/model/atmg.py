"""ATMG ViT-L/16: hyperboloid of fixed curvature 0.1, exterior angles as scores."""

from hypvl.config import LazyCall as L
from hypvl.geometry.scorers import ExteriorAngle

from .meru import model

model.geometry.curv_init = 0.1
model.geometry.learn_curv = False
model.geometry.curv_range = 5.0
model.scorer = L(ExteriorAngle)(ranking="trained")
