"""Row and column log-sum-exps of a score matrix that is never held: memory linear in the number of rows and columns.

Forward: one pass over the tiles with sums of exponentials for rows and columns. Backward: each tile is computed again,
turned into its gradient, and multiplied into the gradients of rows and columns.

Exponentials are relative to the running maximum of each row and column. On a CPU one reference for all rows and columns
is tried first: then each score needs one exponential instead of two, and forward and backward at 8192 rows take about
5 % less CPU time. It is given up where the sums show that the scores differ too much.

Source: the running log-sum-exp of Milakov and Gimelshein 2018 (arXiv 1805.02867); recomputing tiles in the backward
    pass as Dao et al. 2022 (arXiv 2205.14135) do for attention.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hypvl.numerics import autocast_off, ieee_products, working_dtype
from hypvl.ops.tiled_logsumexp.kernels import TiledScores, TileKernel
from hypvl.ops.tiled_logsumexp.tile_steps import (
    OnlineStats,
    StatsGrad,
    Step,
    Tile,
    collect,
    gradient,
    should_compile,
    tally,
)

# Rows and columns of a tile on a CPU; a few of them in fp32 stay in its cache.
TILE = (1024, 1024)
# How far the log-sum-exp of a row or column may be from the common reference. An exponent loses as many digits as its
# distance from the reference has before the point, and at a distance of 87 an exponential is 0 in fp32.
_REACH = 24.0

_COLLECT, _GRADIENT = Step(collect), Step(gradient)


class LogSumExps(NamedTuple):
    """Of scores z (B, N)."""

    rows: Tensor  # (B,), over the columns
    columns: Tensor  # (N,), over the rows; empty unless asked for
    row_sums: Tensor  # (B,) sums of z over the columns; empty unless asked for
    column_sums: Tensor  # (N,) sums of z over the rows; empty unless asked for
    #: (B,) z of each row and its target, rounded as in the sums, so that the error cancels. With labels: the sum over
    #: the columns of the row's label.
    targets: Tensor
    #: (N,) with labels, the sum over the rows of the column's label, if columns are asked for; else empty.
    column_targets: Tensor
    counts: Tensor  # (B,) how many columns have the row's label; empty without labels
    column_counts: Tensor  # (N,) how many rows have the column's label; empty where ``column_targets`` is


def log_sum_exps(
    scores: TiledScores,
    targets: Tensor,
    *,
    labels: tuple[Tensor, Tensor] | None = None,
    columns: bool = False,
    sums: bool = False,
    tile: tuple[int, int] | None = None,
) -> LogSumExps:
    """Log-sum-exp of each row, and of each column, of scores that are computed tile by tile.

    Args:
        scores: What the scores are made of; gradients flow to all its tensors. Differentiable once.
        targets: (B,) int64, the target column of each row; not used with labels.
        labels: Of the rows, (B,), and of the columns, (N,), int64: all columns of a row's label are its targets.
        columns: Whether columns are asked for, too; they cost no second pass.
        sums: Whether plain sums of the scores are asked for (label smoothing).
        tile: Rows and columns of a tile; None = device default. The last tiles may be smaller.

    Returns:
        In the working dtype of the device, fp64 where it has that.
    """
    if tile is None:
        tile = TILE if scores.rows.device.type == "cpu" else (8192, 8192)
    with autocast_off({scores.rows.device.type}):
        return LogSumExps(
            *cast(
                tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor],
                _TiledLogSumExps.apply(
                    scores.rows, scores.columns, scores.row_terms, scores.column_terms,
                    scores.scale.to(scores.rows.dtype), targets, labels, scores.kernel, columns, sums, tile,
                ),
            )
        )  # fmt: skip


class _TiledLogSumExps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, a: Tensor, b: Tensor, scale: Tensor,
        targets: Tensor, labels: tuple[Tensor, Tensor] | None, kernel: type[TileKernel], columns: bool, sums: bool,
        tile: tuple[int, int],
    ) -> tuple[Tensor, ...]:  # fmt: skip
        scores = _Scores(x, y, a, b, scale, targets, labels, kernel, tile)
        with ieee_products(x.dtype):
            result = _Pass(scores, columns=columns, sums=sums)
            if not (scores.may_share_reference() and result.with_common_reference()):
                result = _Pass(scores, columns=columns, sums=sums)
                result.with_running_maxima()
        rows, of_columns = result.rows, result.columns
        reference_score = result.reference_score().to(x.dtype)
        ctx.save_for_backward(x, y, a, b, scale, targets, rows.largest, rows.total, of_columns.largest,
                              of_columns.total, reference_score, rows.counts, of_columns.counts)  # fmt: skip
        ctx.neg_reference, ctx.labels = result.neg_reference, labels
        ctx.mark_non_differentiable(rows.counts, of_columns.counts)
        ctx.kernel, ctx.columns, ctx.sums, ctx.tile = kernel, columns, sums, tile
        s = scale.to(rows.own.dtype)
        own = rows.own * (s if s.dim() == 0 else s[:, 0])
        lses = (z.largest + z.total.log() for z in (rows, of_columns))
        return (*lses, rows.plain, of_columns.plain, own, of_columns.own, rows.counts, of_columns.counts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x, y, a, b, scale, targets, row_max, row_total, column_max, column_total, reference_score,
         counts, column_counts) = ctx.saved_tensors  # fmt: skip
        scores = _Scores(x, y, a, b, scale, targets, ctx.labels, ctx.kernel, ctx.tile)
        g_rows, g_columns, g_row_sums, g_column_sums, g_own, g_column_own, _, _ = grads
        # Divided by the totals: a softmax by maximum and total is more exact than one by their rounded log-sum-exp.
        rows = StatsGrad(row_max, *(g.to(x.dtype) for g in (g_rows / row_total, g_row_sums, g_own)))
        columns = StatsGrad(
            column_max, *(g.to(x.dtype) for g in (g_columns / column_total, g_column_sums, g_column_own))
        )
        settings = {"neg_reference": ctx.neg_reference, "reference_score": reference_score, "sums": ctx.sums}
        settings["labelled"] = ctx.labels is not None
        grad_x, grad_y = torch.zeros_like(x), torch.zeros_like(y)
        grad_a, grad_b = torch.zeros_like(a), torch.zeros_like(b)
        grad_scale = torch.zeros_like(scale, dtype=row_total.dtype)
        with autocast_off({x.device.type}), ieee_products(x.dtype):
            for r, k, tile, buffers in scores.tiles(extra_buffers=2):
                grad, to_a, to_b, to_scale = _GRADIENT(
                    ctx.kernel, tile, rows.at(r), columns.at(k) if ctx.columns else None,
                    buffers=buffers, **settings,
                )  # fmt: skip
                if scale.dim() == 0:
                    grad_scale += to_scale.sum(dtype=grad_scale.dtype)
                else:
                    grad_scale[r] += to_scale
                for total, part, at in ((grad_a, to_a, r), (grad_b, to_b, k)):
                    if part is not None:
                        total[at] += part
                grad_x[r].addmm_(grad, y[k])
                grad_y[k].addmm_(grad.mT, x[r])
        if scale.dim() == 0:
            total = g_rows.sum() + g_columns.sum()
            if ctx.labels is None:
                total = total + g_own.sum()
            else:
                total = total + (g_own * counts).sum() + (g_column_own * column_counts).sum()
            if ctx.sums:
                total = total + len(y) * g_row_sums.sum() + len(x) * g_column_sums.sum()
            grad_scale += total * reference_score
        return grad_x, grad_y, grad_a, grad_b, grad_scale.to(scale.dtype), None, None, None, None, None, None


class _Scores:
    """Scores with their targets or labels, and the tiles they are computed in."""

    def __init__(
        self, x: Tensor, y: Tensor, a: Tensor, b: Tensor, scale: Tensor,
        targets: Tensor, labels: tuple[Tensor, Tensor] | None, kernel: type[TileKernel], tile: tuple[int, int],
    ) -> None:  # fmt: skip
        self.x, self.y, self.scale, self.labels = x.detach(), y.detach(), scale.detach(), labels
        self.kernel, self.size, self.compiled = (
            kernel(a.detach(), b.detach(), x.dtype),
            tile,
            should_compile(x.device),
        )
        self.ids = (targets, torch.arange(len(y), device=y.device)) if labels is None else labels

    def may_share_reference(self) -> bool:
        """Whether a common reference can be tried: one scale, and a CPU, since a device would have to be waited for."""
        return self.scale.dim() == 0 and self.x.device.type == "cpu" and not self.compiled

    def tiles(self, *, extra_buffers: int = 0) -> Iterator[tuple[slice, slice, Tile, list[Tensor] | None]]:
        """Rows, columns, the tile with its products, and buffers of its size: those of the kernel, and extra ones.

        Tiles and buffers are contiguous views of memory that is allocated once. Compiled steps get None for buffers.
        """
        count = 1 if self.compiled else 1 + extra_buffers + self.kernel.buffers
        most = min(self.size[0], len(self.x)) * min(self.size[1], len(self.y))
        memory = [self.x.new_empty(most) for _ in range(count)]
        for r in _slices(len(self.x), self.size[0]):
            for k in _slices(len(self.y), self.size[1]):
                shape = (r.stop - r.start, k.stop - k.start)
                product, *buffers = (m[: shape[0] * shape[1]].view(shape) for m in memory)
                torch.mm(self.x[r], self.y[k].mT, out=product)
                scale = self.scale if self.scale.dim() == 0 else self.scale[r]
                tile = Tile(product, self.kernel.at(r, k), scale, self.ids[0][r], self.ids[1][k])
                yield r, k, tile, None if self.compiled else buffers


class _Pass:
    """Statistics from one pass over the tiles; those of columns are empty unless asked for."""

    #: 0-dim, minus the one reference of all exponentials; None = each row and column has its own.
    neg_reference: Tensor | None = None

    def __init__(self, scores: _Scores, *, columns: bool, sums: bool) -> None:
        self.scores, self.with_columns, self.sums = scores, columns, sums
        self.labelled = scores.labels is not None
        N = len(scores.y) if columns else 0
        self.rows = self._empty_stats(len(scores.x), own=len(scores.x))
        self.columns = self._empty_stats(N, own=N if self.labelled else 0)

    def _empty_stats(self, count: int, *, own: int) -> OnlineStats:
        x = self.scores.x
        zeros = x.new_zeros(0, dtype=working_dtype(x.device))
        return OnlineStats(
            largest=x.new_full((count,), -torch.inf),
            total=zeros.new_zeros(count),
            plain=zeros.new_zeros(count if self.sums else 0),
            own=zeros.new_zeros(own),
            counts=zeros.new_zeros(count if self.labelled else 0),
        )

    def reference_score(self) -> Tensor:
        """The mean target score, without the scale, 0-dim."""
        rows = self.rows
        if self.labelled or not len(rows.own):
            return rows.own.sum() / rows.counts.sum().clamp(min=1)
        return rows.own.mean()

    def with_common_reference(self) -> bool:
        """Sum exponentials relative to one number; False = the scores differ too much for that."""
        s = float(self.scores.scale)
        for r, k, tile, buffers in self.scores.tiles():
            assert buffers is not None
            h, work = self.scores.kernel.values_(tile.product, tile.terms, keep=buffers), buffers[0]
            rows, columns = tally(h, tile, *self._at(r, k), labelled=self.labelled, sums=self.sums)
            if self.neg_reference is None:
                self.neg_reference = -torch.mul(h, s, out=work).amax(1).median()
            torch.add(self.neg_reference, h, alpha=s, out=work).exp_()
            self._put_(r, k, rows, columns)
            self.rows.total[r] += work.sum(1)
            if columns is not None:
                self.columns.total[k] += work.sum(0)
        if self.neg_reference is None or not (_is_within_reach(self.rows) and _is_within_reach(self.columns)):
            return False
        for stats in (self.rows, self.columns):
            stats.largest.fill_(-float(self.neg_reference))
        return True

    def with_running_maxima(self) -> None:
        """Sum exponentials relative to the maximum of each row and column."""
        settings = {"labelled": self.labelled, "sums": self.sums}
        for r, k, tile, buffers in self.scores.tiles():
            stats = _COLLECT(type(self.scores.kernel), tile, *self._at(r, k), buffers=buffers, **settings)
            self._put_(r, k, *stats)

    def _at(self, r: slice, k: slice) -> tuple[OnlineStats, OnlineStats | None]:
        return self.rows.at(r), self.columns.at(k) if self.with_columns else None

    def _put_(self, r: slice, k: slice, rows: OnlineStats, columns: OnlineStats | None) -> None:
        self.rows.put_(r, rows)
        if columns is not None:
            self.columns.put_(k, columns)


def _is_within_reach(stats: OnlineStats) -> bool:
    """Whether every sum of exponentials is a number near 1."""
    return len(stats.total) == 0 or float(stats.total.log().abs().amax()) <= _REACH


def _slices(count: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]
