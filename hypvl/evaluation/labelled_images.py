"""What evaluators of labelled images share: splits and checks of labels, features of chosen images."""

from collections.abc import Collection, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from hypvl.checks import number, one_of, whole_number
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.datasets.classification.splits import shuffled
from hypvl.datasets.images import LabelledImages, joined
from hypvl.datasets.protocol import ClassificationSet, check_set
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import Stage
from hypvl.errors import DataError, UserError

#: The class of an image, or all its classes where a set has several labels an image.
Label: TypeAlias = int | Collection[int]


def classes_of(label: Label) -> tuple[int, ...]:
    """The classes of an image: one, or all."""
    return tuple(label) if isinstance(label, Collection) else (int(label),)


def is_multi_label(labels: Sequence[Label]) -> bool:
    """Whether the labels of a set are collections of classes, empty ones included."""
    return any(isinstance(label, Collection) for label in labels)  # a NumPy number is one label


def as_targets(labels: Sequence[Label], *, num_classes: int, multi_label: bool) -> Tensor:
    """(N,) int64, or for several labels an image (N, C) fp32 of 0 and 1."""
    if not multi_label:
        return torch.tensor([classes_of(label)[0] for label in labels], dtype=torch.int64)
    table = torch.zeros(len(labels), num_classes)
    for row, label in enumerate(labels):
        table[row, list(classes_of(label))] = 1.0
    return table


def check_labels(labels: Sequence[Label], keys: Sequence[str], *, num_classes: int) -> None:
    """Raises DataError for a label that is not a class of the set, naming the image."""
    for key, label in zip(keys, labels, strict=True):
        wrong = next((c for c in classes_of(label) if not 0 <= c < num_classes), None)
        if wrong is not None:
            raise DataError(
                f"{key}: its label is {wrong}; expected 0 … {num_classes - 1}, a class of this set."
            )


def labelled_splits(
    train: ClassificationSet, test: ClassificationSet, validation: ClassificationSet | None = None
) -> tuple[LabelledImages, LabelledImages]:
    """Training images followed by those of validation, and test images, of splits with the same classes.

    Raises:
        DataError: for something that is not a data set, other classes, or a label that is not a class.
    """
    splits = {"train": train, "test": test} | ({} if validation is None else {"validation": validation})
    for name, split in splits.items():
        check_set(split, ClassificationSet, name=name)
    if any(list(split.classes) != list(train.classes) for split in splits.values()):
        raise DataError(
            f"{', '.join(splits)}: have {', '.join(str(len(split.classes)) for split in splits.values())} classes, not "
            "the same ones in the same order; give splits of one set."
        )
    learned = joined(train) if validation is None else joined(train, validation)
    tested = joined(test)
    for images in (learned, tested):
        check_labels(images.labels, images.keys, num_classes=len(train.classes))
    return learned, tested


class LabelledFeatures:
    """Features of the readable ones of some images."""

    def __init__(
        self, images: LabelledImages, features: Tensor, positions: list[int], bad: list[tuple[int, str]]
    ) -> None:
        self.features = features  # (n, width), on the model's device
        self.positions = positions  # of each row, in ``images``
        self.bad = bad  # (position, reason) of those that cannot be read
        self._labels = images.labels
        self._rows = {position: row for row, position in enumerate(positions)}

    def readable(self, positions: Sequence[int]) -> list[int]:
        """Those of these positions that have features."""
        return [i for i in positions if i in self._rows]

    def rows(self, positions: Sequence[int]) -> Tensor:
        """Features of readable positions."""
        return self.features[torch.tensor([self._rows[i] for i in positions], device=self.features.device)]

    def of(self, positions: Sequence[int]) -> tuple[Tensor, list[Label]]:
        """Features and labels of the readable ones of these positions. Raises DataError when none can be read."""
        readable = self.readable(positions)
        if not readable:
            raise DataError(
                f"training and validation images: none of the {len(positions)} drawn can be read; repair the files."
            )
        return self.rows(readable), [self._labels[i] for i in readable]


def encode_labelled(
    encoder: CachedEncoder,
    images: LabelledImages,
    positions: Sequence[int] | None = None,
    *,
    stage: Stage,
    label: str,
) -> LabelledFeatures:
    """Encode images (all, or those at ``positions``): resized (shorter side, bicubic), cropped in the centre.

    Raises:
        UserError: when features are NaN or infinite.
    """
    one_of("stage", stage, Stage)
    chosen = range(len(images)) if positions is None else positions
    encoded = encoder.encode_images(
        images.images if positions is None else images.images.take(positions),
        transform=ResizeCenterCrop.of(encoder.model),
        stage=stage,
        label=label,
    )
    check_features(encoded.embeddings)
    device = next((p.device for p in encoder.model.parameters()), torch.device("cpu"))
    return LabelledFeatures(
        images,
        encoded.embeddings.to(device),
        [chosen[i] for i in encoded.indices.tolist()],
        [(chosen[i], reason) for i, reason in encoded.bad],
    )


def check_features(features: Tensor) -> None:
    """Raises UserError when features are NaN or infinite, with their count."""
    bad = int((~features.isfinite()).sum())
    if bad:
        raise UserError(
            f"the model's features: {bad} of {features.numel()} are NaN or infinite; expected numbers. "
            "Its weights have probably diverged: evaluate an earlier checkpoint."
        )


def few_shot(labels: Sequence[Label], *, shots: int, seed: int) -> list[int]:
    """Positions of ``shots`` items of each class (all where there are fewer), ascending.

    The draw depends on the seed and the number of items alone. With several labels an item, an item is taken, in the
    drawn order, if one of its classes has too few so far; a class may get more than ``shots``, which is at least 1.
    """
    whole_number("shots", shots, least=1)
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

    ``round(fraction n)`` of the n items of a class go to validation, at least one and never all; a single item stays
    for training. An item with several labels counts for its first one. ``labels`` are those of the whole set.

    Raises:
        ValueError: for a fraction outside (0, 1).
        DataError: when no class has two items.
    """
    number("fraction", fraction, above=0, below=1)
    by_class: dict[int, list[int]] = {}
    for place in shuffled(len(positions), key=f"validation:{seed}"):
        position = positions[place]
        by_class.setdefault(next(iter(classes_of(labels[position])), -1), []).append(position)
    train: list[int] = []
    validation: list[int] = []
    for members in by_class.values():
        cut = min(max(round(fraction * len(members)), 1), len(members) - 1)
        validation += members[:cut]
        train += members[cut:]
    if not validation:
        raise DataError(
            f"training set: its {len(positions)} images in {len(by_class)} classes leave none for validation; "
            "expected two or more of some class."
        )
    return sorted(train), sorted(validation)
