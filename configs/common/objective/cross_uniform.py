"""Alignment and uniformity, and no image near the texts of others."""

from hypvl.config import LazyCall as L
from hypvl.losses.uniformity import CrossUniform

from .align_uniform import objective

objective.terms.cross_uniform = L(CrossUniform)(first="image", second="text", t=2.0)
objective.weights.cross_uniform = 1.0
