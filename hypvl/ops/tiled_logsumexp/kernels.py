"""Scores that are an elementwise function of one inner product and of terms of the row and the column.

``h_ij = f(x_i . y_j; a_i, b_j)``: a score matrix that can be computed tile by tile, and its gradient again from each
tile. The distance, the cosine, the squared distance and the exterior angle are such functions. The distance of a
product of spaces is not: it has one inner product for each factor.

A kernel works in place on tiles (r, k) of plain tensors, without autograd. Points, inner products and values have the
dtype of the points. Terms have the working dtype (fp64); where a result would show the digits that the dtype of the
points lacks, the kernel uses them.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

# Squared, how near to the root an apex and a point together count as lying there: their angle has no gradient then.
_BOTH_AT_ROOT = 2.0**-100
# Weights are alike up to this ratio of the largest to the least.
_ALIKE = 2.0

# What a tile needs besides its inner products, in the order of its kernel.
Terms: TypeAlias = tuple[Tensor, ...]
# Gradients of the terms of the rows and of the columns.
TermGrads: TypeAlias = tuple[Tensor | None, Tensor | None]


class TileKernel(ABC):
    """What follows the inner products: the values, and the gradients from what the values left in ``keep``.

    Both are functions of tensors alone, so that they can be compiled.

    Args:
        a: Terms of the rows, (B, A).
        b: Terms of the columns, (N, C).
        dtype: Of the tiles.
    """

    gain = 1.0  # factor that the caller multiplies into the gradient of h before :meth:`backward_`
    buffers = 1  # how many tiles :meth:`values_` fills for :meth:`backward_`

    @abstractmethod
    def __init__(self, a: Tensor, b: Tensor, dtype: torch.dtype) -> None: ...

    @abstractmethod
    def at(self, rows: slice, columns: slice) -> Terms:
        """Terms of the tile of these rows and columns."""

    @staticmethod
    @abstractmethod
    def values_(tile: Tensor, terms: Terms, *, keep: Sequence[Tensor]) -> Tensor:
        """h from inner products (r, k), in place; what :meth:`backward_` needs goes into ``keep``, each (r, k)."""

    @staticmethod
    @abstractmethod
    def backward_(grad: Tensor, terms: Terms, *, keep: Sequence[Tensor]) -> TermGrads:
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
    def backward_(grad: Tensor, terms: Terms, *, keep: Sequence[Tensor]) -> TermGrads:
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
    def backward_(grad: Tensor, terms: Terms, *, keep: Sequence[Tensor]) -> TermGrads:
        _, _, *u, v_common, v_rest = terms
        (sinh,) = keep
        if not _all_above(sinh):  # between a point and itself there is no direction: gradient 0
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
    def backward_(grad: Tensor, terms: Terms, *, keep: Sequence[Tensor]) -> TermGrads:
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
class TiledScores:
    """Scores z_ij = scale_i h(x_i . y_j; a_i, b_j) + shift_i, not computed yet; gradients flow to every tensor."""

    kernel: type[TileKernel]  # h, to be made of the terms
    rows: Tensor  # x, (B, D)
    columns: Tensor  # y, (N, D), of the same dtype
    row_terms: Tensor  # a, (B, A) with A >= 0, in the working dtype
    column_terms: Tensor  # b, (N, C) with C >= 0, in the working dtype
    scale: Tensor  # 0-dim or (B, 1)
    symmetric: bool  # whether the scores of the columns as queries are these, transposed
    shift: Tensor | None = None  # 0-dim or (B, 1); log-sum-exps leave it out, since it changes no softmax

    def scaled(self, scale: Tensor) -> "TiledScores":
        """The same times ``scale``: 0-dim, or (B, 1), which no column has as a query."""
        shift = None if self.shift is None else self.shift * scale
        symmetric = self.symmetric and scale.dim() == 0
        return replace(self, scale=self.scale * scale, shift=shift, symmetric=symmetric)


@runtime_checkable
class TileableGeometry(Protocol):
    """A geometry whose scores can be computed tile by tile. It implements these two methods and imports nothing."""

    def tiled_similarity(self, x: Tensor, y: Tensor) -> TiledScores:
        """``pairwise_similarity`` of (B, D) and (N, D) embeddings, not computed yet."""

    def tiled_exterior_angle(self, apex: Tensor, point: Tensor) -> TiledScores | None:
        """``pairwise_exterior_angle`` of (B, D) and (N, D) embeddings, not computed yet; None without angles."""


class _Products:
    """Sums over pairs of a_i b_j of terms (B, 1), (N, 1), with the digits of their higher precision."""

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
    if torch.compiler.is_compiling():  # outer products are fused with what is done to each element
        for i in range(left.shape[1]):
            tile.addcmul_(left[:, i, None], right[:, i])
        return tile
    return tile.addmm_(left, right.mT)


class _Weights:
    """Weights (N, 1) of sums over rows or columns of tiles, as a common part and the rest.

    Where the weights are alike, the common part is their mean: the rest is small and keeps its digits when the sums
    nearly cancel. Where they are not, it is the least of them: weights near it, which may belong to the largest
    summands, lose nothing.
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
    """Whether every entry is above the bound. False on a device, which would have to be waited for."""
    if torch.compiler.is_compiling() or tile.device.type != "cpu":
        return False
    return float(tile.amin()) > bound


def _halves(term: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A term rounded to ``dtype``, and the rounded remainder."""
    high = term.to(dtype)
    return high, (term - high.to(term.dtype)).to(dtype)
