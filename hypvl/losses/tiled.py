"""Row and column log-sum-exps of a score matrix that is never held: memory linear in the number of rows and columns.

Forward: one pass over tiles with sums of exponentials for rows and columns. Backward: each tile is computed again,
turned into its gradient, and multiplied into the gradients of rows and columns.

Exponentials are taken relative to one number for all rows and columns, so that each score needs one for both ways.
Where the scores differ too much for that (it shows in the sums), and on a GPU, which would have to be waited for, they
are relative to the running maximum of each row and column.

Source: the running log-sum-exp of Milakov and Gimelshein 2018 (arXiv 1805.02867); recomputing tiles in the backward
    pass as Dao et al. 2022 (arXiv 2205.14135) do for attention.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hypvl import distributed
from hypvl.geometry.tiles import Factored, TileKernel
from hypvl.losses.tile_steps import Collected, Pulls, Step, Tile, collect, gradient, pays, tally
from hypvl.numerics import autocast_off, ieee_products, working_dtype

# Rows and columns of a tile on a processor; a few of them in fp32 stay in its cache.
TILE = (1024, 1024)
# How far the log-sum-exp of a row or column may be from the common reference. An exponent loses the digits that its
# distance from the reference has before the point, and at 87 there is nothing left of an exponential in fp32.
_REACH = 24.0

_COLLECT, _GRADIENT = Step(collect), Step(gradient)


class LogSumExps(NamedTuple):
    """Of scores z (B, N).

    Attributes:
        rows: (B,), over the columns.
        columns: (N,), over the rows; empty where they were not asked for.
        row_sums: (B,) sums of z over the columns.
        column_sums: (N,), empty where columns were not asked for.
        targets: (B,) z of each row and its target, as it enters the sums: what rounding does to it cancels. With labels
            the sum over the columns of its label.
        column_targets: (N,) with labels the sum over the rows of a column's label; otherwise, and where columns were
            not asked for, empty.
        counts: (B,) how many columns have a row's label; without labels empty.
        column_counts: (N,) how many rows have a column's label, as ``column_targets``.
    """

    rows: Tensor
    columns: Tensor
    row_sums: Tensor
    column_sums: Tensor
    targets: Tensor
    column_targets: Tensor
    counts: Tensor
    column_counts: Tensor


def log_sum_exps(
    scores: Factored,
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
        targets: (B,) int64, a column of each row; not used where there are labels.
        labels: Of the rows, (B,), and of the columns, (N,), int64: all columns of a row's label are its targets.
        columns: Whether columns are asked for, too; they cost no second pass.
        sums: Whether plain sums of the scores are asked for (label smoothing); otherwise those are empty.
        tile: Rows and columns of a tile; None = what suits the device. Ragged last tiles are fine.

    Returns:
        In the working dtype of the device, fp64 where it has that.
    """
    if tile is None:
        tile = TILE if scores.rows.device.type == "cpu" else (8192, 8192)
    with autocast_off({scores.rows.device.type}):
        return LogSumExps(
            *cast(
                tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor],
                _Tiled.apply(
                    scores.rows, scores.columns, scores.row_terms, scores.column_terms,
                    scores.scale.to(scores.rows.dtype), targets, labels, scores.kernel, columns, sums, tile,
                ),
            )
        )  # fmt: skip


def contrastive_losses(
    scores: Factored,
    targets: Tensor,
    *,
    labels: tuple[Tensor, Tensor] | None = None,
    both_ways: bool = False,
    label_smoothing: float = 0.0,
    tile: tuple[int, int] | None = None,
) -> tuple[Tensor, ...]:
    """Mean cross entropies of the rows and, if asked for, of the columns as queries, from one pass over the scores.

    As :func:`hypvl.losses.contrastive.contrastive_loss` of the whole matrix, without it. Under a process group a
    rank has its rows and all columns, and the columns' sums over the rows of other ranks come from these.

    Args:
        scores: Of the local rows (B, D) and the columns of every rank (N, D).
        targets: (B,) int64, the column of each row; these are the columns that are this rank's.
        labels: Of the rows and the columns: the mean over all keys of a query's label takes the place of its own key.
        both_ways: Whether the columns are queries, too; the scores have to be symmetric.
        label_smoothing: In [0, 1).
        tile: As for :func:`log_sum_exps`.

    Returns:
        The rows' loss and, with ``both_ways``, that of this rank's columns; 0-dim each.

    Raises:
        ValueError: for both ways of scores that are not symmetric.
    """
    if both_ways and not scores.symmetric:
        raise ValueError("both_ways: the scores are not symmetric; compute each direction's own.")
    smooth = label_smoothing > 0
    found = log_sum_exps(scores, targets, labels=labels, columns=both_ways, sums=smooth, tile=tile)
    positive = found.targets if labels is None else found.targets / found.counts  # (B,)
    row_means = found.row_sums / len(scores.columns) if smooth else 0.0
    losses = [_cross_entropy(found.rows, positive, row_means, label_smoothing)]
    if both_ways:
        lse = distributed.gather(found.columns[None]).logsumexp(0)[targets]
        means: Tensor | float = 0.0
        if smooth:
            total = distributed.gather(found.column_sums[None]).sum(0)[targets]
            means = total / (len(scores.rows) * distributed.world_size())
        if labels is not None:
            total = distributed.gather(found.column_targets[None]).sum(0)[targets]
            positive = total / distributed.gather(found.column_counts[None]).sum(0)[targets]
        losses.append(_cross_entropy(lse, positive, means, label_smoothing))
    return tuple(loss.to(scores.rows.dtype) for loss in losses)


def _cross_entropy(lse: Tensor, positive: Tensor, mean: Tensor | float, smoothing: float) -> Tensor:
    return (lse - (1 - smoothing) * positive - smoothing * mean).mean()


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, a: Tensor, b: Tensor, scale: Tensor,
        targets: Tensor, labels: tuple[Tensor, Tensor] | None, kernel: type[TileKernel], columns: bool, sums: bool,
        tile: tuple[int, int],
    ) -> tuple[Tensor, ...]:  # fmt: skip
        scores = _Scores(x, y, a, b, scale, targets, labels, kernel, tile)
        with ieee_products(x.dtype):
            found = _Pass(scores, columns=columns, sums=sums)
            if not (scores.is_simple() and found.common()):
                found = _Pass(scores, columns=columns, sums=sums)
                found.running()
        rows, of_columns = found.rows, found.columns
        ctx.save_for_backward(x, y, a, b, scale, targets, rows.largest, rows.total, of_columns.largest,
                              of_columns.total, found.middle().to(x.dtype), rows.counts, of_columns.counts)  # fmt: skip
        ctx.minus, ctx.labels = found.minus, labels
        ctx.mark_non_differentiable(rows.counts, of_columns.counts)
        ctx.kernel, ctx.columns, ctx.sums, ctx.tile = kernel, columns, sums, tile
        s = scale.to(rows.own.dtype)
        own = rows.own * (s if s.dim() == 0 else s[:, 0])
        lses = (z.largest + z.total.log() for z in (rows, of_columns))
        return (*lses, rows.plain, of_columns.plain, own, of_columns.own, rows.counts, of_columns.counts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x, y, a, b, scale, targets, row_max, row_total, column_max, column_total, middle,
         counts, column_counts) = ctx.saved_tensors  # fmt: skip
        scores = _Scores(x, y, a, b, scale, targets, ctx.labels, ctx.kernel, ctx.tile)
        g_rows, g_columns, g_row_sums, g_column_sums, g_own, g_column_own, _, _ = grads
        # Over the totals: a softmax by maximum and total loses less than one by their log-sum-exp, rounded.
        rows = Pulls(row_max, *(g.to(x.dtype) for g in (g_rows / row_total, g_row_sums, g_own)))
        columns = Pulls(
            column_max, *(g.to(x.dtype) for g in (g_columns / column_total, g_column_sums, g_column_own))
        )
        settings = {"minus": ctx.minus, "middle": middle, "sums": ctx.sums}
        settings["labelled"] = ctx.labels is not None
        grad_x, grad_y = torch.zeros_like(x), torch.zeros_like(y)
        grad_a, grad_b = torch.zeros_like(a), torch.zeros_like(b)
        grad_scale = torch.zeros_like(scale, dtype=row_total.dtype)
        with autocast_off({x.device.type}), ieee_products(x.dtype):
            for r, k, tile, buffers in scores.tiles(more=2):
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
            grad_scale += total * middle
        return grad_x, grad_y, grad_a, grad_b, grad_scale.to(scale.dtype), None, None, None, None, None, None


class _Scores:
    """The arguments of one pass over the tiles."""

    def __init__(
        self, x: Tensor, y: Tensor, a: Tensor, b: Tensor, scale: Tensor,
        targets: Tensor, labels: tuple[Tensor, Tensor] | None, kernel: type[TileKernel], tile: tuple[int, int],
    ) -> None:  # fmt: skip
        self.x, self.y, self.scale, self.labels = x.detach(), y.detach(), scale.detach(), labels
        self.kernel, self.size, self.compiled = kernel(a.detach(), b.detach(), x.dtype), tile, pays(x.device)
        self.ids = (targets, torch.arange(len(y), device=y.device)) if labels is None else labels

    def is_simple(self) -> bool:
        """Whether a common reference can be tried: one scale, and a processor, which need not be waited for."""
        return self.scale.dim() == 0 and self.x.device.type == "cpu" and not self.compiled

    def tiles(self, *, more: int = 0) -> Iterator[tuple[slice, slice, Tile, list[Tensor] | None]]:
        """Rows, columns, the tile with its products, and buffers of its size: what the kernel keeps, and more.

        Tiles and buffers are contiguous, in memory that is taken once; what is compiled needs no buffers.
        """
        count = 1 if self.compiled else 1 + more + self.kernel.buffers
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
    """What a pass over the tiles collects.

    Attributes:
        rows, columns: Columns are empty where they are not asked for.
        minus: 0-dim, less what all exponentials are relative to; None = each row's and column's own.
    """

    minus: Tensor | None = None

    def __init__(self, scores: _Scores, *, columns: bool, sums: bool) -> None:
        self.scores, self.with_columns, self.sums = scores, columns, sums
        self.labelled = scores.labels is not None
        N = len(scores.y) if columns else 0
        self.rows = self._nothing(len(scores.x), own=len(scores.x))
        self.columns = self._nothing(N, own=N if self.labelled else 0)

    def _nothing(self, count: int, *, own: int) -> Collected:
        x = self.scores.x
        zeros = x.new_zeros(0, dtype=working_dtype(x.device))
        return Collected(
            largest=x.new_full((count,), -torch.inf),
            total=zeros.new_zeros(count),
            plain=zeros.new_zeros(count if self.sums else 0),
            own=zeros.new_zeros(own),
            counts=zeros.new_zeros(count if self.labelled else 0),
        )

    def middle(self) -> Tensor:
        """A score in the middle of those that count most, 0-dim."""
        rows = self.rows
        return rows.own.sum() / rows.counts.sum().clamp(min=1) if self.labelled else rows.own.mean()

    def common(self) -> bool:
        """Exponentials relative to one number; False = the scores differ too much for that."""
        s = float(self.scores.scale)
        for r, k, tile, buffers in self.scores.tiles():
            assert buffers is not None
            h, work = self.scores.kernel.values_(tile.product, tile.terms, keep=buffers), buffers[0]
            rows, columns = tally(h, tile, *self._at(r, k), labelled=self.labelled, sums=self.sums)
            if self.minus is None:
                self.minus = -torch.mul(h, s, out=work).amax(1).median()
            torch.add(self.minus, h, alpha=s, out=work).exp_()
            self._put_(r, k, rows, columns)
            self.rows.total[r] += work.sum(1)
            if columns is not None:
                self.columns.total[k] += work.sum(0)
        if self.minus is None or not (_is_within_reach(self.rows) and _is_within_reach(self.columns)):
            return False
        for found in (self.rows, self.columns):
            found.largest.fill_(-float(self.minus))
        return True

    def running(self) -> None:
        """Exponentials relative to the maximum of each row and column."""
        settings = {"labelled": self.labelled, "sums": self.sums}
        for r, k, tile, buffers in self.scores.tiles():
            found = _COLLECT(type(self.scores.kernel), tile, *self._at(r, k), buffers=buffers, **settings)
            self._put_(r, k, *found)

    def _at(self, r: slice, k: slice) -> tuple[Collected, Collected | None]:
        return self.rows.at(r), self.columns.at(k) if self.with_columns else None

    def _put_(self, r: slice, k: slice, rows: Collected, columns: Collected | None) -> None:
        self.rows.put_(r, rows)
        if columns is not None:
            self.columns.put_(k, columns)


def _is_within_reach(found: Collected) -> bool:
    """Whether no sum of exponentials is far from 1, or no number."""
    return len(found.total) == 0 or float(found.total.log().abs().amax()) <= _REACH


def _slices(count: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]
