"""What is done to a tile of scores between its matrix products: functions of tensors alone.

On a CPU a tile stays in the cache, and the functions run as written. On a GPU each operation would read and write the
tile in its memory, some thirty times, so the functions are compiled into a few passes. Where that fails (no Triton, no
C compiler) one warning says so, and they run as written; ``TORCH_COMPILE_DISABLE=1`` asks for this.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hypvl.ops.tiled_logsumexp.kernels import Terms, TileKernel

BACKEND = "inductor"
# Each combination of kernel, sums and dtype is a graph of its own: more than Dynamo's usual limit of eight.
_GRAPHS = 64


class OnlineStats(NamedTuple):
    """Running statistics of rows or of columns (n,), in the working dtype but for ``largest``."""

    largest: Tensor  # the reference that the exponentials are relative to
    total: Tensor  # sums of exponentials of the scores
    plain: Tensor  # sums of the scores; empty unless asked for
    #: Of rows: scores of their targets, without the scale (with labels, sums over the columns of the label). Of
    #: columns: with labels, sums over the rows of the label, with the scale; else empty.
    own: Tensor
    counts: Tensor  # how many scores the sums of ``own`` have; empty without labels

    def at(self, part: slice) -> "OnlineStats":
        return OnlineStats(*(z[part] for z in self))

    def put_(self, part: slice, new: "OnlineStats") -> None:
        """Write ``new`` into a part; empty statistics stay empty."""
        for z, value in zip(self, new, strict=True):
            if len(z):
                z[part] = value


class StatsGrad(NamedTuple):
    """Gradients with respect to :class:`OnlineStats` of rows or of columns (n,), in the dtype of the tile."""

    largest: Tensor  # the reference itself; it has no gradient
    total: Tensor
    plain: Tensor
    own: Tensor  # empty for columns without labels

    def at(self, part: slice) -> "StatsGrad":
        return StatsGrad(*(z[part] for z in self))


class Tile(NamedTuple):
    """A tile before its scores are computed."""

    product: Tensor  # inner products, (r, k)
    terms: Terms  # of the kernel
    scale: Tensor  # 0-dim or (r, 1)
    row_ids: Tensor  # (r,) int64, the label of each row, or the number of its target column
    column_ids: Tensor  # (k,) int64, the label of each column, or its number; numbers grow by 1


def collect(
    kernel: type[TileKernel],
    tile: Tile,
    rows: OnlineStats,
    columns: OnlineStats | None,
    *,
    labelled: bool,
    sums: bool,
    buffers: Sequence[Tensor] | None = None,
) -> tuple[OnlineStats, OnlineStats | None]:
    """Add a tile to the statistics, with exponentials relative to the maximum of each row and column so far.

    Args:
        kernel: Turns inner products into scores.
        tile: Its products are overwritten if there are buffers.
        rows, columns: Statistics of its rows and columns so far; columns None = not asked for.
        labelled: Whether ids are labels.
        sums: Whether plain sums are asked for.
        buffers: Memory for what the kernel keeps, (r, k) each; None = new memory, and no argument is overwritten.
    """
    h, keep = _memory(tile.product, kernel.buffers, buffers)
    kernel.values_(h, tile.terms, keep=keep)
    rows, columns = tally(h, tile, rows, columns, labelled=labelled, sums=sums)
    h.mul_(tile.scale)
    rows = _add_exponentials(h, rows, dim=1, work=keep[0])
    if columns is not None:
        columns = _add_exponentials(h, columns, dim=0, work=keep[0])
    return rows, columns


def tally(
    h: Tensor, tile: Tile, rows: OnlineStats, columns: OnlineStats | None, *, labelled: bool, sums: bool
) -> tuple[OnlineStats, OnlineStats | None]:
    """Add the sums and targets of scores h (r, k), without their scale, to the statistics; exponentials are left."""
    # New tuples, never `_replace`: under Dynamo (torch 2.11) it gives empty ones.
    if labelled or torch.compiler.is_compiling():
        same = tile.row_ids[:, None] == tile.column_ids
        picked = torch.where(same, h, 0.0)
        own = rows.own + picked.sum(1)
        counts = rows.counts + same.sum(1) if labelled else rows.counts
        if labelled and columns is not None:
            column_own = columns.own + (picked * tile.scale).sum(0)
            column_counts = columns.counts + same.sum(0)
            columns = OnlineStats(columns.largest, columns.total, columns.plain, column_own, column_counts)
    else:
        place, inside = _places(tile)
        own = torch.where(inside, h.gather(1, place).to(rows.own.dtype), rows.own[:, None])[:, 0]
        counts = rows.counts
    plain = rows.plain
    if sums:
        plain = plain + (h.sum(1, keepdim=True) * tile.scale)[:, 0]
        if columns is not None:
            column_plain = columns.plain + (h * tile.scale).sum(0)
            columns = OnlineStats(columns.largest, columns.total, column_plain, columns.own, columns.counts)
    return OnlineStats(rows.largest, rows.total, plain, own, counts), columns


def gradient(
    kernel: type[TileKernel],
    tile: Tile,
    rows: StatsGrad,
    columns: StatsGrad | None,
    *,
    reference_score: Tensor,
    neg_reference: Tensor | None = None,
    labelled: bool,
    sums: bool,
    buffers: Sequence[Tensor] | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor]:
    """Gradients of a tile, from gradients of the statistics.

    Args:
        kernel, tile, labelled, sums: As for :func:`collect`.
        rows, columns: Gradients of the statistics of its rows and columns; columns None = not asked for.
        reference_score: 0-dim, a score without its scale, known to full precision.
        neg_reference: 0-dim, minus the one reference of all exponentials; None = each row and column has its own.
        buffers: Two more than the kernel keeps, (r, k) each; None = new memory, and no argument is overwritten.

    Returns:
        Gradients of the inner products (r, k), of the kernel's row terms and column terms, and of the scale (r, 1). Of
        one scale for all rows this is only the part by which scores differ from ``reference_score``.
    """
    h, (grad, work, *keep) = _memory(tile.product, 2 + kernel.buffers, buffers)
    kernel.values_(h, tile.terms, keep=keep)
    s, to_rows = tile.scale, rows.total[:, None]
    if neg_reference is not None:
        torch.add(neg_reference, h, alpha=float(s), out=work).exp_()
        if columns is not None:
            torch.add(to_rows, columns.total, out=grad).mul_(work)
        else:
            torch.mul(work, to_rows, out=grad)
    else:
        torch.mul(h, s, out=work)
        torch.sub(work, rows.largest[:, None], out=grad).exp_().mul_(to_rows)
        if columns is not None:
            grad.addcmul_(work.sub_(columns.largest).exp_(), columns.total)
    if sums:
        grad.add_(rows.plain[:, None])
        if columns is not None:
            grad.add_(columns.plain)
    if labelled or torch.compiler.is_compiling():
        same = tile.row_ids[:, None] == tile.column_ids
        to_own = rows.own[:, None]
        if labelled and columns is not None:
            to_own = to_own + columns.own
        grad.add_(torch.where(same, to_own, 0.0))
    else:
        place, inside = _places(tile)
        grad.scatter_add_(1, place, torch.where(inside, rows.own[:, None], 0.0))
    # The scores can be large and nearly equal: the gradient through ``reference_score`` is known exactly.
    grad_scale = torch.sub(h, reference_score, out=work).mul_(grad).sum(1, keepdim=True)
    if s.dim() > 0:
        grad_scale = grad_scale + reference_score * grad.sum(1, keepdim=True)
    grad.mul_(s * kernel.gain)
    grad_a, grad_b = kernel.backward_(grad, tile.terms, keep=keep)
    return grad, grad_a, grad_b, grad_scale


class Step:
    """One of the functions above, compiled on request: without buffers it changes no argument and can run again."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function, self._failed = function, False
        self._compiled: Callable[..., Any] | None = None

    def __call__(self, *args: Any, buffers: Sequence[Tensor] | None, **settings: Any) -> Any:
        """``buffers``: None = compile it."""
        if buffers is not None or self._failed:
            return self._function(*args, buffers=buffers, **settings)
        if self._compiled is None:
            self._compiled = torch.compile(self._function, backend=BACKEND, fullgraph=True, dynamic=True)
        try:
            with torch._dynamo.config.patch(recompile_limit=_GRAPHS):
                return self._compiled(*args, **settings)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # a compiler, or its absence, can raise anything
            self._failed = True
            reason = " ".join(str(error).split())[:200]
            warnings.warn(
                f"the tiled loss could not be compiled and runs slower, as written "
                f"({type(error).__name__}: {reason}); TORCH_COMPILE_DISABLE=1 asks for this without a warning.",
                stacklevel=2,
            )
            return self._function(*args, **settings)


def should_compile(device: torch.device) -> bool:
    """Whether compiled steps are faster on this device."""
    return device.type == "cuda"


def _memory(product: Tensor, count: int, buffers: Sequence[Tensor] | None) -> tuple[Tensor, Sequence[Tensor]]:
    """Memory for the scores and for what is kept with them."""
    if buffers is not None:
        return product, buffers
    return product.clone(), [torch.empty_like(product) for _ in range(count)]


def _add_exponentials(z: Tensor, line: OnlineStats, *, dim: int, work: Tensor) -> OnlineStats:
    now = torch.maximum(line.largest, z.amax(dim))
    torch.sub(z, now.unsqueeze(dim), out=work)
    # -inf - -inf is NaN; there is no sum yet to scale down
    factor = torch.where(line.largest == -torch.inf, 0.0, (line.largest - now).exp())
    total = line.total * factor + work.exp_().sum(dim)
    return OnlineStats(now, total, line.plain, line.own, line.counts)


def _places(tile: Tile) -> tuple[Tensor, Tensor]:
    """Columns of a tile that hold the targets of its rows, (r, 1), and whether the tile holds them."""
    place = (tile.row_ids - tile.column_ids[:1])[:, None]
    last = len(tile.column_ids) - 1
    return place.clamp(0, last), (place >= 0) & (place <= last)
