"""What a store has of a data set before anything is encoded, the same on every rank."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hypvl import distributed
from hypvl.embedding.store import Broken, Place, StoredGroup
from hypvl.errors import UserError


@dataclass(frozen=True)
class Known:
    """What a store has of a data set.

    Attributes:
        positions: Of what it knows, unreadable images included.
        indices: Of what it has rows of.
        rows: (K, D), None where there are none.
        bad: Position and reason of unreadable images.
    """

    positions: frozenset[int] = frozenset()
    indices: tuple[int, ...] = ()
    rows: Tensor | None = None
    bad: tuple[tuple[int, str], ...] = ()

    @classmethod
    def of_images(cls, group: StoredGroup | None, ids: Sequence[str] | None) -> "Known":
        """Images by their ids; nothing without a store, or without ids. Raises DataError."""
        return cls() if group is None or ids is None else cls._on_every_rank(group, ids, by_digest=False)

    @classmethod
    def of_texts(cls, group: StoredGroup | None, digests: Sequence[str] | None) -> "Known":
        """Texts by the digests of their tokens. Raises DataError."""
        return (
            cls() if group is None or digests is None else cls._on_every_rank(group, digests, by_digest=True)
        )

    @classmethod
    def _on_every_rank(cls, group: StoredGroup, names: Sequence[str], *, by_digest: bool) -> "Known":
        """What rank 0 finds: files may come and go between two looks."""
        found: Known | UserError = cls()
        if distributed.is_main():
            try:
                found = cls._look_up(group, names, by_digest=by_digest)
            except UserError as error:  # the others wait for an answer
                found = error
        found = distributed.broadcast_object(found)
        if isinstance(found, UserError):
            raise found
        return found

    @classmethod
    def _look_up(cls, group: StoredGroup, names: Sequence[str], *, by_digest: bool) -> "Known":
        group.refresh()
        places: dict[int, Place] = {}
        bad: list[tuple[int, str]] = []
        for i, name in enumerate(names):
            place = group.find_digest(name) if by_digest else group.find(name)
            if isinstance(place, Broken):
                bad.append((i, place.reason))
            elif place is not None:
                places[i] = place
        rows = group.rows(list(places.values())) if places else None
        group.store.taken += len(places)
        return cls(frozenset([*places, *(i for i, _ in bad)]), tuple(places), rows, tuple(bad))

    def join(self, indices: Sequence[int], rows: Tensor | None) -> tuple[list[int], Tensor | None]:
        """With what has been encoded since: positions in order, and their rows."""
        blocks = [block for block in (self.rows, rows) if block is not None]
        if not blocks:
            return [], None
        joined = [*self.indices, *indices]
        order = sorted(range(len(joined)), key=joined.__getitem__)
        whole = torch.cat(blocks) if len(blocks) > 1 else blocks[0]
        if order != list(range(len(joined))):
            whole = whole[order]
        return [joined[i] for i in order], whole
