"""Scores that are an elementwise function of one inner product and of terms of the row and the column.

``h_ij = f(x_i . y_j; a_i, b_j)``: what a score matrix can be computed from tile by tile, and its gradient again from
the tile. The distance, the cosine, the squared distance and the exterior angle have this form; a product of several
spaces has one inner product per factor and has not.

A kernel works in place on tiles (r, k) of plain tensors, without autograd. Points, inner products and values have the
dtype of the points; terms have the working dtype (fp64), and what this dtype holds more of them is not lost where the
result would show it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hypvl.geometry import kernels
from hypvl.numerics import working_dtype

# Points farther out than this, in units of the radius of curvature, count as lying at this length: 32 times farther
# than the exponential map reaches. The square of the product of two fits in fp32.
FARTHEST = 2.0**20
# Squared, how near to the root an apex and a point together count as lying there: their angle has no gradient then.
_BOTH_AT_ROOT = 2.0**-100
# Weights are alike up to this ratio of the largest to the least.
_ALIKE = 2.0


# Of a tile, as its kernel orders them.
Terms: TypeAlias = tuple[Tensor, ...]


class TileKernel(ABC):
    """What follows the inner products: values, and gradients from what was kept of the values.

    The two are functions of tensors alone, so that they can be compiled.

    Args:
        a: Terms of the rows, (B, A).
        b: Terms of the columns, (N, C).
        dtype: Of the tiles.

    Attributes:
        gain: What the gradient of h still has to be multiplied by before :meth:`backward_`.
        buffers: How many tiles :meth:`values_` keeps.
    """

    gain = 1.0
    buffers = 1

    @abstractmethod
    def __init__(self, a: Tensor, b: Tensor, dtype: torch.dtype) -> None: ...

    @abstractmethod
    def at(self, rows: slice, columns: slice) -> Terms:
        """What the tile of these rows and columns needs."""

    @staticmethod
    @abstractmethod
    def values_(tile: Tensor, terms: Terms, *, keep: Sequence[Tensor]) -> Tensor:
        """h from inner products (r, k), in place; ``keep``, each (r, k), get what :meth:`backward_` needs."""

    @staticmethod
    @abstractmethod
    def backward_(
        grad: Tensor, terms: Terms, *, keep: Sequence[Tensor]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Turn the gradient of h (r, k) into that of the inner products, in place; ``keep`` may be overwritten.

        Returns:
            Gradients of a (r, A) and of b (k, B); None where there are no such terms.
        """


class Linear(TileKernel):
    """h = p + a_i + b_j: negative squared distances; without terms inner products, of unit vectors cosines."""

    def __init__(self, a: Tensor, b: Tensor, dtype: torch.dtype) -> None:
        self.products = (
            _Products((a, torch.ones_like(b)), (torch.ones_like(a), b), dtype=dtype) if a.shape[1] else None
        )

    def at(self, rows: slice, columns: slice) -> Terms:
        return () if self.products is None else self.products.at(rows, columns)

    @staticmethod
    def values_(tile: Tensor, terms: Terms, *, keep: Sequence[Tensor]) -> Tensor:
        return _add_products_(tile, *terms) if terms else tile

    @staticmethod
    def backward_(
        grad: Tensor, terms: Terms, *, keep: Sequence[Tensor]
    ) -> tuple[Tensor | None, Tensor | None]:
        if not terms:
            return None, None
        return grad.sum(1, keepdim=True), grad.sum(0)[:, None]


class Distance(TileKernel):
    """h = acosh(1 + w), 2 w = 2 (u_i + v_j + u_i v_j) + p: the distance of curvature -1, u = cosh(radius) - 1.

    w = -<x, y> - 1 in the Lorentz product, through its small parts so that it keeps its digits near the root.
    """

    gain = 0.5

    def __init__(self, a: Tensor, b: Tensor, dtype: torch.dtype) -> None:
        self.products = _Products((2 * a, b + 1), (torch.ones_like(a), 2 * b), dtype=dtype)
        self.u, self.v = _Weights(2 * (a + 1), dtype=dtype), _Weights(2 * (b + 1), dtype=dtype)

    def at(self, rows: slice, columns: slice) -> Terms:
        return *self.products.at(rows, columns), *self.u.at(rows), *self.v.at(columns)

    @staticmethod
    def values_(tile: Tensor, terms: Terms, *, keep: Sequence[Tensor]) -> Tensor:
        _add_products_(tile, terms[0], terms[1]).clamp_(min=0)
        torch.addcmul(tile, tile, tile, value=0.25, out=keep[0]).sqrt_()  # sinh of the distance
        return torch.add(keep[0], tile, alpha=0.5, out=tile).log1p_()

    @staticmethod
    def backward_(
        grad: Tensor, terms: Terms, *, keep: Sequence[Tensor]
    ) -> tuple[Tensor | None, Tensor | None]:
        _, _, *u, v_common, v_rest = terms
        (sinh,) = keep
        if not _all_above(sinh):  # a point and itself have no direction: gradient 0
            grad.masked_fill_(sinh <= 0, 0)
            sinh.masked_fill_(sinh <= 0, 1)
        grad.div_(sinh)
        return _row_sums(grad, v_common, v_rest, work=sinh), _column_sums(grad, *u, work=sinh)


class Angle(TileKernel):
    """h = atan2(s_i mu_j q, mu_j g - alpha_i), q = sqrt(1 - g^2): the exterior angle at i towards j, g = p.

    Terms of the row: alpha, s; of the column: mu; see :func:`hypvl.geometry.kernels.angle_from_product`.
    """

    buffers = 4

    def __init__(self, a: Tensor, b: Tensor, dtype: torch.dtype) -> None:
        self.alpha, self.s, self.mu = a[:, :1].to(dtype), a[:, 1:].to(dtype), b.mT.to(dtype)
        self.columns = _Weights(b, dtype=dtype)
        self.rows = _Weights(a.prod(1, keepdim=True), dtype=dtype)

    def at(self, rows: slice, columns: slice) -> Terms:
        own = self.alpha[rows], self.s[rows], self.mu[:, columns]
        return *own, *self.rows.at(rows), *self.columns.at(columns)

    @staticmethod
    def values_(tile: Tensor, terms: Terms, *, keep: Sequence[Tensor]) -> Tensor:
        alpha, s, mu, *_ = terms
        g, q, opposite, adjacent = keep
        torch.clamp(tile, -1, 1, out=g)
        torch.sub(1, g, out=q)
        q.addcmul_(q, g).sqrt_()  # (1 - g)(1 + g)
        torch.mul(q, mu, out=opposite).mul_(s)
        torch.mul(g, mu, out=adjacent).sub_(alpha)
        torch.atan2(opposite, adjacent, out=tile)
        if not _all_above(tile):
            tile.masked_fill_((opposite == 0) & (adjacent == 0), torch.pi / 2)  # undefined
        return tile

    @staticmethod
    def backward_(
        grad: Tensor, terms: Terms, *, keep: Sequence[Tensor]
    ) -> tuple[Tensor | None, Tensor | None]:
        alpha, s, mu, *of_rows, column_common, column_rest = terms
        g, q, opposite, adjacent = keep
        w = opposite.square_().addcmul_(adjacent, adjacent)
        if not _all_above(w, _BOTH_AT_ROOT):
            at_root = w <= _BOTH_AT_ROOT
            grad.masked_fill_(at_root, 0)
            w.masked_fill_(at_root, 1)
        torch.div(grad, w, out=w)
        along = g.mul_(-alpha).add_(mu).mul_(w).mul_(mu)  # (mu - alpha g) mu w
        w.mul_(q)
        if not _all_above(q):
            along.masked_fill_(q == 0, 0)
            q.masked_fill_(q == 0, 1)
        torch.mul(along.div_(q), -s, out=grad)
        grad_mu = -_column_sums(w, *of_rows, work=g)
        grad_alpha = _row_sums(w, column_common, column_rest, work=g) * s
        grad_s = _row_sums(w.mul_(adjacent), column_common, column_rest, work=g)
        return torch.cat([grad_alpha, grad_s], dim=1), grad_mu


@dataclass(frozen=True)
class Factored:
    """Scores z_ij = scale_i h(x_i . y_j; a_i, b_j), not computed yet; everything carries gradients.

    Attributes:
        kernel: h, to be made of the terms.
        rows: x, (B, D).
        columns: y, (N, D), of the same dtype.
        row_terms: a, (B, A) with A >= 0, in the working dtype.
        column_terms: b, (N, C) with C >= 0, in the working dtype.
        scale: 0-dim or (B, 1).
        symmetric: Whether the scores of the columns as queries are these, transposed.
    """

    kernel: type[TileKernel]
    rows: Tensor
    columns: Tensor
    row_terms: Tensor
    column_terms: Tensor
    scale: Tensor
    symmetric: bool

    def scaled(self, scale: Tensor) -> "Factored":
        """The same times ``scale``, 0-dim or (B, 1)."""
        return Factored(
            self.kernel,
            self.rows,
            self.columns,
            self.row_terms,
            self.column_terms,
            self.scale * scale,
            self.symmetric,
        )


def linear(x: Tensor, y: Tensor) -> Factored:
    """Inner products: of unit vectors, cosines."""
    x, y = _alike(x, y)
    return Factored(Linear, x, y, _none(x), _none(y), x.new_ones(()), symmetric=True)


def negative_squared_distance(x: Tensor, y: Tensor) -> Factored:
    """-|x - y|^2 in flat space, about a common centre, which changes no distance and loses fewer digits.

    Points beyond ``kernels.REACH`` of it count as lying there.
    """
    x, y = kernels.about_common_centre(*_alike(x, y))
    work = working_dtype(x.device)
    x2, y2 = (z.to(work).square().sum(-1, keepdim=True) for z in (x, y))
    return Factored(Linear, 2 * x, y, -x2, -y2, x.new_ones(()), symmetric=True)


def negative_lorentz_distance(x: Tensor, y: Tensor, *, curv: Tensor) -> Factored:
    """-d(x, y) of points (B, D), (N, D) given by their space components; ``curv`` is c > 0.

    Points beyond :data:`FARTHEST` count as lying there.
    """
    x, y = _alike(x, y)
    c = curv.to(working_dtype(x.device))

    def terms(points: Tensor) -> tuple[Tensor, Tensor]:
        """A factor that brings far points nearer, in the dtype of the points, and sigma - 1."""
        n2 = c * (points * points).sum(-1, keepdim=True, dtype=c.dtype)
        beyond = ~(n2 <= FARTHEST**2)  # overflow, too
        factor = torch.where(beyond, FARTHEST / c.detach().sqrt() / _length(points), 1.0)
        n2 = torch.where(beyond, FARTHEST**2, n2)
        return factor.to(points.dtype), n2 / (kernels.time_of(n2) + 1)

    near_x, u = terms(x)
    near_y, v = terms(y)
    scale = -c.rsqrt().to(x.dtype)
    return Factored(Distance, x * (-2 * c.to(x.dtype) * near_x), y * near_y, u, v, scale, symmetric=True)


def exterior_angle(apex: Tensor, point: Tensor, *, curv: Tensor | None) -> Factored:
    """Exterior angles at the rows towards the columns, of points (B, D), (N, D) given by their space components.

    Args:
        apex: Rows.
        point: Columns.
        curv: c > 0 of the Lorentz model; None = of flat space.
    """
    apex, point = _alike(apex, point)
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
    return Factored(Angle, x, y, a, kernels.radius(m2) / tau, x.new_ones(()), symmetric=False)


class _Directions(torch.autograd.Function):
    """Points (B, D) over their lengths (B, 1) of the working dtype, 0 at the root: rounded once, and kept once."""

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


def _alike(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(x.dtype, y.dtype)
    return x.to(dtype), y.to(dtype)


class _Products:
    """Sums over pairs of a_i b_j, of terms (B, 1), (N, 1) of higher precision, as exactly as they are."""

    def __init__(self, *pairs: tuple[Tensor, Tensor], dtype: torch.dtype) -> None:
        left, right = [], []
        for a, b in pairs:
            (a_high, a_low), (b_high, b_low) = (_halves(z, dtype) for z in (a, b))
            left += [a_high, a_low, a_high]
            right += [b_high, b_high, b_low]
        self.left, self.right = torch.cat(left, dim=1), torch.cat(right, dim=1)

    def at(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        return self.left[rows], self.right[columns]


def _add_products_(tile: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Add left @ right.T, (r, T) and (k, T), to a tile."""
    if torch.compiler.is_compiling():  # outer products become a part of what is done to each element
        for i in range(left.shape[1]):
            tile.addcmul_(left[:, i, None], right[:, i])
        return tile
    return tile.addmm_(left, right.mT)


class _Weights:
    """Weights (N, 1) of sums over rows or columns of tiles, what they have in common apart.

    Where they are alike, this is their mean: the rest is small and so keeps its digits if the sums nearly cancel. Where
    they are not, it is the least of them: those near it, which may go with the largest summands, lose nothing.
    """

    def __init__(self, weights: Tensor, *, dtype: torch.dtype) -> None:
        least, most = (weights.amin(), weights.amax()) if len(weights) else (weights.sum(), weights.sum())
        self.common = torch.where(most <= _ALIKE * least, weights.mean(), least)
        self.rest = (weights - self.common).to(dtype)

    def at(self, part: slice) -> tuple[Tensor, Tensor]:
        return self.common, self.rest[part]


def _row_sums(tile: Tensor, common: Tensor, rest: Tensor, *, work: Tensor) -> Tensor:
    """Sums over the columns (k, 1), weighted: (r, 1) in the precision of the weights; ``work`` is overwritten."""
    weighted = torch.mul(tile, rest.mT, out=work).sum(1, keepdim=True)
    return common * tile.sum(1, keepdim=True).to(common.dtype) + weighted


def _column_sums(tile: Tensor, common: Tensor, rest: Tensor, *, work: Tensor) -> Tensor:
    """Sums over the rows (r, 1), weighted: (k, 1) in the precision of the weights; ``work`` is overwritten."""
    weighted = torch.mul(tile, rest, out=work).sum(0)
    return (common * tile.sum(0).to(common.dtype) + weighted)[:, None]


def _all_above(tile: Tensor, bound: float = 0.0) -> bool:
    """Whether all surely are: on a processor; a device would have to be waited for."""
    if torch.compiler.is_compiling() or tile.device.type != "cpu":
        return False
    return float(tile.amin()) > bound


def _halves(term: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What ``dtype`` holds of a term, and what of the rest."""
    high = term.to(dtype)
    return high, (term - high.to(term.dtype)).to(dtype)


def _none(x: Tensor) -> Tensor:
    return x.new_empty(len(x), 0, dtype=working_dtype(x.device))
