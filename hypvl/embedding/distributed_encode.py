"""Work on batches shared between the processes of a group: each does its part, all get everything."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from hypvl import distributed
from hypvl.errors import UserError

#: Positions, their rows (N, D) or None where there are none, and what cannot be read, with reasons.
Encoded: TypeAlias = tuple[list[int], Tensor | None, list[tuple[int, str]]]
# Rows that travel at once: what a device has to hold of all ranks' is bounded by it.
_ROWS_AT_ONCE = 16384
# What may go wrong on one rank only, while the others wait: bad files, memory, a disk.
_ERRORS = (UserError, ValueError, RuntimeError, OSError)


def run_shares(
    work: Callable[[Sequence[Sequence[int]]], Encoded], positions: Sequence[int], *, batch_size: int
) -> Encoded:
    """Cut positions into batches, let each rank work on every W-th, and join what they give.

    Args:
        work: Takes the batches of this rank, which may be none.
        positions: What to work on, the same on every rank.
        batch_size: Positions in a batch.

    Returns:
        The same on every rank, ordered by position.

    Raises:
        UserError, ValueError, RuntimeError, OSError: what any rank raised, on every rank.
    """
    batches = [positions[start : start + batch_size] for start in range(0, len(positions), batch_size)]
    if distributed.world_size() == 1:
        return _in_order(*work(batches)) if batches else ([], None, [])
    encoded: Encoded = ([], None, [])
    failed: Exception | None = None
    try:
        encoded = work(batches[distributed.rank() :: distributed.world_size()])
    except _ERRORS as error:
        failed = error
    indices, rows, bad = encoded
    kind = None if rows is None else (tuple(rows.shape[1:]), rows.dtype)
    told = distributed.gather_objects((failed, indices, bad, kind))
    errors = [other for other, *_ in told if other is not None]
    if errors:
        raise errors[0] if failed is None else failed
    kinds = [kind for *_, kind in told if kind is not None]
    joined = [index for _, indices, _, _ in told for index in indices]
    unreadable = sorted(entry for _, _, bad, _ in told for entry in bad)
    if not kinds:
        return joined, None, unreadable
    shape, dtype = kinds[0]
    own = torch.empty(0, *shape, dtype=dtype) if rows is None else rows
    gathered = gather_ragged(own, [len(indices) for _, indices, _, _ in told])
    return _in_order(joined, gathered, unreadable)


def gather_ragged(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Rows of every rank, of any number each, in rank order.

    Args:
        rows: (N, ...) on the CPU, N = ``counts[rank]``.
        counts: Of each rank.

    Returns:
        (sum of counts, ...), on the CPU.
    """
    device = distributed.device()
    parts: list[list[Tensor]] = [[] for _ in counts]
    for start in range(0, max(counts), _ROWS_AT_ONCE):
        size = min(_ROWS_AT_ONCE, max(counts) - start)
        piece = rows.new_zeros(size, *rows.shape[1:])
        mine = rows[start : start + size]
        piece[: len(mine)] = mine
        everyone = distributed.gather(piece.to(device)).cpu().split(size)
        for part, block, count in zip(parts, everyone, counts, strict=True):
            part.append(block[: max(0, min(size, count - start))])
    return torch.cat([block for part in parts for block in part])


def _in_order(indices: list[int], rows: Tensor | None, bad: list[tuple[int, str]]) -> Encoded:
    order = sorted(range(len(indices)), key=indices.__getitem__)
    if rows is not None and order != list(range(len(indices))):
        rows = rows[order]
    return [indices[i] for i in order], rows, bad
