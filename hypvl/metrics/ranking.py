"""Metrics of rankings: pure functions of score matrices, predictions or ranked lists. Shares are in percent.

Ties. Of equal scores the lower column index comes first, everywhere in this file and in
:func:`hypvl.embedding.search.search`, so that a result depends on nothing but the scores. A constant score
matrix therefore prefers class 0, and has the mean per-class accuracy of chance.

With several right items per query, of which the R of a query are all to be found, R-precision and mAP@R say more than
Recall@K, which is content with one of them.

Sources: Musgrave et al. 2020 (arXiv 2003.08505), section 3.2, for R-precision and mAP@R; Chun et al. 2022
(arXiv 2204.03359), section 5, for their use in retrieval of captions.
"""

import math
from collections.abc import Collection, Hashable, Sequence
from itertools import accumulate
from statistics import median

import torch
from torch import Tensor


def rank_keys(scores: Tensor, k: int | None = None) -> Tensor:
    """Columns of each row from the highest score to the lowest: (Q, K) -> (Q, min(k, K)) int64.

    Args:
        scores: (Q, K), higher = closer; no NaN.
        k: How many of them; None = all.

    Raises:
        ValueError: for NaN, another shape, or k < 1.

    Example:
        >>> rank_keys(torch.tensor([[0.1, 0.9, 0.5]]), 2)
        tensor([[1, 2]])
    """
    _check_scores(scores)
    if k is not None and k < 1:
        raise ValueError(f"k: got {k}; expected at least 1.")
    if k is not None and k < scores.shape[1]:
        values, columns = torch.topk(scores, k + 1, dim=1)
        if not bool((values[:, k - 1] == values[:, k]).any()):
            # No tie across the cut, so that topk's choice is the only one; its order among ties is not.
            columns = columns[:, :k].sort(dim=1).values
            order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True).indices
            return columns.gather(1, order)
    return scores.sort(dim=1, descending=True, stable=True).indices[:, :k]


def first_hit_ranks(
    ranked: Tensor | Sequence[Sequence[int]], right: Sequence[Collection[int]]
) -> list[int | None]:
    """Rank (1 = first) of the first right item of each query, None where none is in the list.

    ``ranked`` has for each query its items, best first: (Q, k) or lists of any length.

    Example:
        >>> first_hit_ranks([[4, 2, 7], [1, 0, 3]], [{2, 7}, {9}])
        [2, None]
    """
    rows = ranked.tolist() if isinstance(ranked, Tensor) else ranked
    if len(rows) != len(right):
        raise ValueError(f"right: got {len(right)} entries for {len(rows)} queries; expected one each.")
    ranks: list[int | None] = []
    for row, wanted in zip(rows, right, strict=True):
        wanted = frozenset(wanted)
        ranks.append(next((place for place, item in enumerate(row, start=1) if item in wanted), None))
    return ranks


def hits_at(ranks: Sequence[int | None], k: int) -> list[float]:
    """Hit of each query at K: 100 where its first right item (:func:`first_hit_ranks`) is among the first K, else 0.

    Example:
        >>> hits_at([1, 3, None], 2)
        [100.0, 0.0, 0.0]
    """
    return [100.0 * (rank is not None and rank <= k) for rank in ranks]


def recall_from_ranks(ranks: Sequence[int | None], ks: Sequence[int]) -> dict[int, float]:
    """Recall@K in percent: the share of queries whose first right item is among the first K; None is a miss.

    Args:
        ranks: Of each query the rank of its first right item, see :func:`first_hit_ranks`.
        ks: Cut-offs, each at least 1.

    Raises:
        ValueError: without queries (a share of nothing is undefined), or for a K below 1.

    Example:
        >>> recall_from_ranks([1, 3, None, 2], [1, 5])
        {1: 25.0, 5: 75.0}
    """
    if not ranks:
        raise ValueError("ranks: got no queries; expected at least one.")
    if any(k < 1 for k in ks):
        raise ValueError(f"ks: got {list(ks)}; expected cut-offs of at least 1.")
    return {k: sum(hits_at(ranks, k)) / len(ranks) for k in ks}


def recall_chance(right_counts: Sequence[int], gallery_size: int, *, ks: Sequence[int]) -> dict[int, float]:
    """Recall@K in percent that a random order of the gallery gets on average.

    A query with m (1 … N) right items among N is hit with probability 1 - C(N - m, K) / C(N, K); the mean over
    queries. A K above N counts as N.

    Example:
        >>> recall_chance([1, 1], 10, ks=[5])
        {5: 50.0}
    """
    if not right_counts:
        raise ValueError("right_counts: got no queries; expected at least one.")
    if min(right_counts) < 1 or max(right_counts) > gallery_size:
        raise ValueError(
            f"right_counts: from {min(right_counts)} to {max(right_counts)}; expected 1 … {gallery_size}, "
            "the size of the gallery."
        )
    counts = {m: list(right_counts).count(m) for m in set(right_counts)}
    chances = {}
    for k in ks:
        cut = min(k, gallery_size)
        drawn = math.comb(gallery_size, cut)
        hit = sum(n * (1.0 - math.comb(gallery_size - m, cut) / drawn) for m, n in counts.items())
        chances[k] = 100.0 * hit / len(right_counts)
    return chances


def median_rank(ranks: Sequence[int | None], gallery_size: int) -> float:
    """Median rank of the first right item, 1 = first; the mean of the two in the middle of an even number.

    None = a query has no right item in the gallery, which counts as the last place, ``gallery_size``.

    Raises:
        ValueError: without queries.

    Example:
        >>> median_rank([1, 3, 10], 10)
        3.0
    """
    if not ranks:
        raise ValueError("ranks: got no queries; expected at least one.")
    return float(median(gallery_size if rank is None else rank for rank in ranks))


def found_share(ranked: Sequence[Hashable], right: Collection[Hashable], k: int) -> float:
    """Percent of the right items of one query that are among its first k: recall in the sense of the word.

    (Recall@K of the retrieval literature is 100 as soon as one of them is there.)

    Example:
        >>> found_share([4, 2, 7], {2, 9}, 3)
        50.0
    """
    wanted = _wanted(right)
    return 100.0 * len(wanted.intersection(ranked[:k])) / len(wanted)


def r_precision(ranked: Sequence[Hashable], right: Collection[Hashable]) -> float:
    """Percent of the first R items of one query that are right, R = how many right items it has.

    Args:
        ranked: Items, best first, none twice; places beyond its end are wrong.
        right: The right items, at least one. One that is not in the gallery cannot be found and still counts in R.

    Example:
        >>> r_precision([4, 2, 7], {2, 7})
        50.0
    """
    return found_share(ranked, right, len(_wanted(right)))


def average_precision_at_r(ranked: Sequence[Hashable], right: Collection[Hashable]) -> float:
    """AP@R of one query in percent: 100 / R * sum over the first R places i of precision(i) * [item i is right].

    Args: as :func:`r_precision`.

    Example:
        >>> average_precision_at_r([4, 2, 7], {2, 7})
        25.0
    """
    wanted = _wanted(right)
    hits = [item in wanted for item in ranked[: len(wanted)]]
    result = accumulate(hits)
    total = math.fsum(
        count / place for place, (count, hit) in enumerate(zip(result, hits, strict=True), 1) if hit
    )
    return 100.0 * total / len(wanted)


def r_precision_chance(right_count: int, gallery_size: int, *, in_gallery: int | None = None) -> float:
    """What :func:`r_precision` of a query is on average over random orders: each place is right with M / N.

    Args:
        right_count: R, at least 1.
        gallery_size: N.
        in_gallery: M, how many of the R are in the gallery; None = all.

    Example:
        >>> r_precision_chance(1, 10)
        10.0
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

    Example:
        >>> average_precision_at_r_chance(1, 10)
        10.0
    """
    present = _present(right_count, gallery_size, in_gallery)
    share = present / gallery_size
    others = (present - 1) / (gallery_size - 1) if gallery_size > 1 else 0.0
    places = range(1, min(right_count, gallery_size) + 1)
    total = math.fsum(share / i * (1.0 + (i - 1) * others) for i in places) if present else 0.0
    return 100.0 * total / right_count


def label_ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """Rank (1 = first) of the right class of each item: (Q, C), (Q,) int64 -> (Q,) int64.

    Example:
        >>> label_ranks(torch.tensor([[0.1, 0.9, 0.5]]), torch.tensor([2]))
        tensor([2])
    """
    _check_scores(scores)
    if labels.shape != scores.shape[:1] or (
        len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < scores.shape[1]
    ):
        raise ValueError(
            f"labels: got shape {tuple(labels.shape)}; expected ({scores.shape[0]},) of class indices below "
            f"{scores.shape[1]}."
        )
    own = scores.gather(1, labels[:, None])  # (Q, 1)
    before = torch.arange(scores.shape[1], device=scores.device) < labels[:, None]  # lower index wins a tie
    return 1 + ((scores > own) | ((scores == own) & before)).sum(dim=1)


def mean_per_class_accuracy(
    predicted: Sequence[int | None] | Tensor, labels: Sequence[int] | Tensor
) -> float:
    """Mean over classes of the percent of their items predicted right.

    The mean goes over the classes that occur in ``labels``: one without items has no accuracy. (torchmetrics'
    macro average counts such a class as 0 when it is predicted for something.) None = no prediction, which is wrong.

    Example:
        >>> mean_per_class_accuracy([0, 0, 1], [0, 1, 1])
        75.0
    """
    guesses = predicted.tolist() if isinstance(predicted, Tensor) else list(predicted)
    truths = labels.tolist() if isinstance(labels, Tensor) else list(labels)
    if len(guesses) != len(truths) or not truths:
        raise ValueError(
            f"predicted and labels: {len(guesses)} and {len(truths)} items; expected the same number, at least 1."
        )
    right: dict[int, int] = {}
    total: dict[int, int] = {}
    for guess, truth in zip(guesses, truths, strict=True):
        total[truth] = total.get(truth, 0) + 1
        right[truth] = right.get(truth, 0) + (guess == truth)
    return 100.0 * sum(right[c] / total[c] for c in total) / len(total)


def accuracy_chance(num_classes: int, *, k: int = 1) -> float:
    """Percent that a random order of the classes gets, top-k or mean per class: 100 min(k / C, 1).

    Example:
        >>> accuracy_chance(10, k=5)
        50.0
    """
    if num_classes < 1 or k < 1:
        raise ValueError(f"num_classes, k: got {num_classes}, {k}; expected at least 1.")
    return 100.0 * min(k / num_classes, 1.0)


def _check_scores(scores: Tensor) -> None:
    if scores.ndim != 2:
        raise ValueError(f"scores: got shape {tuple(scores.shape)}; expected (queries, keys).")
    if bool(scores.isnan().any()):
        raise ValueError("scores: got NaN; expected numbers, since NaN has no place in an order.")


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
