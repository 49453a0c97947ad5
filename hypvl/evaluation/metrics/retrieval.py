"""Metrics of rankings beyond recall: pure functions of ranks and ranked lists. Shares are in percent.

With several right items per query, of which the R of a query are all to be found, R-precision and mAP@R say more than
Recall@K, which is content with one of them.

Sources: Musgrave et al. 2020 (arXiv 2003.08505), section 3.2, for R-precision and mAP@R; Chun et al. 2022
(arXiv 2204.03359), section 5, for their use in retrieval of captions.
"""

import math
from collections.abc import Collection, Hashable, Sequence
from itertools import accumulate
from statistics import median


def median_rank(ranks: Sequence[int | None], gallery_size: int) -> float:
    """Median rank of the first right item, 1 = first; the mean of the two in the middle of an even number.

    Args:
        ranks: Of each query; None = it has no right item in the gallery, which counts as the last place.
        gallery_size: The last place.

    Raises:
        ValueError: without queries.
    """
    _some(ranks)
    return float(median(gallery_size if rank is None else rank for rank in ranks))


def mean_rank(ranks: Sequence[int]) -> float:
    """Mean rank of the first right item, 1 = first."""
    _some(ranks)
    return math.fsum(ranks) / len(ranks)


def mean_reciprocal_rank(ranks: Sequence[int | None]) -> float:
    """Mean of 1 / rank of the first right item, in [0, 1]; None counts 0."""
    _some(ranks)
    return math.fsum(0.0 if rank is None else 1.0 / rank for rank in ranks) / len(ranks)


def found_share(ranked: Sequence[Hashable], right: Collection[Hashable], k: int) -> float:
    """Percent of the right items of one query that are among its first k: recall in the sense of the word.

    (Recall@K of the retrieval literature is 100 as soon as one of them is there.)
    """
    wanted = _wanted(right)
    return 100.0 * len(wanted.intersection(ranked[:k])) / len(wanted)


def r_precision(ranked: Sequence[Hashable], right: Collection[Hashable]) -> float:
    """Percent of the first R items of one query that are right, R = how many right items it has.

    Args:
        ranked: Items, best first, none twice; places beyond its end are wrong.
        right: The right items, at least one. One that is not in the gallery cannot be found and still counts in R.
    """
    return found_share(ranked, right, len(_wanted(right)))


def average_precision_at_r(ranked: Sequence[Hashable], right: Collection[Hashable]) -> float:
    """AP@R of one query in percent: 100 / R * sum over the first R places i of precision(i) * [item i is right].

    Args:
        ranked: Items, best first, none twice; places beyond its end are wrong.
        right: The right items, R >= 1 of them.
    """
    wanted = _wanted(right)
    hits = [item in wanted for item in ranked[: len(wanted)]]
    found = accumulate(hits)
    total = math.fsum(
        count / place for place, (count, hit) in enumerate(zip(found, hits, strict=True), 1) if hit
    )
    return 100.0 * total / len(wanted)


def r_precision_chance(right_count: int, gallery_size: int) -> float:
    """What :func:`r_precision` of a query with R right items is on average over random orders: 100 R / N."""
    _counts(right_count, gallery_size)
    return 100.0 * right_count / gallery_size


def average_precision_at_r_chance(right_count: int, gallery_size: int) -> float:
    """What :func:`average_precision_at_r` is on average over random orders of a gallery of N.

    Place i is right with probability R / N, and then (i - 1) (R - 1) / (N - 1) right ones are expected before it:
    100 / R * sum over i <= R of (R / N) / i * (1 + (i - 1) (R - 1) / (N - 1)).
    """
    _counts(right_count, gallery_size)
    share = right_count / gallery_size
    others = (right_count - 1) / (gallery_size - 1) if gallery_size > 1 else 0.0
    total = math.fsum(share / i * (1.0 + (i - 1) * others) for i in range(1, right_count + 1))
    return 100.0 * total / right_count


def _wanted(right: Collection[Hashable]) -> frozenset[Hashable]:
    if not right:
        raise ValueError("right: got no items; leave queries without a right item out.")
    return frozenset(right)


def _counts(right_count: int, gallery_size: int) -> None:
    if not 1 <= right_count <= gallery_size:
        raise ValueError(
            f"right_count: got {right_count}; expected 1 … {gallery_size}, the size of the gallery."
        )


def _some(ranks: Sequence[int | None]) -> None:
    if not ranks:
        raise ValueError("ranks: got no queries; expected at least one.")
