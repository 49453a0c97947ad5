"""The Lorentz model of hyperbolic space: pure functions on space components, and the geometries made of them.

A point is given by its space components x, (..., D), on the sheet -t^2 + |x|^2 = -1/c with the time component
t(x) = sqrt(1/c + |x|^2); ``curv`` is c > 0 and the curvature -c. ``curv`` is a float or a tensor that
broadcasts against (..., 1), for pairwise functions against (..., 1, 1); gradients flow to it. Other shapes, dtypes and
values are a ValueError or a TypeError.

Precision: results are fp32, or fp64 for fp64 points. Elementwise functions compute in fp64 inside and are
exact to a few roundings, near-identical and collinear points included. Pairwise functions go through one
matrix product, in the dtype of the result; their error in cosh(sqrt(c) d) is below 16 eps c t(x) t(y), so
use the elementwise ones for paired points. Values and gradients are finite for every finite fp32 or bf16
point; fp64 points beyond 1e70 are refused.

Source: Desai et al., "Hyperbolic Image-Text Representations", 2023, section 3 and appendix A; Ganea et al.,
    "Hyperbolic Entailment Cones", 2018 (cones).
Differs: no epsilons and no floors; the published code clamps distances at 1e-4 and angles 1e-4 from 0 and pi.
"""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from hypvl.allowlist import configurable
from hypvl.checks import number, one_of
from hypvl.geometry import kernels, tiles
from hypvl.geometry.base import Cones, Geometry, Side
from hypvl.geometry.sphere import mean_direction
from hypvl.numerics import (
    full_precision,
    inner_products,
    line,
    mean,
    perpendicular,
    safe_divide,
    safe_sqrt,
    working_dtype,
)
from hypvl.ops.tiled_logsumexp.kernels import TiledScores

Pooling: TypeAlias = Literal["mean", "direction"]
Clamp: TypeAlias = Literal["parameter", "value"]
MIN_RADIUS = 0.1
MAX_RADIUS = math.asinh(2.0**15)


@full_precision
def pairwise_inner(x: Tensor, y: Tensor, *, curv: float | Tensor) -> Tensor:
    """Lorentz inner products x.y - t(x) t(y) of all pairs; at most -1/c: (..., B1, D), (..., B2, D) -> (..., B1, B2).

    They saturate at the largest finite number of the dtype.

    Example:
        >>> pairwise_inner(torch.zeros(1, 2), torch.tensor([[0.0, 2.0]]), curv=1.0)  # at the root: -t(y)
        tensor([[-2.2361]])
    """
    c, work_x, work_y = _working(x, y, curv=curv, pairwise=True)
    return kernels.lorentz_products(work_x, work_y, c, dtype=torch.promote_types(x.dtype, y.dtype))


@full_precision
def time_component(x: Tensor, *, curv: float | Tensor) -> Tensor:
    """t(x) = sqrt(1/c + |x|^2): points (..., D), c > 0 -> (..., 1).

    Example:
        >>> time_component(torch.tensor([[0.0, 2.0]]), curv=1.0)
        tensor([[2.2361]])
    """
    c, x64 = _working(x, curv=curv)
    return kernels.in_dtype_of((1 / c + kernels.square_of(x64)).sqrt(), x)


@full_precision
def pairwise_dist(x: Tensor, y: Tensor, *, curv: float | Tensor) -> Tensor:
    """Geodesic distances acosh(-c <x, y>_L) / sqrt(c) >= 0 of all pairs: (..., B1, D), (..., B2, D) -> (..., B1, B2).

    Between identical points: 0 or rounding noise, gradient finite.

    Example:
        >>> pairwise_dist(torch.zeros(1, 2), exp_map0(torch.tensor([[3.0, 4.0]]), curv=1.0), curv=1.0)
        tensor([[5.]])
    """
    c, work_x, work_y = _working(x, y, curv=curv, pairwise=True)
    dtype = torch.promote_types(x.dtype, y.dtype)
    product = inner_products(kernels.klein(work_x, c)[1].to(dtype), kernels.klein(work_y, c)[1].to(dtype))
    return kernels.distance_from_product(
        product, c * kernels.square_of(work_x), (c * kernels.square_of(work_y)).transpose(-1, -2), c
    )


@full_precision
def dist(x: Tensor, y: Tensor, *, curv: float | Tensor) -> Tensor:
    """Geodesic distance of paired points, accurate for near-identical and saturated ones: (..., D), (..., D) -> (...).

    With |x| >= |y| and their distances a >= b to the root,
    d = 2 asinh(sqrt(sinh^2((a - b)/2) + c (|x||y| - x.y)/2)) / sqrt(c), without cancellation in either term. Points
    broadcast; between identical ones d is 0 with gradient 0.

    Example:
        >>> dist(torch.zeros(2), exp_map0(torch.tensor([3.0, 4.0]), curv=1.0), curv=1.0)
        tensor(5.)
    """
    c, x64, y64 = _working(x, y, curv=curv)
    x64, y64 = torch.broadcast_tensors(x64, y64)
    farther = kernels.square_of(x64) >= kernels.square_of(y64)
    near, far = torch.where(farther, y64, x64), torch.where(farther, x64, y64)
    n2, m2 = c * kernels.square_of(far), c * kernels.square_of(near)
    n, m = safe_sqrt(n2), safe_sqrt(m2)
    # n^2 - m^2 through the difference of the points
    gap = c * ((far - near) * (far + near)).sum(-1, keepdim=True)
    s = safe_divide(gap, n * kernels.time_of(m2) + m * kernels.time_of(n2))  # sinh(a - b)
    radial = s.square() / (2 * (1 + (1 + s.square()).sqrt()))  # sinh^2((a - b)/2)
    along = c * safe_divide((near * far).sum(-1, keepdim=True), n)  # sqrt(c) y.e
    p2 = c * kernels.square_of(perpendicular(near, far))
    # |x||y| - x.y through p where the points are on the same side of the root
    ahead = along > torch.finfo(along.dtype).tiny ** 0.5
    beside = n * safe_divide(p2, m + torch.where(ahead, along, 1.0))
    angular = torch.where(ahead, beside, n * (m - along))
    d = 2 * torch.asinh(safe_sqrt(radial + angular / 2)) * c.rsqrt()
    return kernels.in_dtype_of(d, x, y).squeeze(-1)


@full_precision
def geodesic(x: Tensor, y: Tensor, weights: Tensor, *, curv: float | Tensor) -> Tensor:
    """Points on the geodesic from x to y, at even distances for even weights: (..., D), (..., D), (T,) -> (T, ..., D).

    With w in [0, 1] and d = sqrt(c) dist(x, y): (sinh((1 - w) d) x + sinh(w d) y) / sinh(d).

    Example:
        >>> x = exp_map0(torch.tensor([2.0, 0.0]), curv=1.0)
        >>> log_map0(geodesic(torch.zeros(2), x, torch.tensor([0.5]), curv=1.0), curv=1.0)
        tensor([[1., 0.]])
    """
    work = working_dtype(x.device)
    c = torch.as_tensor(curv, dtype=work, device=x.device)
    d = (dist(x, y, curv=curv)[..., None] * c.sqrt()).to(work).clamp(max=700.0)  # (..., 1); sinh stays finite
    w = weights.to(device=x.device, dtype=work).reshape(-1, *[1] * x.dim())  # (T, 1 ...)
    near = d < 1e-8  # sinh is linear there
    safe = torch.where(near, 1.0, d)
    first = torch.where(near, 1 - w, torch.sinh((1 - w) * safe) / torch.sinh(safe))
    second = torch.where(near, w, torch.sinh(w * safe) / torch.sinh(safe))
    return kernels.in_dtype_of(first * x.to(work) + second * y.to(work), x, y)


@full_precision
def exp_map0(v: Tensor, *, curv: float | Tensor, max_radius: float = MAX_RADIUS) -> Tensor:
    """Exponential map at the root, sinh(r) v / r with r = sqrt(c) |v|.

    Args:
        v: Tangent vectors, (..., D); the points have this shape, too.
        max_radius: r saturates here, so that space norms stay <= sinh(max_radius) / sqrt(c); by default
            2^15 / sqrt(c), as published. Beyond it the direction is kept and the length is not.

    Example:
        >>> exp_map0(torch.tensor([1.0, 0.0]), curv=1.0)  # sinh(1)
        tensor([1.1752, 0.0000])
    """
    c, v64 = _working(v, curv=curv)
    limit = math.log(torch.finfo(v.dtype).max) - 4
    if not 0 < max_radius <= limit:
        raise ValueError(
            f"max_radius: got {max_radius}, expected a number in (0, {limit:.0f}] for {v.dtype} points."
        )
    square = c * kernels.square_of(v64)
    beyond = square > max_radius**2
    inside = kernels.sinhc(torch.where(beyond, 0.0, square))
    saturated = math.sinh(max_radius) / torch.where(beyond, square, 1.0).sqrt()
    return kernels.in_dtype_of(v64 * torch.where(beyond, saturated, inside), v)


@full_precision
def log_map0(x: Tensor, *, curv: float | Tensor) -> Tensor:
    """Logarithmic map at the root, asinh(r) x / r with r = sqrt(c) |x|: the inverse of :func:`exp_map0`, (..., D).

    Example:
        >>> log_map0(exp_map0(torch.tensor([1.0, 0.5]), curv=0.5), curv=0.5)
        tensor([1.0000, 0.5000])
    """
    c, x64 = _working(x, curv=curv)
    return kernels.in_dtype_of(x64 * kernels.asinhc(c * kernels.square_of(x64)), x)


@full_precision
def half_aperture(x: Tensor, *, curv: float | Tensor, min_radius: float = MIN_RADIUS) -> Tensor:
    """Half opening angle asin(2 r_min / (sqrt(c) |x|)) of the entailment cone at x.

    Args:
        x: Apexes, (..., D).
        min_radius: r_min > 0. Where sqrt(c) |x| <= 2 r_min the cone is a half space: pi/2, gradient 0.

    Returns:
        (...) radians in (0, pi/2].

    Example:
        >>> half_aperture(torch.tensor([[0.4, 0.0], [4.0, 0.0]]), curv=1.0)  # narrower far out
        tensor([0.5236, 0.0500])
    """
    c, x64 = _working(x, curv=curv)
    if not min_radius > 0:
        raise ValueError(f"min_radius: got {min_radius}, expected a number > 0.")
    square = c * kernels.square_of(x64)
    outside = ~(square.sqrt() <= 2 * min_radius)  # so that NaN stays NaN
    r = torch.where(outside, square, 8 * min_radius**2).sqrt()
    # asin(k / r) with the cosine side as a product: no cancellation near the edge
    angle = torch.atan2(
        torch.full_like(r, 2 * min_radius), ((r - 2 * min_radius) * (r + 2 * min_radius)).sqrt()
    )
    return kernels.in_dtype_of(torch.where(outside, angle, math.pi / 2), x).squeeze(-1)


@full_precision
def oxy_angle(x: Tensor, y: Tensor, *, curv: float | Tensor) -> Tensor:
    """Exterior angle at x in the triangle (root, x, y): 0 where y lies straight outwards, pi inwards.

    Args:
        x: Apexes, (..., D).
        y: (..., D), broadcast against ``x``.

    Returns:
        (...) radians in [0, pi]; pi/2 with gradient 0 where undefined (x is the root, or x = y).

    Example:
        >>> oxy_angle(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.0]), curv=1.0)  # inwards
        tensor(3.1416)
    """
    c, x64, y64 = _working(x, y, curv=curv)
    x64, y64 = torch.broadcast_tensors(x64, y64)
    n2, m2 = c * kernels.square_of(x64), c * kernels.square_of(y64)
    at_root = kernels.is_root(n2)
    n = torch.where(at_root, 1.0, n2).sqrt()
    e = c.sqrt() * x64 / n  # unit vector
    along = c.sqrt() * (y64 * e).sum(-1, keepdim=True)
    ahead_by = c.sqrt() * ((y64 - x64) * e).sum(-1, keepdim=True)
    p2 = c * kernels.square_of(perpendicular(y64, x64))
    t_x, t_y, t_along = kernels.time_of(n2), kernels.time_of(m2), kernels.time_of(along.square())
    # sinh of the distance along the ray, then what the detour p adds
    outward = along > 0
    denominator = torch.where(outward, along, 0.0) * t_x + n * t_along
    radial = torch.where(outward, ahead_by * (along + n) / denominator, along * t_x - n * t_along)
    adjacent = radial - n * p2 / (t_y + t_along)
    opposite = safe_sqrt(p2)
    undefined = at_root | ((p2 + adjacent.square()).detach() <= kernels.ROOT_RADIUS**2)
    phi = torch.atan2(torch.where(undefined, 1.0, opposite), torch.where(undefined, 0.0, adjacent))
    return kernels.in_dtype_of(phi, x, y).squeeze(-1)


@full_precision
def pairwise_oxy_angle(x: Tensor, y: Tensor, *, curv: float | Tensor) -> Tensor:
    """Exterior angles :func:`oxy_angle` of all pairs: entry [i, j] is the angle at x_i towards y_j.

    (..., B1, D), (..., B2, D) -> (..., B1, B2) radians in [0, pi]. The angle at the root between two points goes
    through a product: near 0 and pi it is known to about sqrt(2 eps), 5e-4 in fp32.

    Example:
        >>> pairwise_oxy_angle(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.5, 0.0]]), curv=1.0)
        tensor([[0.0000, 3.1416]])
    """
    c, work_x, work_y = _working(x, y, curv=curv, pairwise=True)
    dtype = torch.promote_types(x.dtype, y.dtype)
    n2, m2 = c * kernels.square_of(work_x), c * kernels.square_of(work_y)
    unit_x, unit_y = (
        kernels.unit(c.sqrt() * z, square).to(dtype) for z, square in ((work_x, n2), (work_y, m2))
    )
    return kernels.angle_from_product(inner_products(unit_x, unit_y), n2, m2.transpose(-1, -2))


class Hyperbolic(Geometry):
    """Base of the geometries with learned curvatures -c and a root at the origin.

    Cones and geodesics are those of the Lorentz model at the same points (:meth:`space_components`).

    Args:
        shape: Of ``log_curv``: ``()``, or ``(F,)`` for F factors.
        curv_init: Starting value of every c > 0.
        learn_curv: Whether c is learned. ``log_curv`` is in the state dict either way.
        curv_range: Each c stays within a factor of this of ``curv_init``, each way; >= 1.
        min_radius: r_min > 0 of the cones.
        clamp: What is kept in that range. ``"parameter"``: ``log_curv`` itself, in place, before each step.
            ``"value"``: c, when it is used; ``log_curv`` is left alone, and gets gradient 0 outside of the range.
    """

    no_weight_decay: frozenset[str] = frozenset({"log_curv"})
    log_curv: nn.Parameter

    def __init__(
        self,
        shape: tuple[int, ...] = (),
        *,
        curv_init: float = 1.0,
        learn_curv: bool = True,
        curv_range: float = 10.0,
        min_radius: float = MIN_RADIUS,
        clamp: Clamp = "parameter",
    ) -> None:
        super().__init__()
        self.clamp = one_of("clamp", clamp, Clamp)
        number("curv_init", curv_init, above=0)
        number("curv_range", curv_range, least=1)
        number("min_radius", min_radius, above=0)
        self.curv_init, self.curv_range, self.min_radius = curv_init, curv_range, min_radius
        self.log_curv = nn.Parameter(torch.full(shape, math.log(curv_init)), requires_grad=learn_curv)

    @property
    def curv(self) -> Tensor:
        """c > 0, () or (F,), fp32 or better; it carries the gradient."""
        curv = self.log_curv.to(torch.promote_types(self.log_curv.dtype, torch.float32)).exp()
        if self.clamp == "parameter":
            return curv
        return curv.clamp(self.curv_init / self.curv_range, self.curv_init * self.curv_range)

    @property
    def curvature(self) -> Tensor:
        return self.curv.detach().reshape(-1)  # (F,)

    @property
    def curvature_range(self) -> tuple[float, float] | None:
        if not self.log_curv.requires_grad:
            return None
        return self.curv_init / self.curv_range, self.curv_init * self.curv_range

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return dist(self.space_components(x), self.space_components(y), curv=self.curv)

    @full_precision
    def pool(self, features: Tensor) -> Tensor:
        return self.lift(mean(features))

    @full_precision
    def interpolate(self, x: Tensor, root: Tensor, weights: Tensor) -> Tensor:
        """Linear in the tangent space at the root of the space (of every factor)."""
        return self.lift(line(self.flatten(root), self.flatten(x), weights))  # (T, D)

    def geodesic(self, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        """Even weights give even distances; the curve of :meth:`interpolate` between the same points is longer."""
        x, y = self.space_components(x), self.space_components(y)
        return self.lift(log_map0(geodesic(x, y, weights, curv=self.curv), curv=self.curv))

    def root(self, dim: int) -> Tensor:
        return torch.zeros(dim, device=self.log_curv.device)

    @property
    def cones(self) -> Cones:
        return LorentzCones(self)

    def stats(self) -> dict[str, float]:
        return {"curv": self.curv.item()}

    @torch.no_grad()
    def constrain_(self) -> None:
        if self.clamp == "value":
            return
        centre, width = math.log(self.curv_init), math.log(self.curv_range)
        self.log_curv.clamp_(centre - width, centre + width)


@configurable("model")
class Lorentz(Hyperbolic):
    """Hyperbolic space in the Lorentz model, with entailment cones.

    Every operation takes any finite fp32 numbers; fp64 components beyond 1e70 are a ValueError.

    Args:
        curv_init, learn_curv, curv_range, min_radius, clamp: As :class:`Hyperbolic`.
        pooling: Of features into one embedding. ``"mean"``: their mean, as published. ``"direction"``: the mean of
            their directions, as CLIP pools prompts, at the mean of their lengths. Prompts that disagree then do
            not pull the class towards the root, and classes of equal lengths keep the order of their cosines.

    Source: MERU (Desai et al., 2023).

    Example:
        >>> space = Lorentz(curv_init=1.0)
        >>> x = space.lift(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        >>> -space.pairwise_similarity(x[:1], x[1:]).detach()  # distances
        tensor([[1.5134]])
    """

    any_vector_is_a_point = True
    max_radius = MAX_RADIUS

    def __init__(
        self,
        *,
        curv_init: float = 1.0,
        learn_curv: bool = True,
        curv_range: float = 10.0,
        min_radius: float = MIN_RADIUS,
        pooling: Pooling = "mean",
        clamp: Clamp = "parameter",
    ) -> None:
        super().__init__(
            curv_init=curv_init,
            learn_curv=learn_curv,
            curv_range=curv_range,
            min_radius=min_radius,
            clamp=clamp,
        )
        self.pooling = one_of("pooling", pooling, Pooling)

    def lift(self, features: Tensor) -> Tensor:
        return exp_map0(features, curv=self.curv)

    def flatten(self, embeddings: Tensor) -> Tensor:
        return log_map0(embeddings, curv=self.curv)

    @full_precision
    def pool(self, features: Tensor) -> Tensor:
        if self.pooling == "mean":
            return super().pool(features)
        work = working_dtype(features.device)
        length = torch.linalg.vector_norm(features, dim=-1, dtype=work).mean(-1, keepdim=True)
        # A length beyond the dtype gives the same point: lifting saturates long before.
        length = length.clamp(max=torch.finfo(features.dtype).max).to(features.dtype)
        return self.lift(length * mean_direction(features))

    def pairwise_similarity(self, x: Tensor, y: Tensor) -> Tensor:
        return -pairwise_dist(x, y, curv=self.curv)

    def ranking_similarity(self, x: Tensor, y: Tensor) -> Tensor:
        return pairwise_inner(x, y, curv=self.curv)

    def inner_product_form(self, embeddings: Tensor, *, side: Side) -> Tensor:
        """Space components and time, its sign flipped for keys: products are the Lorentz inner products, (..., D + 1).

        The distance is acosh(-c <x, y>) / sqrt(c).
        """
        one_of("side", side, Side)
        t = time_component(embeddings, curv=self.curv)
        return torch.cat((embeddings.to(t.dtype), t if side == "query" else -t), dim=-1)

    @full_precision
    def tiled_similarity(self, x: Tensor, y: Tensor) -> TiledScores:
        return tiles.negative_lorentz_distance(x, y, curv=self.curv)

    def geodesic(self, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        return geodesic(x, y, weights, curv=self.curv)

    @full_precision
    def tiled_exterior_angle(self, apex: Tensor, point: Tensor) -> TiledScores:
        return tiles.exterior_angle(apex, point, curv=self.curv)


@dataclass(frozen=True)
class LorentzCones(Cones):
    """Cones with half aperture asin(2 r_min / (sqrt(c) |x|)) of space components x, r_min = ``min_radius``."""

    geometry: Hyperbolic

    def exterior_angle(self, apex: Tensor, point: Tensor) -> Tensor:
        space = self.geometry.space_components
        return oxy_angle(space(apex), space(point), curv=self.geometry.curv)[..., None]

    def pairwise_exterior_angle(self, apex: Tensor, point: Tensor) -> Tensor:
        space = self.geometry.space_components
        return pairwise_oxy_angle(space(apex), space(point), curv=self.geometry.curv)

    def half_aperture(self, apex: Tensor) -> Tensor:
        geometry = self.geometry
        x = geometry.space_components(apex)
        return half_aperture(x, curv=geometry.curv, min_radius=geometry.min_radius)[..., None]


def _working(*points: Tensor, curv: float | Tensor, pairwise: bool = False) -> tuple[Tensor, ...]:
    """Check the arguments; (curv, *points) in the working dtype."""
    for name, x in zip(("x", "y"), points, strict=False):
        if not x.is_floating_point():
            raise TypeError(f"{name}: got {x.dtype}, expected floating-point numbers.")
        if x.dim() < 1 + pairwise:
            expected = "(..., B, D)" if pairwise else "(..., D)"
            raise ValueError(f"{name}: got shape {tuple(x.shape)}, expected {expected}.")
    kernels.refuse_beyond(*points)
    if len({x.shape[-1] for x in points}) > 1 or (pairwise and len({x.shape[:-2] for x in points}) > 1):
        shapes = " and ".join(str(tuple(x.shape)) for x in points)
        raise ValueError(
            f"x, y: got shapes {shapes}, expected the same D (pairwise: and leading dimensions)."
        )
    dtype = working_dtype(points[0].device)
    if isinstance(curv, Tensor):
        looked = (
            curv.device.type == "cpu" and not torch.compiler.is_compiling()
        )  # a recorded graph asks nothing
        if looked and not bool((curv.detach() > 0).all()):
            raise ValueError(f"curv: got {curv.detach().min().item()}, expected c > 0 (the curvature is -c).")
        c = curv.to(device=points[0].device, dtype=dtype)
    else:
        if not (curv > 0 and math.isfinite(curv)):
            raise ValueError(f"curv: got {curv}, expected a finite c > 0 (the curvature is -c).")
        c = points[0].new_full((), curv, dtype=dtype)
    return (c, *(x.to(dtype) for x in points))
