"""Metrics of sentence embeddings: correlations over several subsets, and triplets. Pure functions."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from hypvl.checks import one_of
from hypvl.metrics.correlation import Numbers, pearson, spearman

Distance: TypeAlias = Literal["cosine", "euclidean", "manhattan"]


def aggregate_correlations(subsets: Mapping[str, tuple[Numbers, Numbers]]) -> dict[str, float]:
    """Correlation of scores with gold scores over several subsets, in three ways: six numbers in [-1, 1].

    ``<kind>_all`` over all pairs together, as STS12 to STS16 are reported; ``<kind>_mean``, the mean over subsets;
    ``<kind>_wmean``, the mean weighted by their sizes; for ``spearman`` and ``pearson``.

    Args:
        subsets: Name -> (scores, gold scores), of equal length.

    Raises:
        ValueError: without subsets, or for one whose correlation is not defined.

    Source: SentEval (Conneau and Kiela 2018); SimCSE (Gao et al. 2021), appendix on STS.

    Example:
        >>> sorted(aggregate_correlations({"a": ([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])}))
        ['pearson_all', 'pearson_mean', 'pearson_wmean', 'spearman_all', 'spearman_mean', 'spearman_wmean']
    """
    if not subsets:
        raise ValueError("subsets: got none; expected at least one.")
    scores = [np.asarray(given, dtype=np.float64) for given, _ in subsets.values()]
    gold = [np.asarray(given, dtype=np.float64) for _, given in subsets.values()]
    sizes = np.array([len(part) for part in gold])
    correlations: dict[str, float] = {}
    for kind, correlate in (("spearman", spearman), ("pearson", pearson)):
        each = [correlate(x, y) for x, y in zip(scores, gold, strict=True)]
        correlations[f"{kind}_all"] = correlate(np.concatenate(scores), np.concatenate(gold))
        correlations[f"{kind}_mean"] = float(np.mean(each))
        correlations[f"{kind}_wmean"] = float(np.average(each, weights=sizes))
    return correlations


def triplet_accuracy(
    anchor: Tensor, positive: Tensor, negative: Tensor, *, distance: Distance = "cosine"
) -> float:
    """Percent of triplets in which the positive is strictly nearer to the anchor than the negative.

    Args, Raises: as :func:`triplet_hits`.

    Example:
        >>> x = torch.eye(3)
        >>> triplet_accuracy(x[:1], x[:1], x[1:2])
        100.0
    """
    return 100.0 * float(triplet_hits(anchor, positive, negative, distance=distance).double().mean())


def triplet_hits(
    anchor: Tensor, positive: Tensor, negative: Tensor, *, distance: Distance = "cosine"
) -> Tensor:
    """Whether the positive is strictly nearer to the anchor than the negative, for each triplet: (N,) bool.

    Rows (N, D) each, N >= 1; the distance ``cosine`` is 1 - cosine.

    Raises:
        ValueError: for other shapes, another distance, or a row whose distance is NaN.

    Example:
        >>> x = torch.eye(3)
        >>> triplet_hits(x[:1], x[:1], x[1:2])
        tensor([True])
    """
    one_of("distance", distance, Distance)
    if not anchor.shape == positive.shape == negative.shape or anchor.ndim != 2 or len(anchor) == 0:
        raise ValueError(
            f"anchor, positive, negative: got shapes {tuple(anchor.shape)}, {tuple(positive.shape)}, "
            f"{tuple(negative.shape)}; expected one shape (N, D), N >= 1."
        )
    near, far = (_distances(anchor, other, distance) for other in (positive, negative))
    if bool((near.isnan() | far.isnan()).any()):
        raise ValueError("anchor, positive, negative: have a distance that is NaN; expected finite rows.")
    return near < far


def _distances(x: Tensor, y: Tensor, distance: Distance) -> Tensor:
    """Of paired rows, (N,)."""
    if distance == "cosine":
        return 1.0 - torch.nn.functional.cosine_similarity(x, y, dim=-1)
    if distance == "euclidean":
        return torch.linalg.vector_norm(x - y, dim=-1)
    return (x - y).abs().sum(-1)
