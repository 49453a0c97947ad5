"""Metrics: pure functions of score matrices, predictions or ranked lists. Shares are in percent.

Ties. Of equal scores the lower column index comes first, everywhere in this file and in
:func:`hypvl.embedding.search.search`, so that a result depends on nothing but the scores. A constant score
matrix therefore prefers class 0, and has the mean per-class accuracy of chance.
"""

from collections.abc import Collection, Mapping, Sequence
from math import comb

import torch
from torch import Tensor


def rank_keys(scores: Tensor, k: int | None = None) -> Tensor:
    """Columns of each row from the highest score to the lowest: (Q, K) -> (Q, min(k, K)) int64.

    Args:
        scores: (Q, K), higher = closer; no NaN.
        k: How many of them; None = all.

    Raises:
        ValueError: for NaN, another shape, or k < 1.
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

    Args:
        ranked: For each query its items, best first: (Q, k) or lists of any length.
        right: For each query the items that are right.
    """
    rows = ranked.tolist() if isinstance(ranked, Tensor) else ranked
    if len(rows) != len(right):
        raise ValueError(f"right: got {len(right)} entries for {len(rows)} queries; expected one each.")
    ranks: list[int | None] = []
    for row, wanted in zip(rows, right, strict=True):
        wanted = frozenset(wanted)
        ranks.append(next((place for place, item in enumerate(row, start=1) if item in wanted), None))
    return ranks


def recall_from_ranks(ranks: Sequence[int | None], ks: Sequence[int]) -> dict[int, float]:
    """Recall@K in percent: the share of queries whose first right item is among the first K; None is a miss.

    Args:
        ranks: Of each query the rank of its first right item, see :func:`first_hit_ranks`.
        ks: Cut-offs, each at least 1.

    Raises:
        ValueError: without queries (a share of nothing is no number), or for a K below 1.
    """
    if not ranks:
        raise ValueError("ranks: got no queries; expected at least one.")
    if any(k < 1 for k in ks):
        raise ValueError(f"ks: got {list(ks)}; expected cut-offs of at least 1.")
    return {k: 100.0 * sum(r is not None and r <= k for r in ranks) / len(ranks) for k in ks}


def recall_at_k(
    predictions: Mapping[int, Sequence[int]],
    ground_truth: Mapping[int, Collection[int]],
    *,
    ks: Sequence[int],
) -> dict[int, float]:
    """Recall@K in percent of ranked lists.

    100 * (queries with at least one right item in the first K) / (queries with ground truth). A query of the
    ground truth without predictions is a miss; predictions for other queries do not count.

    Args:
        predictions: Query -> items, best first.
        ground_truth: Query -> right items, at least one each.
        ks: Cut-offs.
    """
    if not all(ground_truth.values()):
        raise ValueError("ground_truth: a query has no right item; leave such queries out.")
    queries = list(ground_truth)
    ranked = [predictions.get(query, ()) for query in queries]
    return recall_from_ranks(first_hit_ranks(ranked, [ground_truth[q] for q in queries]), ks)


def retrieval_recall(
    scores: Tensor, right: Sequence[Collection[int]], *, ks: Sequence[int] = (1, 5, 10)
) -> dict[int, float]:
    """Recall@K in percent of a score matrix (Q, K), ``right[q]`` being the right columns of row q.

    Rows without a right column are no queries and do not count.
    """
    if len(right) != scores.shape[0]:
        raise ValueError(f"right: got {len(right)} entries for {scores.shape[0]} queries; expected one each.")
    queries = [q for q, items in enumerate(right) if items]
    ranked = rank_keys(scores[queries], max(ks))
    return recall_from_ranks(first_hit_ranks(ranked, [right[q] for q in queries]), ks)


def recall_chance(right_counts: Sequence[int], gallery_size: int, *, ks: Sequence[int]) -> dict[int, float]:
    """Recall@K in percent that a random order of the gallery gets on average.

    A query with m right items among N is hit with probability 1 - C(N - m, K) / C(N, K); the mean over queries.

    Args:
        right_counts: m of each query, 1 … N.
        gallery_size: N.
        ks: Cut-offs; a K above N counts as N.
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
        drawn = comb(gallery_size, cut)
        hit = sum(n * (1.0 - comb(gallery_size - m, cut) / drawn) for m, n in counts.items())
        chances[k] = 100.0 * hit / len(right_counts)
    return chances


def label_ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """Rank (1 = first) of the right class of each item: (Q, C), (Q,) int64 -> (Q,) int64."""
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


def topk_accuracy(scores: Tensor, labels: Tensor, *, k: int = 1) -> float:
    """Percent of items whose right class is among the k best: (Q, C), (Q,) int64."""
    return recall_from_ranks(label_ranks(scores, labels).tolist(), [k])[k]


def mean_per_class_accuracy(
    predicted: Sequence[int | None] | Tensor, labels: Sequence[int] | Tensor
) -> float:
    """Mean over classes of the percent of their items predicted right.

    The mean goes over the classes that occur in ``labels``: one without items has no accuracy. (torchmetrics'
    macro average counts such a class as 0 when it is predicted for something.)

    Args:
        predicted: Predicted class of each item; None = no prediction, which is wrong.
        labels: Right class of each item.
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
    """Percent that a random order of the classes gets, top-k or mean per class: 100 min(k / C, 1)."""
    if num_classes < 1 or k < 1:
        raise ValueError(f"num_classes, k: got {num_classes}, {k}; expected at least 1.")
    return 100.0 * min(k / num_classes, 1.0)


def _check_scores(scores: Tensor) -> None:
    if scores.ndim != 2:
        raise ValueError(f"scores: got shape {tuple(scores.shape)}; expected (queries, keys).")
    if bool(scores.isnan().any()):
        raise ValueError("scores: got NaN; expected numbers, since NaN has no place in an order.")
