"""Flat space: the fair baseline of the hyperbolic models."""

import torch
from torch import Tensor

from hypvl.geometry.base import Geometry
from hypvl.geometry.kernels import line
from hypvl.geometry.precision import full_precision, inner_products, working_dtype


class Euclidean(Geometry):
    """Vectors as they are, compared by their negative squared distance. The root is the origin; no cones.

    Source: Chou and Alam, "Embedding Geometries of Contrastive Language-Image Pre-Training", 2024
        (arXiv 2409.13079), logits -s |x - y|^2 without normalisation.
    """

    _origin: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("_origin", torch.zeros(()), persistent=False)  # knows the device

    @full_precision
    def lift(self, features: Tensor) -> Tensor:
        return features

    @full_precision
    def flatten(self, embeddings: Tensor) -> Tensor:
        return embeddings

    @full_precision
    def pool(self, features: Tensor) -> Tensor:
        return features.mean(-2)

    @full_precision
    def pairwise_similarity(self, x: Tensor, y: Tensor) -> Tensor:
        """-|x - y|^2 of all pairs, at most 0; one matrix product, error a few eps (|x|^2 + |y|^2)."""
        # About a common centre, which changes no distance and loses fewer digits.
        centre = torch.cat((x.detach(), y.detach())).mean(0)
        x, y = x - centre, y - centre
        work = working_dtype(x.device)
        x2, y2 = (z.to(work).square().sum(-1).to(x.dtype) for z in (x, y))  # (B1,), (B2,)
        return (2 * inner_products(x, y) - x2[:, None] - y2).clamp(max=0)

    @full_precision
    def interpolate(self, x: Tensor, root: Tensor, weights: Tensor) -> Tensor:
        return line(root, x, weights)  # (T, D)

    def root(self, dim: int) -> Tensor:
        return torch.zeros(dim, device=self._origin.device)
