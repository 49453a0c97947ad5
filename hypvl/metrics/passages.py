"""Metrics of one ranked list whose right items may have grades (passage retrieval, MS MARCO).

All are pure functions, in percent. The metric of a data set is their mean over the queries that have a right item.

Source: the definitions of the MS MARCO and BEIR evaluations; Jaervelin and Kekaelaeinen 2002 (nDCG).
"""

import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Literal

from hypvl.checks import one_of

Gain = Literal["binary", "linear", "exponential"]
_GAINS: dict[str, Callable[[float], float]] = {
    "binary": lambda grade: 1.0,
    "linear": lambda grade: grade,
    "exponential": lambda grade: 2.0**grade - 1.0,
}


def hit_at(ranked: Sequence[Hashable], right: Collection[Hashable], *, k: int) -> float:
    """100 where one of the first k items is right, else 0 (accuracy@k).

    Args:
        ranked: Different items, best first; places beyond the end count as wrong.
        right: The right items, at least one.
        k: Cut-off, at least 1.

    Example:
        >>> hit_at(["a", "b"], {"b"}, k=2)
        100.0
    """
    return 100.0 if any(_hits(ranked, right, k)) else 0.0


def precision_at(ranked: Sequence[Hashable], right: Collection[Hashable], *, k: int) -> float:
    """Percent of the first k places that hold a right item. Args: as :func:`hit_at`.

    Example:
        >>> precision_at(["a", "b"], {"b"}, k=2)
        50.0
    """
    return 100.0 * sum(_hits(ranked, right, k)) / k


def recall_at(ranked: Sequence[Hashable], right: Collection[Hashable], *, k: int) -> float:
    """Percent of the right items that are among the first k. Args: as :func:`hit_at`.

    Example:
        >>> recall_at(["a", "b"], {"b", "c"}, k=2)
        50.0
    """
    return 100.0 * sum(_hits(ranked, right, k)) / len(set(right))


def reciprocal_rank_at(ranked: Sequence[Hashable], right: Collection[Hashable], *, k: int) -> float:
    """100 / rank of the first right item, 0 where none is among the first k. Args: as :func:`hit_at`.

    Example:
        >>> reciprocal_rank_at(["a", "b"], {"b"}, k=2)
        50.0
    """
    hits = _hits(ranked, right, k)
    return 100.0 / (1 + hits.index(True)) if True in hits else 0.0


def average_precision_at(ranked: Sequence[Hashable], right: Collection[Hashable], *, k: int) -> float:
    """100 / min(k, R) * sum over the first k places i of precision(i) * [item i is right], R right items.

    Args: as :func:`hit_at`.

    Example:
        >>> average_precision_at(["a", "b"], {"b"}, k=2)
        50.0
    """
    hits, total = 0, 0.0
    for place, hit in enumerate(_hits(ranked, right, k), start=1):
        hits += hit
        total += hit * hits / place
    return 100.0 * total / min(k, len(set(right)))


def ndcg_at(
    ranked: Sequence[Hashable], grades: Mapping[Hashable, float], *, k: int, gain: Gain = "binary"
) -> float:
    """Discounted cumulative gain of the first k places over that of the best order, in percent.

    Formula: ``DCG = sum over places i <= k of gain(item i) / log2(i + 1)``; gain 1 for every right item (``binary``),
    its grade (``linear``), or ``2^grade - 1`` (``exponential``).

    Args:
        ranked: Different items, best first; places beyond the end have gain 0.
        grades: Right items and their grades, > 0, at least one.
        k: Cut-off, at least 1.
        gain: Value of a right item.

    Raises:
        ValueError: without right items, for a grade that is not positive, or another gain.

    Example:
        >>> round(ndcg_at(["a", "b"], {"b": 1.0}, k=2), 2)  # 1 / log2(3)
        63.09
    """
    one_of("gain", gain, Gain)
    if wrong := [grade for grade in grades.values() if not grade > 0]:
        raise ValueError(f"grades: got {wrong[0]}; expected positive grades, of right items only.")
    hits = _hits(ranked, grades.keys(), k)
    value = _GAINS[gain]
    gains = [value(grades[item]) if hit else 0.0 for item, hit in zip(ranked, hits, strict=False)]
    best = sorted((value(grade) for grade in grades.values()), reverse=True)[:k]
    return 100.0 * _discounted(gains) / _discounted(best)


def _discounted(gains: Sequence[float]) -> float:
    return math.fsum(gain / math.log2(place + 1) for place, gain in enumerate(gains, start=1))


def _hits(ranked: Sequence[Hashable], right: Collection[Hashable], k: int) -> list[bool]:
    if k < 1:
        raise ValueError(f"k: got {k}; expected a cut-off of at least 1.")
    if not right:
        raise ValueError(
            "right: got no items; expected at least one; leave out queries without a right item."
        )
    wanted = frozenset(right)
    return [item in wanted for item in ranked[:k]]
