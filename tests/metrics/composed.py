"""Figures of score matrices by the metrics that evaluators call on ranks."""

from collections.abc import Collection, Sequence

from torch import Tensor

from hypvl.metrics.ranking import first_hit_ranks, label_ranks, rank_keys, recall_from_ranks


def topk_accuracy(scores: Tensor, labels: Tensor, *, k: int = 1) -> float:
    """Percent of items whose right class is among the k best: (Q, C), (Q,) int64."""
    return recall_from_ranks(label_ranks(scores, labels).tolist(), [k])[k]


def retrieval_recall(
    scores: Tensor, right: Sequence[Collection[int]], *, ks: Sequence[int] = (1, 5, 10)
) -> dict[int, float]:
    """Recall@K in percent, ``right[q]`` being the right columns of row q; rows without any are no queries."""
    queries = [q for q, items in enumerate(right) if items]
    ranked = rank_keys(scores[queries], max(ks))
    return recall_from_ranks(first_hit_ranks(ranked, [right[q] for q in queries]), ks)
