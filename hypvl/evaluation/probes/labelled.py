"""Labels of one class or several, and how a training set is cut by them: few shots, a validation part."""

from collections.abc import Collection, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from hypvl.datasets.classification.splits import shuffled
from hypvl.errors import DataError

#: The class of an item, or all its classes where a set has several labels an item.
Label: TypeAlias = int | Collection[int]


def classes_of(label: Label) -> tuple[int, ...]:
    """The classes of an item: one, or all."""
    return tuple(label) if isinstance(label, Collection) else (int(label),)


def is_multi_label(labels: Sequence[Label]) -> bool:
    """Whether the items of a set have several labels each (or none), as sequences."""
    return any(isinstance(label, Collection) for label in labels)  # a number of NumPy's is one label


def as_targets(labels: Sequence[Label], *, num_classes: int, multi_label: bool) -> Tensor:
    """(N,) int64, or for several labels an item (N, C) fp32 of 0 and 1."""
    if not multi_label:
        return torch.tensor([classes_of(label)[0] for label in labels], dtype=torch.int64)
    table = torch.zeros(len(labels), num_classes)
    for row, label in enumerate(labels):
        table[row, list(classes_of(label))] = 1.0
    return table


def check_labels(labels: Sequence[Label], keys: Sequence[str], *, num_classes: int) -> None:
    """Refuse labels that are no classes of the set.

    Raises:
        DataError: naming the item.
    """
    for key, label in zip(keys, labels, strict=True):
        wrong = next((c for c in classes_of(label) if not 0 <= c < num_classes), None)
        if wrong is not None:
            raise DataError(
                f"{key}: its label is {wrong}; expected 0 … {num_classes - 1}, a class of this set."
            )


def few_shot(labels: Sequence[Label], *, shots: int, seed: int) -> list[int]:
    """Positions of ``shots`` items of each class (all where there are fewer), ascending.

    The draw depends on the seed and the number of items alone. With several labels an item, items are taken in the
    drawn order while one of their classes still lacks some, so that a class may get more.

    Args:
        labels: Class or classes of each item.
        shots: Items per class, >= 1.
        seed: Of the draw.
    """
    if shots < 1:
        raise ValueError(f"shots: got {shots}; expected at least 1.")
    count: dict[int, int] = {}
    chosen = []
    for i in shuffled(len(labels), key=f"few-shot:{seed}"):
        classes = classes_of(labels[i])
        if any(count.get(c, 0) < shots for c in classes):
            chosen.append(i)
            for c in classes:
                count[c] = count.get(c, 0) + 1
    return sorted(chosen)


def cut_validation(
    positions: Sequence[int], labels: Sequence[Label], *, fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Cut a validation part from a training set, the same share of each class: (train, validation), ascending.

    Of n items of a class, ``round(fraction n)`` are for validation, at least one and never all; a class with one item
    keeps it for training. An item with several labels counts for its first.

    Args:
        positions: Items to divide.
        labels: Of every item of the set.
        fraction: In (0, 1).
        seed: Of the draw.

    Raises:
        DataError: when no class has two items.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction: got {fraction}; expected a share in (0, 1).")
    by_class: dict[int, list[int]] = {}
    for place in shuffled(len(positions), key=f"validation:{seed}"):
        position = positions[place]
        by_class.setdefault(next(iter(classes_of(labels[position])), -1), []).append(position)
    train: list[int] = []
    validation: list[int] = []
    for found in by_class.values():
        cut = min(max(round(fraction * len(found)), 1), len(found) - 1)
        validation += found[:cut]
        train += found[cut:]
    if not validation:
        raise DataError(
            f"training set: its {len(positions)} images in {len(by_class)} classes leave none for validation; "
            "expected two or more of some class."
        )
    return sorted(train), sorted(validation)
