"""The unit sphere: embeddings of CLIP and its relatives."""

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.geometry import kernels, tiles
from hypvl.geometry.base import Geometry, Side
from hypvl.numerics import full_precision, inner_products, line, straight_distances, working_dtype
from hypvl.ops.tiled_logsumexp.kernels import TiledScores

_SHORTEST = 1e-25  # a row of this length or less has no direction; keeps the gradient, 1 / length, in fp32


@full_precision
def normalize(x: Tensor) -> Tensor:
    """Rows divided by their length, (..., D) -> (..., D), fp32 or better.

    A row of zeros (or shorter than 1e-25) has no direction: it becomes zeros, with gradient 0.

    Example:
        >>> normalize(torch.tensor([3.0, 4.0]))
        tensor([0.6000, 0.8000])
    """
    x64 = x.to(working_dtype(x.device))
    square = x64.square().sum(-1, keepdim=True)
    usable = ~(square.detach() <= _SHORTEST**2)  # so that NaN stays NaN
    return torch.where(usable, x64 / torch.where(usable, square, 1.0).sqrt(), 0.0).to(x.dtype)


@full_precision
def mean_direction(x: Tensor) -> Tensor:
    """Mean of the directions of several vectors, (..., P, D) -> unit (..., D); zeros where they cancel.

    Example:
        >>> mean_direction(torch.tensor([[2.0, 0.0], [0.0, 5.0]]))
        tensor([0.7071, 0.7071])
    """
    return normalize(normalize(x).mean(-2))


@configurable("model")
class Sphere(Geometry):
    """Unit vectors compared by their cosine. It has no root and no cones.

    Example:
        >>> x = Sphere().lift(torch.tensor([[3.0, 4.0], [4.0, 3.0]]))
        >>> Sphere().pairwise_similarity(x, x)  # cosines
        tensor([[1.0000, 0.9600],
                [0.9600, 1.0000]])
    """

    def lift(self, features: Tensor) -> Tensor:
        return normalize(features)

    @full_precision
    def flatten(self, embeddings: Tensor) -> Tensor:
        return embeddings

    def pool(self, features: Tensor) -> Tensor:
        return mean_direction(features)

    @full_precision
    def pairwise_similarity(self, x: Tensor, y: Tensor) -> Tensor:
        """Inner products: cosines of unit vectors. Vectors longer than 1e15 (fp64: 1e140) count as that long."""
        return inner_products(kernels.within_reach(x), kernels.within_reach(y))

    def pairwise_distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Chords |x - y|, as the field measures unit vectors."""
        return straight_distances(x, y)

    def inner_product_form(self, embeddings: Tensor, *, side: Side) -> Tensor:
        """The unit vectors themselves."""
        one_of("side", side, Side)
        return normalize(embeddings)

    @full_precision
    def tiled_similarity(self, x: Tensor, y: Tensor) -> TiledScores:
        return tiles.inner_product(x, y)

    def tiled_exterior_angle(self, apex: Tensor, point: Tensor) -> None:
        return None

    @full_precision
    def interpolate(self, x: Tensor, root: Tensor, weights: Tensor) -> Tensor:
        """Linear from ``root`` to ``x``, then back onto the sphere."""
        return normalize(line(root, x, weights))  # (T, D)

    def root(self, dim: int) -> None:
        return None

    @property
    def cones(self) -> None:
        return None

    @property
    def curvature(self) -> None:
        return None
