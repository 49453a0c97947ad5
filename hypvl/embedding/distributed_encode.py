"""Encoding shared between the processes of a group: each encodes its part, and every rank gets all rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from hypvl import distributed
from hypvl.embedding.store import Place, StoredGroup
from hypvl.errors import UserError

# Rows gathered at once, which bounds what a device holds of all ranks' rows.
_ROWS_AT_ONCE = 16384
# Errors that one rank may meet while the others wait: bad files, memory, a disk.
_ERRORS = (UserError, ValueError, RuntimeError, OSError)


@dataclass(frozen=True)
class Encoded:
    """Rows of some positions of a data set, ordered by position."""

    indices: list[int] = field(default_factory=list)  # positions that have a row
    rows: Tensor | None = None  # (N, D), None without any
    bad: list[tuple[int, str]] = field(default_factory=list)  # position and reason of what cannot be read

    @property
    def positions(self) -> frozenset[int]:
        """Positions with a row, and those that cannot be read."""
        return frozenset([*self.indices, *(index for index, _ in self.bad)])


Work: TypeAlias = Callable[[Sequence[Sequence[int]]], Encoded]


def join(*parts: Encoded) -> Encoded:
    """Several parts as one, in the order of their positions."""
    indices = [index for part in parts for index in part.indices]
    bad = sorted(entry for part in parts for entry in part.bad)
    blocks = [part.rows for part in parts if part.rows is not None]
    if not blocks:
        return Encoded([], None, bad)
    rows = torch.cat(blocks) if len(blocks) > 1 else blocks[0]
    order = sorted(range(len(indices)), key=indices.__getitem__)
    if order != list(range(len(indices))):
        rows = rows[order]
    return Encoded([indices[i] for i in order], rows, bad)


def cache_hits(group: StoredGroup, names: Sequence[str], *, by_digest: bool) -> Encoded:
    """What a store has of a data set (ids of images, or digests) before anything is encoded, the same on every rank.

    Rank 0 looks it up, for files may come and go between two looks. Raises DataError when a shard cannot be read.
    """
    return distributed.from_main(lambda: _look_up(group, names, by_digest=by_digest))


def _look_up(group: StoredGroup, names: Sequence[str], *, by_digest: bool) -> Encoded:
    group.refresh()
    places: dict[int, Place] = {}
    bad: list[tuple[int, str]] = []
    for i, name in enumerate(names):
        place = group.find_digest(name) if by_digest else group.find(name)
        if isinstance(place, str):
            bad.append((i, place))
        elif place is not None:
            places[i] = place
    group.store.reused += len(places)
    return Encoded(list(places), group.rows(list(places.values())) if places else None, bad)


def run_shares(work: Work, positions: Sequence[int], *, batch_size: int) -> Encoded:
    """Cut positions into batches, let each rank work on every W-th, and join what they return.

    ``work`` takes the batches of this rank, which may be none. Positions and result are the same on every rank, the
    result ordered by position.

    Raises:
        UserError, ValueError, RuntimeError, OSError: what any rank raised, on every rank.
    """
    batches = [positions[start : start + batch_size] for start in range(0, len(positions), batch_size)]
    if distributed.world_size() == 1:
        return join(work(batches)) if batches else Encoded()
    encoded = Encoded()
    failed: Exception | None = None
    try:
        encoded = work(batches[distributed.rank() :: distributed.world_size()])
    except _ERRORS as error:
        failed = error
    kind = None if encoded.rows is None else (tuple(encoded.rows.shape[1:]), encoded.rows.dtype)
    ranks = distributed.gather_objects((failed, encoded.indices, encoded.bad, kind))
    errors = [other for other, *_ in ranks if other is not None]
    if errors:
        raise errors[0] if failed is None else failed
    indices = [index for _, own, _, _ in ranks for index in own]
    bad = [entry for _, _, own, _ in ranks for entry in own]
    kinds = [kind for *_, kind in ranks if kind is not None]
    if not kinds:
        return join(Encoded(indices, None, bad))
    shape, dtype = kinds[0]
    own = torch.empty(0, *shape, dtype=dtype) if encoded.rows is None else encoded.rows
    return join(Encoded(indices, gather_ragged(own, [len(own) for _, own, _, _ in ranks]), bad))


def gather_ragged(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Rows of every rank in rank order, on the CPU: (``counts[rank]``, ...) -> (sum of counts, ...)."""
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
