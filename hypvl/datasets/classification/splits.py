"""Parts of data sets: a fixed order that no library decides, and a view of chosen images."""

import hashlib
from collections.abc import Sequence
from fractions import Fraction

from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.datasets.protocol import ClassificationSet
from hypvl.errors import DataError


def shuffled(count: int, *, key: str) -> list[int]:
    """Positions 0 ... count - 1 in the order of the SHA-256 of ``"<key>:<position>"``.

    The same on every machine and for every version of every library, unlike the permutations of generators.
    """
    return sorted(range(count), key=lambda i: hashlib.sha256(f"{key}:{i}".encode()).digest())


def share(order: Sequence[int], begin: float, end: float) -> list[int]:
    """Of an order, what lies between two shares in [0, 1] of its length, ascending.

    Neighbouring shares neither overlap nor leave anything out.
    """
    first, last = (round(Fraction(str(edge)) * len(order)) for edge in (begin, end))
    return sorted(order[first:last])


def counted(order: Sequence[int], begin: int, end: int, *, total: int) -> list[int]:
    """Of an order, positions ``begin:end`` where it is at least ``total`` long, else in proportion; ascending.

    Args:
        order: Positions.
        begin: First to take.
        end: One after the last.
        total: How many all parts of the published split take together.
    """
    if len(order) >= total:
        return sorted(order[begin:end])
    return share(order, begin / total, end / total)


def per_class(labels: Sequence[int], count: int, *, key: str, rest: bool = False) -> list[int]:
    """``count`` images of each class in shuffled order (one less than all where there are no more), or the rest.

    Args:
        labels: Class of each image.
        count: Images of each class.
        key: Of the order, as :func:`shuffled` takes it.
        rest: Give all other images instead.
    """
    by_class: dict[int, list[int]] = {}
    for i in shuffled(len(labels), key=key):
        by_class.setdefault(labels[i], []).append(i)
    chosen: list[int] = []
    for found in by_class.values():
        taken = min(count, len(found) - 1)
        chosen += found[taken:] if rest else found[:taken]
    return sorted(chosen)


class Subset:
    """Chosen images of a classification set, as a set.

    Args:
        dataset: The whole.
        indices: Positions in it, at least one.
        name: For the message when there are none.

    Raises:
        DataError: without images.
    """

    def __init__(self, dataset: ClassificationSet, indices: Sequence[int], *, name: str) -> None:
        if not indices:
            raise DataError(
                f"{name}: none of its {len(dataset)} images falls into this split; expected a complete set."
            )
        self._dataset = dataset
        self.indices = list(indices)
        self.classes = dataset.classes
        self.prompts = dataset.prompts
        self.keys = [dataset.keys[i] for i in self.indices]
        self.labels = [dataset.labels[i] for i in self.indices]

    @property
    def ids(self) -> list[str] | None:
        """Where each image is; None where the whole set does not say."""
        ids: Sequence[str] | None = getattr(self._dataset, "ids", None)
        return None if ids is None else [ids[i] for i in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """(uint8 (3, h, w), label); raises as the whole set does."""
        return self._dataset[self.indices[index]]


@configurable("evaluate")
class WithoutClasses:
    """A classification set without some of its classes and their images; the others are renumbered.

    Args:
        dataset: The whole.
        left_out: Classes that go.

    Raises:
        DataError: when no image is left.
    """

    def __init__(self, dataset: ClassificationSet, left_out: Sequence[int]) -> None:
        gone = set(left_out)
        kept = [label for label in range(len(dataset.classes)) if label not in gone]
        number = {label: i for i, label in enumerate(kept)}
        self._part = Subset(
            dataset,
            [i for i, label in enumerate(dataset.labels) if label in number],
            name=f"classes other than {sorted(gone)}",
        )
        self.classes = [dataset.classes[label] for label in kept]
        self.prompts = dataset.prompts
        self.keys = self._part.keys
        self.labels = [number[label] for label in self._part.labels]

    @property
    def ids(self) -> list[str] | None:
        """Where each image is; None where the whole set does not say."""
        return self._part.ids

    def __len__(self) -> int:
        return len(self._part)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """(uint8 (3, h, w), label); raises as the whole set does."""
        return self._part[index][0], self.labels[index]
