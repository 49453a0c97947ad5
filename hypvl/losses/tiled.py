"""Row and column log-sum-exps of a score matrix that is never held: memory linear in the number of rows and columns.

Forward: one pass over tiles with running maxima and sums for rows and columns. Backward: each tile is computed again,
turned into its gradient, and multiplied into the gradients of rows and columns.

Source: the running log-sum-exp of Milakov and Gimelshein 2018 (arXiv 1805.02867); recomputing tiles in the backward
    pass as Dao et al. 2022 (arXiv 2205.14135) do for attention.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hypvl import distributed
from hypvl.geometry.precision import autocast_off, ieee_products
from hypvl.geometry.tiles import Factored, TileKernel

# Rows and columns of a tile on a processor; a few of them in fp32 stay in its cache.
TILE = (512, 1024)


class LogSumExps(NamedTuple):
    """Of scores z (B, N).

    Attributes:
        rows: (B,), over the columns.
        columns: (N,), over the rows; empty where they were not asked for.
        row_sums: (B,) sums of z over the columns.
        column_sums: (N,), empty where columns were not asked for.
        targets: (B,) z of each row and its target, as it enters the sums: what rounding does to it cancels.
    """

    rows: Tensor
    columns: Tensor
    row_sums: Tensor
    column_sums: Tensor
    targets: Tensor


def log_sum_exps(
    scores: Factored,
    targets: Tensor,
    *,
    columns: bool = False,
    sums: bool = False,
    tile: tuple[int, int] | None = None,
) -> LogSumExps:
    """Log-sum-exp of each row, and of each column, of scores that are computed tile by tile.

    Args:
        scores: What the scores are made of; gradients flow to all its tensors. Differentiable once.
        targets: (B,) int64, a column of each row.
        columns: Whether columns are asked for, too; they cost no second pass.
        sums: Whether plain sums of the scores are asked for (label smoothing); otherwise those are empty.
        tile: Rows and columns of a tile; None = what suits the device. Ragged last tiles are fine.

    Returns:
        In the dtype of the points.
    """
    if tile is None:
        tile = TILE if scores.rows.device.type == "cpu" else (8192, 8192)
    with autocast_off({scores.rows.device.type}):
        return LogSumExps(
            *cast(
                tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
                _Tiled.apply(
                    scores.rows, scores.columns, scores.row_terms, scores.column_terms,
                    scores.scale.to(scores.rows.dtype), targets, scores.kernel, columns, sums, tile,
                ),
            )
        )  # fmt: skip


def contrastive_losses(
    scores: Factored,
    targets: Tensor,
    *,
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
    found = log_sum_exps(scores, targets, columns=both_ways, sums=smooth, tile=tile)
    positive = found.targets  # (B,)
    row_means = found.row_sums / len(scores.columns) if smooth else 0.0
    losses = [_cross_entropy(found.rows, positive, row_means, label_smoothing)]
    if both_ways:
        lse = distributed.gather(found.columns[None]).logsumexp(0)[targets]
        means: Tensor | float = 0.0
        if smooth:
            total = distributed.gather(found.column_sums[None]).sum(0)[targets]
            means = total / (len(scores.rows) * distributed.world_size())
        losses.append(_cross_entropy(lse, positive, means, label_smoothing))
    return tuple(losses)


def _cross_entropy(lse: Tensor, positive: Tensor, mean: Tensor | float, smoothing: float) -> Tensor:
    return (lse - (1 - smoothing) * positive - smoothing * mean).mean()


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, a: Tensor, b: Tensor, scale: Tensor,
        targets: Tensor, kernel: TileKernel, columns: bool, sums: bool, tile: tuple[int, int],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        B, N = len(x), len(y)
        rows = _Running(B, x)
        across = _Running(N if columns else 0, x)
        row_sums = x.new_zeros(B if sums else 0, dtype=torch.float64)
        column_sums = x.new_zeros(N if sums and columns else 0, dtype=torch.float64)
        own = x.new_zeros(B)
        buffers = _Buffers(x, tile)
        with ieee_products(x.dtype):
            for r in _slices(B, tile[0]):
                for k in _slices(N, tile[1]):
                    z, work = buffers.tiles(r, k)
                    torch.mm(x[r], y[k].mT, out=z)
                    kernel.values_(z, a[r], b[k], keep=work).mul_(scale if scale.dim() == 0 else scale[r])
                    place, inside = _places(targets[r], k)
                    own[r] = torch.where(inside, z.gather(1, place), own[r, None])[:, 0]
                    rows.add(r, z, work, dim=1)
                    if columns:
                        across.add(k, z, work, dim=0)
                    if sums:
                        row_sums[r] += z.sum(1)
                        if columns:
                            column_sums[k] += z.sum(0)
        ctx.save_for_backward(
            x, y, a, b, scale, targets, rows.largest, rows.total, across.largest, across.total
        )
        ctx.kernel, ctx.columns, ctx.sums, ctx.tile = kernel, columns, sums, tile
        return rows.result(), across.result(), row_sums.to(x.dtype), column_sums.to(x.dtype), own

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, y, a, b, scale, targets, row_max, row_total, column_max, column_total = ctx.saved_tensors
        kernel: TileKernel = ctx.kernel
        g_rows, g_columns, g_row_sums, g_column_sums, g_own = grads
        # Over the totals: a softmax by maximum and total loses less than one by their log-sum-exp, rounded.
        g_rows = (g_rows / row_total).to(x.dtype)[:, None]
        g_columns = (g_columns / column_total).to(x.dtype)
        grad_x, grad_y = torch.zeros_like(x), torch.zeros_like(y)
        grad_a, grad_b = torch.zeros_like(a), torch.zeros_like(b)
        grad_scale = torch.zeros_like(scale, dtype=torch.float64)
        buffers = _Buffers(x, ctx.tile, count=4)
        with autocast_off({x.device.type}), ieee_products(x.dtype):
            for r in _slices(len(x), ctx.tile[0]):
                s = scale if scale.dim() == 0 else scale[r]
                for k in _slices(len(y), ctx.tile[1]):
                    z, keep, grad, work = buffers.tiles(r, k)
                    torch.mm(x[r], y[k].mT, out=z)
                    kernel.values_(z, a[r], b[k], keep=keep).mul_(s)
                    if ctx.columns:
                        torch.sub(z, column_max[k], out=work)
                    z.sub_(row_max[r, None])
                    torch.exp(z, out=grad).mul_(g_rows[r])
                    if ctx.columns:
                        grad.addcmul_(work.exp_(), g_columns[k])
                    if ctx.sums:
                        grad.add_(g_row_sums[r, None])
                        if ctx.columns:
                            grad.add_(g_column_sums[k])
                    place, inside = _places(targets[r], k)
                    grad.scatter_add_(1, place, torch.where(inside, g_own[r, None], 0.0))
                    # Sum of grad z, in two parts: the scores of a row can be large and nearly equal.
                    of_rows = grad.sum(1, keepdim=True).to(torch.float64) * row_max[r, None]
                    of_rows += torch.bmm(grad[:, None], z[:, :, None])[:, 0]
                    grad_scale[r if scale.dim() else ...] += of_rows if scale.dim() else of_rows.sum()
                    grad.mul_(s)
                    terms = kernel.backward_(grad, keep, a[r], b[k])
                    for total, part, at in ((grad_a, terms[0], r), (grad_b, terms[1], k)):
                        if part is not None:
                            total[at] += part
                    grad_x[r].addmm_(grad, y[k])
                    grad_y[k].addmm_(grad.mT, x[r])
        # z = scale h, so that d z / d scale = z / scale; at scale 0 all scores are equal and there is nothing to gain.
        grad_scale = torch.where(scale == 0, 0.0, grad_scale / scale).to(scale.dtype)
        return grad_x, grad_y, grad_a, grad_b, grad_scale, None, None, None, None, None


def _places(targets: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
    """Where in a tile the targets of its rows are, (r, 1), and whether they are there at all."""
    place = (targets - columns.start)[:, None]
    last = columns.stop - columns.start - 1
    return place.clamp(0, last), (place >= 0) & (place <= last)


class _Running:
    """Log-sum-exps of rows or columns, from tiles in any order; sums in fp64."""

    def __init__(self, count: int, like: Tensor) -> None:
        self.largest = like.new_full((count,), -torch.inf)
        self.total = like.new_zeros(count, dtype=torch.float64)

    def add(self, at: slice, z: Tensor, work: Tensor, *, dim: int) -> None:
        """Take in a tile; ``work`` is overwritten."""
        before = self.largest[at]
        now = torch.maximum(before, z.amax(dim))
        torch.sub(z, now.unsqueeze(dim), out=work)
        # -inf - -inf is no number, but there is nothing yet to be scaled down
        kept = torch.where(before == -torch.inf, 0.0, (before - now).exp())
        self.total[at] = self.total[at] * kept + work.exp_().sum(dim)
        self.largest[at] = now

    def result(self) -> Tensor:
        return (self.largest + self.total.log()).to(self.largest.dtype)


class _Buffers:
    """Contiguous tiles of the size that is asked for, in memory that is taken once."""

    def __init__(self, like: Tensor, tile: tuple[int, int], *, count: int = 2) -> None:
        self.memory = [like.new_empty(tile[0] * tile[1]) for _ in range(count)]

    def tiles(self, rows: slice, columns: slice) -> list[Tensor]:
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        return [memory[: shape[0] * shape[1]].view(shape) for memory in self.memory]


def _slices(count: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]
