"""EuCLIP ViT-L/16: flat space, negative squared distance. `geometry.min_radius=0.2` gives it entailment cones."""

from hypvl.config import LazyCall as L
from hypvl.geometry.euclidean import Euclidean

from .meru import model

model.geometry = L(Euclidean)(min_radius=None)
