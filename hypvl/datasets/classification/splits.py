"""Parts of classification sets: a fixed order that no library decides, shares of it, sets without some classes."""

import hashlib
from collections.abc import Sequence
from fractions import Fraction

from hypvl.allowlist import configurable
from hypvl.datasets.images import LabelledImages, images_of
from hypvl.datasets.protocol import ClassificationSet
from hypvl.errors import DataError


def shuffled(count: int, *, key: str) -> list[int]:
    """Positions 0 ... count - 1 in the order of the SHA-256 of ``"<key>:<position>"``.

    The same on every machine and for every version of every library, unlike the permutations of generators.
    """
    return sorted(range(count), key=lambda i: hashlib.sha256(f"{key}:{i}".encode()).digest())


def share(order: Sequence[int], begin: float, end: float) -> list[int]:
    """The positions of an order between two shares in [0, 1] of its length, ascending.

    Neighbouring shares neither overlap nor leave a gap.
    """
    first, last = (round(Fraction(str(edge)) * len(order)) for edge in (begin, end))
    return sorted(order[first:last])


def counted(order: Sequence[int], begin: int, end: int, *, total: int) -> list[int]:
    """Positions ``begin:end`` of an order that has at least ``total``, else the same shares of it; ascending.

    ``total`` is how many all parts of the published split take together.
    """
    if len(order) >= total:
        return sorted(order[begin:end])
    return share(order, begin / total, end / total)


def per_class(labels: Sequence[int], count: int, *, key: str, rest: bool = False) -> list[int]:
    """``count`` images of each class in the order of :func:`shuffled`, with ``rest`` all others; ascending.

    At least one of each class is among the others.
    """
    by_class: dict[int, list[int]] = {}
    for i in shuffled(len(labels), key=key):
        by_class.setdefault(labels[i], []).append(i)
    chosen: list[int] = []
    for indices in by_class.values():
        taken = min(count, len(indices) - 1)
        chosen += indices[taken:] if rest else indices[:taken]
    return sorted(chosen)


@configurable("evaluate")
def without_classes(dataset: ClassificationSet, left_out: Sequence[int]) -> LabelledImages:
    """A classification set without some of its classes and their images; the others are renumbered.

    Raises DataError when no image is left.
    """
    retained = [label for label in range(len(dataset.classes)) if label not in set(left_out)]
    number = {label: i for i, label in enumerate(retained)}
    indices = [i for i, label in enumerate(dataset.labels) if label in number]
    if not indices:
        raise DataError(
            f"classes other than {sorted(set(left_out))}: none of the {len(dataset)} images is of them; expected a "
            "complete set."
        )
    return LabelledImages(
        images_of(dataset).take(indices),
        [number[dataset.labels[i]] for i in indices],
        classes=[dataset.classes[label] for label in retained],
        keys=[dataset.keys[i] for i in indices],
        prompts=dataset.prompts,
    )
