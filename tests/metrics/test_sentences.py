"""Aggregated correlations and triplets by hand."""

import pytest
import torch

from hypvl.metrics.sentences import aggregate_correlations, triplet_accuracy


def test_aggregation_by_hand() -> None:
    # In each subset the order is perfect (a) or reversed (b); together the gap between the subsets decides.
    subsets = {"a": ([1, 2, 3], [1, 2, 3]), "b": ([12, 11], [11, 12])}
    result = aggregate_correlations(subsets)
    for kind in ("spearman", "pearson"):
        assert result[f"{kind}_mean"] == pytest.approx(0.0, abs=1e-12)
        assert result[f"{kind}_wmean"] == pytest.approx((3 - 2) / 5)
    # Ranks 1 2 3 5 4 against 1 2 3 4 5: 1 - 6 * 2 / (5 * 24).
    assert result["spearman_all"] == pytest.approx(0.9)
    assert 0.99 < result["pearson_all"] < 1.0


def test_one_subset_equals_all_pairs() -> None:
    result = aggregate_correlations({"only": ([1.0, 4.0, 2.0, 8.0], [0.0, 3.0, 1.0, 2.0])})
    # Ranks 1 3 2 4 against 1 4 2 3: 1 - 6 * 2 / (4 * 15).
    assert [result[f"spearman_{way}"] for way in ("all", "mean", "wmean")] == pytest.approx([0.8] * 3)
    with pytest.raises(ValueError, match="subsets: got none"):
        aggregate_correlations({})


def test_triplets_by_hand_and_ties_are_misses() -> None:
    anchor = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    positive = torch.tensor([[5.0, 0.0], [0.0, 1.0], [2.0, 1.0]])
    negative = torch.tensor([[1.0, 1.0], [0.0, 2.0], [1.0, 1.0]])
    # Cosine: nearer, a tie, nearer.
    assert triplet_accuracy(anchor, positive, negative) == pytest.approx(200 / 3)
    # Euclidean 4 > 1, sqrt 2 < sqrt 5, sqrt 2 > 1; Manhattan 4 > 1, 2 < 3, 2 > 1.
    for distance in ("euclidean", "manhattan"):
        assert triplet_accuracy(anchor, positive, negative, distance=distance) == pytest.approx(100 / 3)  # type: ignore[arg-type]


def test_wrong_arguments() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="distance: got 'hyperbolic'"):
        triplet_accuracy(x, x, x, distance="hyperbolic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"got shapes \(2, 3\), \(2, 3\), \(2, 2\)"):
        triplet_accuracy(x, x, x[:, :2])
