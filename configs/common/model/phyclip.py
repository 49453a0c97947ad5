"""PHyCLIP ViT-L/16: 64 hyperbolic factors of dimension 8, each with its curvature, and their mean distance.

Heads start with norm 1 in every factor: the product's distances then begin as large as MERU's, and its cones open.
"""

from math import log as _log

from hypvl.config import LazyCall as L
from hypvl.geometry.product import Product

from .meru import model

model.geometry = L(Product)(factors=64, factor_dim=8, curv_init=1.0, learn_curv=True)
model.visual_head.log_scale_init = model.textual_head.log_scale_init = -0.5 * _log(8)
