"""PHyCLIP ViT-L/16: 64 hyperbolic factors of dimension 8, each with its curvature, and their mean distance."""

from hypvl.config import LazyCall as L
from hypvl.geometry.product import Product

from .meru import model

model.geometry = L(Product)(factors=64, factor_dim=8, curv_init=1.0, learn_curv=True)
