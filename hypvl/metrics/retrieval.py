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


def r_precision_chance(right_count: int, gallery_size: int, *, in_gallery: int | None = None) -> float:
    """What :func:`r_precision` of a query is on average over random orders: each place is right with M / N.

    Args:
        right_count: R, at least 1.
        gallery_size: N.
        in_gallery: M, how many of the R are in the gallery; None = all.
    """
    present = _present(right_count, gallery_size, in_gallery)
    return 100.0 * present / gallery_size * min(1.0, gallery_size / right_count)


def average_precision_at_r_chance(
    right_count: int, gallery_size: int, *, in_gallery: int | None = None
) -> float:
    """What :func:`average_precision_at_r` is on average over random orders.

    Place i is right with probability M / N, and then (i - 1) (M - 1) / (N - 1) right ones are expected before it:
    100 / R * sum over i <= R of (M / N) / i * (1 + (i - 1) (M - 1) / (N - 1)). Arguments as
    :func:`r_precision_chance`.
    """
    present = _present(right_count, gallery_size, in_gallery)
    share = present / gallery_size
    others = (present - 1) / (gallery_size - 1) if gallery_size > 1 else 0.0
    places = range(1, min(right_count, gallery_size) + 1)
    total = math.fsum(share / i * (1.0 + (i - 1) * others) for i in places) if present else 0.0
    return 100.0 * total / right_count


def _wanted(right: Collection[Hashable]) -> frozenset[Hashable]:
    if not right:
        raise ValueError("right: got no items; leave queries without a right item out.")
    return frozenset(right)


def _present(right_count: int, gallery_size: int, in_gallery: int | None) -> int:
    present = right_count if in_gallery is None else in_gallery
    if right_count < 1 or not 0 <= present <= min(right_count, gallery_size):
        raise ValueError(
            f"right_count: got {right_count}, {present} of them in a gallery of {gallery_size}; expected at "
            "least 1, and no more in the gallery than it holds."
        )
    return present


def _some(ranks: Sequence[int | None]) -> None:
    if not ranks:
        raise ValueError("ranks: got no queries; expected at least one.")
