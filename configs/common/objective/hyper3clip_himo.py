"""Hyper3-CLIP with HiMo's term: images against texts rebuilt from the leading principal directions of their batch."""

from hypvl.config import LazyCall as L
from hypvl.losses.himo import PrincipalContrastive

from .hyper3clip import objective

objective.terms.principal_contrastive = L(PrincipalContrastive)(share=0.9)
objective.weights.principal_contrastive = 1.0
