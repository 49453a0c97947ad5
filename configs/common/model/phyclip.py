"""PHyCLIP ViT-L/16: 64 hyperbolic factors of dimension 8, each with its curvature, and their mean distance.

Each head has a scale for each factor, and starts with norm 1 in every one: the product's distances then begin as large
as MERU's, and its cones open.
"""

from hypvl.config import LazyCall as L
from hypvl.geometry.product import Product

from .meru import model

model.geometry = L(Product)(factors=64, factor_dim=8, metric="l1", curv_init=1.0, learn_curv=True)
model.visual_head.factors = model.textual_head.factors = 64
model.scorer.ranking = "trained"
