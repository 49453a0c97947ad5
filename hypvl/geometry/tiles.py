"""Scores of the geometries as functions of one inner product, for the tiled log-sum-exp.

Values and gradients are those of the pairwise functions, of which no matrix is held.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hypvl.geometry import kernels
from hypvl.numerics import working_dtype
from hypvl.ops.tiled_logsumexp.kernels import Angle, Distance, Linear, TiledScores

# Points farther out than this, in units of the radius of curvature, count as lying at this length: 32 times farther
# than the exponential map reaches. The square of the product of two fits in fp32.
FARTHEST = 2.0**20


def inner_product(x: Tensor, y: Tensor) -> TiledScores:
    """Inner products; cosines of unit vectors. The vectors are kept as they are: their products must fit in the dtype.

    (Rows that occur in several matrices are then held once.)
    """
    x, y = _same_dtype(x, y)
    return TiledScores(Linear, x, y, _no_terms(x), _no_terms(y), x.new_ones(()), symmetric=True)


def negative_squared_distance(x: Tensor, y: Tensor) -> TiledScores:
    """-|x - y|^2 in flat space, about a common centre: the distances stay, and products lose fewer digits.

    Points farther from it than ``kernels.REACH`` count as lying at that distance.
    """
    x, y = kernels.about_common_centre(*_same_dtype(x, y))
    x2, y2 = (cast(Tensor, _Squares.apply(z)) for z in (x, y))
    return TiledScores(Linear, 2 * x, y, -x2, -y2, x.new_ones(()), symmetric=True)


def negative_lorentz_distance(x: Tensor, y: Tensor, *, curv: Tensor) -> TiledScores:
    """-d(x, y) of points (B, D), (N, D) given by their space components; ``curv`` is c > 0.

    Points farther from the root than :data:`FARTHEST` count as lying at that distance.
    """
    x, y = _same_dtype(x, y)
    c = curv.to(working_dtype(x.device))

    def terms(points: Tensor) -> tuple[Tensor, Tensor]:
        """A factor that brings far points nearer, in the dtype of the points, and sigma - 1."""
        square = (points * points).sum(-1, keepdim=True, dtype=c.dtype)
        beyond = ~((c * square).detach() <= FARTHEST**2)  # overflow, too
        factor = torch.where(beyond, FARTHEST / c.detach().sqrt() / _length(points), 1.0)
        n2 = torch.where(beyond, FARTHEST**2, c * torch.where(beyond, 0.0, square))
        return factor.to(points.dtype), n2 / (kernels.time_of(n2) + 1)

    near_x, u = terms(x)
    near_y, v = terms(y)
    scale = -c.rsqrt().to(x.dtype)
    return TiledScores(Distance, x * (-2 * c.to(x.dtype) * near_x), y * near_y, u, v, scale, symmetric=True)


def exterior_angle(apex: Tensor, point: Tensor, *, curv: Tensor | None) -> TiledScores:
    """Exterior angles at the rows towards the columns, of points (B, D), (N, D) given by their space components.

    Args:
        apex: Rows.
        point: Columns.
        curv: c > 0 of the Lorentz model; None = of flat space.

    Raises:
        ValueError: for an fp64 component beyond 1e70, as the angles themselves.
    """
    kernels.refuse_beyond(apex, point)
    apex, point = _same_dtype(apex, point)
    work = working_dtype(apex.device)
    c = torch.ones((), dtype=work, device=apex.device) if curv is None else curv.to(work)
    lengths = [torch.linalg.vector_norm(z, dim=-1, keepdim=True, dtype=work) for z in (apex, point)]
    n2, m2 = (c * length.square() for length in lengths)
    x, y = (
        cast(Tensor, _Directions.apply(z, length.detach(), kernels.is_root(square)))
        for z, length, square in zip((apex, point), lengths, (n2, m2), strict=True)
    )
    sigma, tau = (torch.ones_like(z) if curv is None else kernels.time_of(z) for z in (n2, m2))
    a = torch.cat([kernels.radius(n2) / sigma, 1 / sigma], dim=1)
    return TiledScores(Angle, x, y, a, kernels.radius(m2) / tau, x.new_ones(()), symmetric=False)


class _Squares(torch.autograd.Function):
    """|x|^2 of rows (B, D) in the working dtype, (B, 1), of which no other row-sized tensor is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        work = working_dtype(x.device)
        return torch.cat([x[rows].to(work).square().sum(-1, keepdim=True) for rows in kernels.blocks(x)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        out = torch.empty_like(x)
        for rows in kernels.blocks(x):
            out[rows] = 2 * grad[rows] * x[rows]
        return out


class _Directions(torch.autograd.Function):
    """Points (B, D) over their lengths (B, 1) of the working dtype, 0 at the root; rounded once, and stored once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, length: Tensor, at_root: Tensor) -> Tensor:
        length = torch.where(at_root, torch.inf, length)
        unit = torch.empty_like(x)
        for rows in kernels.blocks(x):
            unit[rows] = x[rows] / length[rows]
        ctx.save_for_backward(x, length)
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, length = ctx.saved_tensors
        out = torch.empty_like(grad)
        for rows in kernels.blocks(grad):
            part, d = grad[rows].to(length.dtype), x[rows] / length[rows]
            out[rows] = (part - (part * d).sum(-1, keepdim=True) * d) / length[rows]
        return out, None, None


@torch.no_grad()
def _length(points: Tensor) -> Tensor:
    """Norms (B, 1), without overflow and above 0."""
    largest = points.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(points.dtype).tiny)
    return (points / largest).norm(dim=-1, keepdim=True) * largest


def _same_dtype(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(x.dtype, y.dtype)
    return x.to(dtype), y.to(dtype)


def _no_terms(x: Tensor) -> Tensor:
    return x.new_empty(len(x), 0, dtype=working_dtype(x.device))
