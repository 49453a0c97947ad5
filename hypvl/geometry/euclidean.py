"""Flat space: the fair baseline of the hyperbolic models, with or without entailment cones."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import number, one_of
from hypvl.geometry import kernels, lorentz, tiles
from hypvl.geometry.base import Cones, Geometry, Side
from hypvl.numerics import (
    full_precision,
    inner_products,
    line,
    mean,
    perpendicular,
    safe_sqrt,
    straight_distances,
    working_dtype,
)
from hypvl.ops.tiled_logsumexp.kernels import TiledScores


@full_precision
def exterior_angle(x: Tensor, y: Tensor) -> Tensor:
    """Angle at x between the ray away from the origin and y: atan2(p, (y - x).e), e = x/|x|, p = |y - (y.e) e|.

    Args:
        x: Apexes, (..., D).
        y: (..., D), broadcast against ``x``.

    Returns:
        (...) radians in [0, pi]: 0 where y lies straight outwards, pi inwards; pi/2 with gradient 0 where undefined
        (x is the origin, or x = y). Exact to a few roundings in fp64, which fp32 points are computed in, too.

    Raises:
        ValueError: for an fp64 component beyond 1e70.

    Source: Ganea et al., "Hyperbolic Entailment Cones", 2018, section 4 (Euclidean cones).
    Differs: the arc tangent of a stable quotient instead of an arc cosine, without epsilons.

    Example:
        >>> exterior_angle(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]))  # a right angle
        tensor(1.5708)
    """
    kernels.refuse_beyond(x, y)
    work = working_dtype(x.device)
    dtype = torch.promote_types(x.dtype, y.dtype)
    x, y = torch.broadcast_tensors(x.to(work), y.to(work))
    square = kernels.square_of(x)
    at_root = kernels.is_root(square)
    e = x / torch.where(at_root, 1.0, square).sqrt()
    adjacent = ((y - x) * e).sum(-1, keepdim=True)
    p2 = kernels.square_of(perpendicular(y, x))
    undefined = at_root | ((p2 + adjacent.square()).detach() <= kernels.ROOT_RADIUS**2)
    opposite = torch.where(undefined, 1.0, safe_sqrt(p2))
    return torch.atan2(opposite, torch.where(undefined, 0.0, adjacent)).squeeze(-1).to(dtype)


@full_precision
def pairwise_exterior_angle(x: Tensor, y: Tensor) -> Tensor:
    """:func:`exterior_angle` of all pairs: entry [i, j] is the angle at x_i towards y_j.

    (B1, D), (B2, D) -> (B1, B2) radians in [0, pi]. The cosine between the points goes through a product: near 0 and pi
    the angle is known to about sqrt(2 eps), 5e-4 in fp32.

    Example:
        >>> pairwise_exterior_angle(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.5, 0.0]]))
        tensor([[0.0000, 3.1416]])
    """
    kernels.refuse_beyond(x, y)
    dtype = torch.promote_types(x.dtype, y.dtype)
    work = working_dtype(x.device)
    x, y = x.to(work), y.to(work)
    n2, m2 = kernels.square_of(x), kernels.square_of(y)
    cosine = inner_products(kernels.unit(x, n2).to(dtype), kernels.unit(y, m2).to(dtype))
    return kernels.flat_angle_from_product(cosine, n2, m2.mT)


@configurable("model")
class Euclidean(Geometry):
    """Vectors as they are, compared by their negative squared distance. The root is the origin.

    Operations take fp32 components up to 1e38 (so that differences do not overflow) and fp64 ones up to 1e300,
    angles and cones up to 1e70 (a ValueError beyond). Scores count points farther than 1e15 (fp64: 1e140) from the
    centre as lying at that distance; an index refuses them.

    Args:
        min_radius: K of the entailment cones asin(K / |x|); None = no cones. At K = 0.2 the cone of a point is as
            wide as in MERU's space of curvature -1 with its r_min = 0.1.

    Source: Chou and Alam, "Embedding Geometries of Contrastive Language-Image Pre-Training", 2024
        (arXiv 2409.13079), logits -s |x - y|^2 without normalisation; cones: Ganea et al., 2018.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
        >>> Euclidean().pairwise_similarity(x, x)  # negative squared distances
        tensor([[  0., -25.],
                [-25.,   0.]])
    """

    any_vector_is_a_point = True
    _origin: Tensor

    def __init__(self, *, min_radius: float | None = None) -> None:
        super().__init__()
        if min_radius is not None:
            number("min_radius", min_radius, above=0)
        self.min_radius = min_radius
        self.register_buffer("_origin", torch.zeros(()), persistent=False)  # holds the device

    @full_precision
    def lift(self, features: Tensor) -> Tensor:
        return features

    @full_precision
    def flatten(self, embeddings: Tensor) -> Tensor:
        return embeddings

    @full_precision
    def pool(self, features: Tensor) -> Tensor:
        return mean(features)

    @full_precision
    def pairwise_similarity(self, x: Tensor, y: Tensor) -> Tensor:
        """-|x - y|^2 of all pairs, at most 0; one matrix product, error a few eps (|x|^2 + |y|^2).

        Both are about the mean of all; points farther than 1e15 (fp64: 1e140) from it count as lying there.
        """
        x, y = kernels.about_common_centre(x, y)
        work = working_dtype(x.device)
        x2, y2 = (z.to(work).square().sum(-1).to(x.dtype) for z in (x, y))  # (B1,), (B2,)
        return (2 * inner_products(x, y) - x2[:, None] - y2).clamp(max=0)

    @full_precision
    def pairwise_distance(self, x: Tensor, y: Tensor) -> Tensor:
        """|x - y|, whose negative square is the similarity."""
        return straight_distances(x, y)

    @full_precision
    def inner_product_form(self, embeddings: Tensor, *, side: Side) -> Tensor:
        """(x, -|x|^2, 1) for a query and (2 y, 1, -|y|^2) for a key: products are -|x - y|^2, (..., D + 2).

        The error of a product is a few eps (|x|^2 + |y|^2), because the origin is not moved to the rows: neighbours
        closer than about 1e-3 (fp32) of their distance from the origin cannot be told apart.

        Raises:
            ValueError: for a component beyond 1e15 (fp64: 1e140), whose products would not fit.
        """
        one_of("side", side, Side)
        limit = kernels.REACH[embeddings.dtype]
        if embeddings.numel() and bool(embeddings.detach().abs().amax() > limit):
            raise ValueError(f"embeddings: got a component beyond {limit:g}, expected smaller ones.")
        square = embeddings.to(working_dtype(embeddings.device)).square().sum(-1, keepdim=True)
        square = square.to(embeddings.dtype)
        one = torch.ones_like(square)
        parts = (embeddings, -square, one) if side == "query" else (2 * embeddings, one, -square)
        return torch.cat(parts, dim=-1)

    @full_precision
    def tiled_similarity(self, x: Tensor, y: Tensor) -> TiledScores:
        return tiles.negative_squared_distance(x, y)

    @full_precision
    def interpolate(self, x: Tensor, root: Tensor, weights: Tensor) -> Tensor:
        return line(root, x, weights)  # (T, D)

    def root(self, dim: int) -> Tensor:
        return torch.zeros(dim, device=self._origin.device)

    @property
    def cones(self) -> "EuclideanCones | None":
        return None if self.min_radius is None else EuclideanCones(self.min_radius)

    @property
    def curvature(self) -> None:
        return None

    @full_precision
    def tiled_exterior_angle(self, apex: Tensor, point: Tensor) -> TiledScores | None:
        return None if self.min_radius is None else tiles.exterior_angle(apex, point, curv=None)


@dataclass(frozen=True)
class EuclideanCones(Cones):
    """Cones with half aperture asin(K / |x|), K = ``min_radius``: pi / 2 with gradient 0 where |x| <= K.

    Source: Ganea et al., "Hyperbolic Entailment Cones", 2018, section 4 (Euclidean cones).
    """

    min_radius: float

    def exterior_angle(self, apex: Tensor, point: Tensor) -> Tensor:
        return exterior_angle(apex, point)[..., None]

    def pairwise_exterior_angle(self, apex: Tensor, point: Tensor) -> Tensor:
        return pairwise_exterior_angle(apex, point)

    def half_aperture(self, apex: Tensor) -> Tensor:
        # asin(2 r_min / |x|) in the space of curvature -1
        return lorentz.half_aperture(apex, curv=1.0, min_radius=self.min_radius / 2)[..., None]
