"""What is done to a tile of scores between its matrix products: functions of tensors alone.

On a processor a tile stays in its cache, and the functions run as they are written. On a GPU each operation would read
and write the tile in its memory, some thirty times, and so they are compiled into a few passes. Where that fails (no
Triton, no C compiler) a warning says so, once, and they run as written; ``TORCH_COMPILE_DISABLE=1`` asks for this.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hypvl.geometry.tiles import Terms, TileKernel

BACKEND = "inductor"
# Kernels, kinds of sums and dtypes make as many graphs; more than Dynamo's usual limit of eight.
_GRAPHS = 64


class Collected(NamedTuple):
    """What a pass collects of rows or of columns (n,), in the working dtype but for ``largest``.

    Attributes:
        largest: What the exponentials are relative to.
        total: Sums of exponentials of the scores.
        plain: Sums of the scores; empty where they are not asked for.
        own: Of rows the scores of their targets, without their scale (with labels the sums over all of a label); of
            columns, where there are labels, the sums over the rows of a label, with their scale; otherwise empty.
        counts: How many scores these sums have; empty without labels.
    """

    largest: Tensor
    total: Tensor
    plain: Tensor
    own: Tensor
    counts: Tensor

    def at(self, part: slice) -> "Collected":
        return Collected(*(z[part] for z in self))

    def put_(self, part: slice, new: "Collected") -> None:
        """Write ``new`` into a part; what is empty stays so."""
        for z, value in zip(self, new, strict=True):
            if len(z):
                z[part] = value


class Pulls(NamedTuple):
    """Gradients with respect to what was collected of rows or of columns (n,), in the dtype of the tile.

    Attributes:
        largest: What the exponentials were relative to.
        total: By the sum of exponentials.
        plain: By the sum of the scores.
        own: By the scores of the targets; of columns without labels empty.
    """

    largest: Tensor
    total: Tensor
    plain: Tensor
    own: Tensor

    def at(self, part: slice) -> "Pulls":
        return Pulls(*(z[part] for z in self))


class Tile(NamedTuple):
    """A tile before its scores are computed.

    Attributes:
        product: Inner products, (r, k).
        terms: Of the kernel.
        scale: 0-dim or (r, 1).
        row_ids: (r,) int64, label of a row, or which column is its target.
        column_ids: (k,) int64, label of a column, or its number; these grow by 1.
    """

    product: Tensor
    terms: Terms
    scale: Tensor
    row_ids: Tensor
    column_ids: Tensor


def collect(
    kernel: type[TileKernel],
    tile: Tile,
    rows: Collected,
    columns: Collected | None,
    *,
    labelled: bool,
    sums: bool,
    buffers: Sequence[Tensor] | None = None,
) -> tuple[Collected, Collected | None]:
    """Take in a tile, with exponentials relative to the maximum of each row and column so far.

    Args:
        kernel: What turns inner products into scores.
        tile: What is taken in; its products are overwritten if there are buffers.
        rows: Collected of its rows so far.
        columns: Of its columns; None = they are not asked for.
        labelled: Whether ids are labels.
        sums: Whether plain sums are asked for.
        buffers: What the kernel keeps, (r, k) each; None = own memory, and nothing given is overwritten.

    Returns:
        Rows and columns with the tile.
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
    h: Tensor, tile: Tile, rows: Collected, columns: Collected | None, *, labelled: bool, sums: bool
) -> tuple[Collected, Collected | None]:
    """What is asked of scores h (r, k), without their scale, beside exponentials."""
    # Tuples are made anew, never by `_replace`: Dynamo (torch 2.11) makes empty ones of that.
    if labelled or torch.compiler.is_compiling():
        same = tile.row_ids[:, None] == tile.column_ids
        picked = torch.where(same, h, 0.0)
        own = rows.own + picked.sum(1)
        counts = rows.counts + same.sum(1) if labelled else rows.counts
        if labelled and columns is not None:
            column_own = columns.own + (picked * tile.scale).sum(0)
            column_counts = columns.counts + same.sum(0)
            columns = Collected(columns.largest, columns.total, columns.plain, column_own, column_counts)
    else:
        place, inside = _places(tile)
        own = torch.where(inside, h.gather(1, place).to(rows.own.dtype), rows.own[:, None])[:, 0]
        counts = rows.counts
    plain = rows.plain
    if sums:
        plain = plain + (h.sum(1, keepdim=True) * tile.scale)[:, 0]
        if columns is not None:
            column_plain = columns.plain + (h * tile.scale).sum(0)
            columns = Collected(columns.largest, columns.total, column_plain, columns.own, columns.counts)
    return Collected(rows.largest, rows.total, plain, own, counts), columns


def gradient(
    kernel: type[TileKernel],
    tile: Tile,
    rows: Pulls,
    columns: Pulls | None,
    *,
    middle: Tensor,
    minus: Tensor | None = None,
    labelled: bool,
    sums: bool,
    buffers: Sequence[Tensor] | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor]:
    """Gradients of a tile, from gradients of what was collected.

    Args:
        kernel, tile, labelled, sums: As for :func:`collect`.
        rows: Gradients of its rows.
        columns: Of its columns; None = they were not asked for.
        middle: 0-dim, a score without its scale that is known to full precision.
        minus: 0-dim, less the one number that all exponentials are relative to; None = each row's and column's own.
        buffers: Two more than the kernel keeps, (r, k) each; None = own memory, and nothing given is overwritten.

    Returns:
        Gradients of the inner products (r, k), of the kernel's row terms and column terms, and of the scale (r, 1): of
        one for all rows only the part by which scores differ from ``middle``.
    """
    h, (grad, work, *keep) = _memory(tile.product, 2 + kernel.buffers, buffers)
    kernel.values_(h, tile.terms, keep=keep)
    s, to_rows = tile.scale, rows.total[:, None]
    if minus is not None:
        torch.add(minus, h, alpha=float(s), out=work).exp_()
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
    # The scores can be large and nearly equal: of their middle the gradient is known exactly.
    grad_scale = torch.sub(h, middle, out=work).mul_(grad).sum(1, keepdim=True)
    if s.dim() > 0:
        grad_scale = grad_scale + middle * grad.sum(1, keepdim=True)
    grad.mul_(s * kernel.gain)
    grad_a, grad_b = kernel.backward_(grad, tile.terms, keep=keep)
    return grad, grad_a, grad_b, grad_scale


class Step:
    """One of the functions above, compiled where that pays.

    Args:
        function: Takes ``buffers`` last; without any it changes none of its arguments, so that it can run again.
    """

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


def pays(device: torch.device) -> bool:
    """Whether steps on this device are to be compiled."""
    return device.type == "cuda"


def _memory(product: Tensor, count: int, buffers: Sequence[Tensor] | None) -> tuple[Tensor, Sequence[Tensor]]:
    """Where scores are computed, and what is kept beside them."""
    if buffers is not None:
        return product, buffers
    return product.clone(), [torch.empty_like(product) for _ in range(count)]


def _add_exponentials(z: Tensor, line: Collected, *, dim: int, work: Tensor) -> Collected:
    now = torch.maximum(line.largest, z.amax(dim))
    torch.sub(z, now.unsqueeze(dim), out=work)
    # -inf - -inf is no number, but there is nothing yet to be scaled down
    kept = torch.where(line.largest == -torch.inf, 0.0, (line.largest - now).exp())
    total = line.total * kept + work.exp_().sum(dim)
    return Collected(now, total, line.plain, line.own, line.counts)


def _places(tile: Tile) -> tuple[Tensor, Tensor]:
    """Where in a tile the targets of its rows are, (r, 1), and whether they are there at all."""
    place = (tile.row_ids - tile.column_ids[:1])[:, None]
    last = len(tile.column_ids) - 1
    return place.clamp(0, last), (place >= 0) & (place <= last)
