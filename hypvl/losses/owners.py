"""Rows of which a sample has any number (boxes, queries): the batch says whose each is.

Rows of one group share an entry with their owners: ``box_image`` and ``box_text`` have ``box_owner``.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from hypvl import distributed
from hypvl.checks import one_of
from hypvl.losses.views import View

#: Whose rows a mean is over: those of every rank, each of which weighs the same, or this rank's.
Over: TypeAlias = Literal["gathered", "local"]

_WHOLES = ("image", "text")  # entries with one row for each sample


def owner_entry(view: View) -> str | None:
    """Name of the batch entry with the owners of a view's rows: "box_image" -> "box_owner"; None for wholes."""
    group, _, _ = view.source.rpartition("_")
    return f"{group}_owner" if group else None


def check_owner(name: str, owner: Tensor | np.ndarray, *, rows: int, samples: int) -> Tensor:
    """Owners as a tensor, (M,) int64.

    Args:
        name: Of the batch entry, for a message.
        owner: The local sample, 0 to B - 1, of each row. An array, or a tensor on a CPU, is checked without waiting for
            a device.
        rows: M.
        samples: B.

    Raises:
        ValueError: for another number of owners, numbers that are not whole, or one that is no sample.
    """
    given = torch.as_tensor(owner)
    if given.is_floating_point() or given.dtype == torch.bool or given.shape != (rows,):
        raise ValueError(
            f"{name}: got {given.dtype} of shape {tuple(given.shape)} for {rows} rows; expected the number of the "
            "sample that each row belongs to, int64."
        )
    if rows and not 0 <= int(given.min()) <= int(given.max()) < samples:
        raise ValueError(
            f"{name}: got {int(given.min())} to {int(given.max())} for {samples} samples; expected numbers of samples "
            f"of this rank, 0 to {samples - 1}."
        )
    return given.long()


class OwnedRows(ABC):
    """The part of a :class:`~hypvl.losses.base.PairContext` that knows whose each row of a view is.

    B samples are on this rank, M rows of a view, N rows of a view on all ranks.
    """

    batch: Mapping[str, Any]
    _features: dict[View, Tensor]

    def __init__(self) -> None:
        self._owners: dict[View, Tensor | None] = {}
        self._counts: dict[str, list[int]] = {}  # entry with the owners -> rows of each rank

    @abstractmethod
    def features(self, view: View, gathered: bool = False) -> Tensor: ...

    @abstractmethod
    def embeddings(self, view: View, gathered: bool = False) -> Tensor: ...

    @property
    def samples(self) -> int:
        """B, the samples of this rank."""
        for features in (x for view, x in self._features.items() if view.source in _WHOLES):
            return len(features)
        for name in (*_WHOLES, "index", "position"):
            if name in self.batch:
                return len(self.batch[name])
        raise ValueError(
            "batch: the number of samples is not known; let it hold 'image', 'text', 'index' or 'position', or let a "
            "term need the view 'image' or 'text'."
        )

    def owner(self, view: View) -> Tensor | None:
        """The local sample that each row of a view belongs to, (M,) int64; None where each sample has one row.

        Raises:
            ValueError: for an owner that is no local sample, or another number of owners than of rows.
        """
        if view not in self._owners:
            name = owner_entry(view)
            given = None if name is None else self.batch.get(name)
            if name is not None and given is not None:
                features = self.features(view)
                given = check_owner(name, given, rows=len(features), samples=self.samples).to(features.device)
            self._owners[view] = given
        return self._owners[view]

    def owners(self, view: View, gathered: bool = False) -> Tensor:
        """Row of each item's whole among the wholes of all ranks: (M,) int64 of this rank, or (N,) of all ranks."""
        owner = self.owner(view)
        if owner is None:
            if not gathered:
                return self.targets(view)
            return torch.arange(self.count(view), device=self.features(view).device)
        whole = owner + distributed.rank() * self.samples
        return self.gather(whole, view) if gathered else whole

    def targets(self, view: View) -> Tensor:
        """Row of each local item of ``view`` among the gathered ones, (B,) or (M,) int64."""
        features = self.features(view)
        if self.owner(view) is None:
            before = distributed.rank() * len(features)
        else:
            before = sum(self._rows_of_ranks(view)[: distributed.rank()])
        return torch.arange(len(features), device=features.device) + before

    def gather(self, values: Tensor, view: View) -> Tensor:
        """Values of local rows of a view, (M, ...), from all ranks in rank order, (N, ...); differentiable."""
        if self.owner(view) is None:
            return distributed.gather(values)
        return distributed.gather_rows(values, self._rows_of_ranks(view))

    def count(self, view: View) -> int:
        """Rows of a view over all ranks."""
        if self.owner(view) is None:
            return len(self.features(view)) * distributed.world_size()
        return sum(self._rows_of_ranks(view))

    def rows_of_ranks(self, view: View) -> list[int]:
        """Rows of a view on each rank."""
        if self.owner(view) is None:
            return [len(self.features(view))] * distributed.world_size()
        return self._rows_of_ranks(view)

    @property
    def empty_groups(self) -> set[str]:
        """Entries with owners that are empty on every rank, of those that were asked for their number of rows."""
        return {name for name, counts in self._counts.items() if not any(counts)}

    def mean(self, values: Tensor, view: View, *, over: Over = "gathered") -> Tensor:
        """Mean of a number for each local row of a view, (B,) or (M,), 0-dim: every row of every rank weighs the same.

        The mean over ranks of what this returns is the mean over all rows of all ranks; 0, with a graph, where no rank
        has rows. With ``over="local"`` it is the mean over this rank's rows, 0 where it has none.
        """
        one_of("over", over, Over)
        if self.owner(view) is None or (over == "local" and len(values)):
            return values.mean()
        if over == "local":
            return values.sum()
        return values.sum() * (distributed.world_size() / max(1, self.count(view)))

    def paired(self, first: View, second: View) -> tuple[Tensor, Tensor, View]:
        """Local embeddings of two views row by row, (M, D) each, and the view whose rows they are.

        A whole is repeated for each of its boxes.

        Raises:
            ValueError: for views of different groups of rows.
        """
        x, y = self.embeddings(first), self.embeddings(second)
        of_first, of_second = self.owner(first), self.owner(second)
        if of_first is None and of_second is not None:
            self.check_wholes(first)
            return x[of_second], y, second
        if of_first is not None and of_second is None:
            self.check_wholes(second)
            return x, y[of_first], first
        self.check_same_rows(first, second)
        return x, y, first

    def check_wholes(self, view: View) -> None:
        """ValueError for a view that does not have one row for each sample."""
        rows = len(self.features(view))
        if self.owner(view) is not None or rows != self.samples:
            raise ValueError(
                f"{view}: got {rows} rows for {self.samples} samples; expected one row for each of them."
            )

    def check_same_rows(self, first: View, second: View) -> None:
        """ValueError for views of which row i does not belong to row i: boxes and wholes, boxes and queries."""
        names = [owner_entry(view) if self.owner(view) is not None else None for view in (first, second)]
        if names[0] != names[1]:
            raise ValueError(
                f"{first} and {second}: their rows do not belong together (one has the owners {names[0]}, the other "
                f"{names[1]}); compare views with the same ones."
            )
        rows = [len(self.features(view)) for view in (first, second)]
        if rows[0] != rows[1]:
            raise ValueError(
                f"{first} and {second}: got {rows[0]} and {rows[1]} rows, but row i of one belongs to row i of the "
                "other; where samples have different numbers of them, let the batch name their owners."
            )

    def _rows_of_ranks(self, view: View) -> list[int]:
        """Rows of a view with owners on each rank (a collective, the first time)."""
        name = str(owner_entry(view))
        if name not in self._counts:
            self._counts[name] = distributed.row_counts(len(self.features(view)))
        return self._counts[name]


def check_uneven(ctx: OwnedRows, views: Iterable[View], *, name: str) -> None:
    """ValueError where a sample has any number of rows of a view; ``name`` is that of the term that takes one."""
    for view in sorted(views, key=str):
        if ctx.owner(view) is not None:
            raise ValueError(
                f"{name} takes one row of {view.source!r} for each sample, but the batch has any number "
                f"({owner_entry(view)}); choose boxes='one' in the data, or another term."
            )
