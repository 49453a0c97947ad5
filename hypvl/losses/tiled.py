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
from hypvl.geometry.precision import autocast_off, ieee_products, working_dtype
from hypvl.geometry.tiles import Factored, TileKernel

# Rows and columns of a tile on a processor; a few of them in fp32 stay in its cache.
TILE = (1024, 1024)
# How far the log-sum-exp of a row or column may be from the common reference. An exponent loses the digits that its
# distance from the reference has before the point, and at 87 there is nothing left of an exponential in fp32.
_REACH = 24.0


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
        ctx.save_for_backward(x, y, a, b, scale, targets, found.rows.largest, found.rows.total,
                              found.columns.largest, found.columns.total, found.middle(),
                              found.counts, found.column_counts)  # fmt: skip
        ctx.minus, ctx.labels = found.minus, labels
        ctx.mark_non_differentiable(found.counts, found.column_counts)
        ctx.kernel, ctx.columns, ctx.sums, ctx.tile = kernel, columns, sums, tile
        s = scale.to(found.own.dtype)
        own = found.own * (s if s.dim() == 0 else s[:, 0])
        return (found.rows.result(), found.columns.result(), found.row_sums, found.column_sums, own,
                found.column_own, found.counts, found.column_counts)  # fmt: skip

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x, y, a, b, scale, targets, row_max, row_total, column_max, column_total, middle,
         counts, column_counts) = ctx.saved_tensors  # fmt: skip
        scores = _Scores(x, y, a, b, scale, targets, ctx.labels, ctx.kernel, ctx.tile)
        g_rows, g_columns, g_row_sums, g_column_sums, g_own, g_column_own, _, _ = grads
        # Over the totals: a softmax by maximum and total loses less than one by their log-sum-exp, rounded.
        to_rows = (g_rows / row_total).to(x.dtype)[:, None]
        to_columns = (g_columns / column_total).to(x.dtype)
        to_own, to_column_own = g_own.to(x.dtype)[:, None], g_column_own.to(x.dtype)
        to_row_sums, to_column_sums = g_row_sums.to(x.dtype)[:, None], g_column_sums.to(x.dtype)
        grad_x, grad_y = torch.zeros_like(x), torch.zeros_like(y)
        grad_a, grad_b = torch.zeros_like(a), torch.zeros_like(b)
        grad_scale = torch.zeros_like(scale, dtype=row_total.dtype)
        with autocast_off({x.device.type}), ieee_products(x.dtype):
            for r, k, (h, grad, work, *keep) in scores.tiles(more=2):
                scores.fill_(r, k, h, keep=keep)
                s = scores.scale_of(r)
                if ctx.minus is not None:
                    torch.add(ctx.minus, h, alpha=float(scale), out=work).exp_()
                    if ctx.columns:
                        torch.add(to_rows[r], to_columns[k], out=grad).mul_(work)
                    else:
                        torch.mul(work, to_rows[r], out=grad)
                else:
                    torch.mul(h, s, out=work)
                    torch.sub(work, row_max[r, None], out=grad).exp_().mul_(to_rows[r])
                    if ctx.columns:
                        grad.addcmul_(work.sub_(column_max[k]).exp_(), to_columns[k])
                if ctx.sums:
                    grad.add_(to_row_sums[r])
                    if ctx.columns:
                        grad.add_(to_column_sums[k])
                if ctx.labels is None:
                    place, inside = _places(targets[r], k)
                    grad.scatter_add_(1, place, torch.where(inside, to_own[r], 0.0))
                else:
                    to_same = to_own[r] + to_column_own[k] if ctx.columns else to_own[r]
                    grad.add_(torch.where(scores.same(r, k), to_same, 0.0))
                # The scores can be large and nearly equal: of their middle the gradient is known exactly.
                part = torch.sub(h, middle, out=work).mul_(grad).sum(1, keepdim=True)
                if scale.dim() == 0:
                    grad_scale += part.sum(dtype=grad_scale.dtype)
                else:
                    grad_scale[r] += part + middle * grad.sum(1, keepdim=True)
                grad.mul_(s * scores.kernel.gain)
                terms = scores.kernel.backward_(grad, r, k, keep=keep)
                for total, term, at in ((grad_a, terms[0], r), (grad_b, terms[1], k)):
                    if term is not None:
                        total[at] += term
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
        self.x, self.y, self.scale, self.labels = x, y, scale, labels
        self.targets, self.kernel, self.tile = targets, kernel(a, b, x.dtype), tile

    def is_simple(self) -> bool:
        """Whether a common reference can be tried: one scale, and a processor, which need not be waited for."""
        return self.scale.dim() == 0 and self.x.device.type == "cpu"

    def scale_of(self, rows: slice) -> Tensor:
        return self.scale if self.scale.dim() == 0 else self.scale[rows]

    def tiles(self, *, more: int = 0) -> Iterator[tuple[slice, slice, list[Tensor]]]:
        """Rows, columns and buffers of their size: of the scores, that many more, and what the kernel keeps.

        They are contiguous, in memory that is taken once.
        """
        count = 1 + more + self.kernel.buffers
        memory = [self.x.new_empty(self.tile[0] * self.tile[1]) for _ in range(count)]
        for r in _slices(len(self.x), self.tile[0]):
            for k in _slices(len(self.y), self.tile[1]):
                shape = (r.stop - r.start, k.stop - k.start)
                yield r, k, [m[: shape[0] * shape[1]].view(shape) for m in memory]

    def same(self, r: slice, k: slice) -> Tensor:
        """Which columns have the label of a row, (r, k)."""
        assert self.labels is not None
        return self.labels[0][r, None] == self.labels[1][k]

    def fill_(self, r: slice, k: slice, h: Tensor, *, keep: list[Tensor]) -> Tensor:
        """Scores without their scale."""
        torch.mm(self.x[r], self.y[k].mT, out=h)
        return self.kernel.values_(h, r, k, keep=keep)


class _Sums:
    """Sums of exponentials of rows or columns, relative to ``largest``: tiles in any order."""

    def __init__(self, count: int, like: Tensor) -> None:
        self.largest = like.new_full((count,), -torch.inf)
        self.total = like.new_zeros(count, dtype=working_dtype(like.device))

    def add(self, at: slice, z: Tensor, work: Tensor, *, dim: int) -> None:
        """Take in a tile relative to the maximum so far; ``work`` is overwritten."""
        before = self.largest[at]
        now = torch.maximum(before, z.amax(dim))
        torch.sub(z, now.unsqueeze(dim), out=work)
        # -inf - -inf is no number, but there is nothing yet to be scaled down
        kept = torch.where(before == -torch.inf, 0.0, (before - now).exp())
        self.total[at] = self.total[at] * kept + work.exp_().sum(dim)
        self.largest[at] = now

    def result(self) -> Tensor:
        return self.largest + self.total.log()

    def is_within_reach(self) -> bool:
        """Whether no sum is far from 1, or no number."""
        return len(self.total) == 0 or float(self.total.log().abs().amax()) <= _REACH


class _Pass:
    """What a pass over the tiles collects.

    Attributes:
        rows, columns: Sums of exponentials; columns empty where they are not asked for.
        row_sums, column_sums: Sums of the scores, empty where they are not asked for.
        own: (B,) scores of the targets, without their scale; with labels the sums over all of a row's label.
        column_own: (N,) with labels the sums over the rows of a column's label, with their scale.
        counts, column_counts: How many these are; empty without labels.
        minus: 0-dim, less what all exponentials are relative to; None = each row's and column's own.
    """

    minus: Tensor | None = None

    def __init__(self, scores: _Scores, *, columns: bool, sums: bool) -> None:
        x, N = scores.x, len(scores.y) if columns else 0
        self.scores, self.asked = scores, (columns, sums)
        self.rows, self.columns = _Sums(len(x), x), _Sums(N, x)
        self.row_sums, self.column_sums = (
            self.rows.total.new_zeros(count if sums else 0) for count in (len(x), N)
        )
        self.own = self.rows.total.new_zeros(len(x))
        labelled = scores.labels is not None
        self.counts = self.rows.total.new_zeros(len(x) if labelled else 0)
        self.column_own, self.column_counts = (
            self.rows.total.new_zeros(N if labelled else 0) for _ in range(2)
        )

    def middle(self) -> Tensor:
        """A score in the middle of those that count most, 0-dim."""
        return (
            self.own.mean() if self.scores.labels is None else self.own.sum() / self.counts.sum().clamp(min=1)
        )

    def common(self) -> bool:
        """Exponentials relative to one number; False = the scores differ too much for that."""
        columns, _ = self.asked
        s = float(self.scores.scale)
        for r, k, (h, *keep) in self.scores.tiles():
            work = keep[0]
            self._take(r, k, h, keep)
            if self.minus is None:
                self.minus = -torch.mul(h, s, out=work).amax(1).median()
            torch.add(self.minus, h, alpha=s, out=work).exp_()
            self.rows.total[r] += work.sum(1)
            if columns:
                self.columns.total[k] += work.sum(0)
        if self.minus is None or not (self.rows.is_within_reach() and self.columns.is_within_reach()):
            return False
        for found in (self.rows, self.columns):
            found.largest.fill_(-float(self.minus))
        return True

    def running(self) -> None:
        """Exponentials relative to the maximum of each row and column."""
        for r, k, (h, *keep) in self.scores.tiles():
            work = keep[0]
            self._take(r, k, h, keep)
            h.mul_(self.scores.scale_of(r))
            self.rows.add(r, h, work, dim=1)
            if self.asked[0]:
                self.columns.add(k, h, work, dim=0)

    def _take(self, r: slice, k: slice, h: Tensor, keep: list[Tensor]) -> None:
        """Compute a tile, and what is asked of it beside exponentials."""
        columns, sums = self.asked
        scores = self.scores
        scores.fill_(r, k, h, keep=keep)
        if scores.labels is not None:
            same = scores.same(r, k)
            picked = torch.where(same, h, 0.0)
            self.own[r] += picked.sum(1)
            self.counts[r] += same.sum(1)
            if columns:
                self.column_own[k] += (picked * scores.scale_of(r)).sum(0)
                self.column_counts[k] += same.sum(0)
        else:
            place, inside = _places(scores.targets[r], k)
            self.own[r] = torch.where(inside, h.gather(1, place).to(self.own.dtype), self.own[r, None])[:, 0]
        if sums:
            s = scores.scale_of(r)
            self.row_sums[r] += (h.sum(1, keepdim=True) * s)[:, 0]
            if columns:
                self.column_sums[k] += (h * s).sum(0)


def _places(targets: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
    """Where in a tile the targets of its rows are, (r, 1), and whether they are there at all."""
    place = (targets - columns.start)[:, None]
    last = columns.stop - columns.start - 1
    return place.clamp(0, last), (place >= 0) & (place <= last)


def _slices(count: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]
