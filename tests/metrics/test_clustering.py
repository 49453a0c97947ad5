"""Clustering metrics by hand and by their invariances."""

import math

import numpy as np
import pytest

from hypvl.metrics.clustering import (
    adjusted_mutual_info,
    adjusted_rand,
    contingency,
    fowlkes_mallows,
    homogeneity_completeness_v,
    hungarian_accuracy,
    label_metrics,
    matched_hits,
    mutual_info,
    normalized_mutual_info,
    purity,
    shape_metrics,
)

TRUTH, FOUND = [0, 0, 1, 1], [0, 0, 0, 1]


def test_by_hand() -> None:
    assert contingency(TRUTH, FOUND).tolist() == [[2, 0], [1, 1]]
    # I = sum p ln(p / (p_row p_column)); H(truth) = ln 2.
    information = (
        0.5 * math.log(0.5 / (0.5 * 0.75)) + 0.25 * math.log(0.25 / 0.375) + 0.25 * math.log(0.25 / 0.125)
    )
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert mutual_info(TRUTH, FOUND) == pytest.approx(information)
    assert normalized_mutual_info(TRUTH, FOUND) == pytest.approx(information / ((math.log(2) + entropy) / 2))
    assert normalized_mutual_info(TRUTH, FOUND, average="geometric") == pytest.approx(
        information / math.sqrt(math.log(2) * entropy)
    )
    assert normalized_mutual_info(TRUTH, FOUND, average="max") == pytest.approx(information / math.log(2))
    assert normalized_mutual_info(TRUTH, FOUND, average="min") == pytest.approx(information / entropy)
    homogeneity, completeness, v = homogeneity_completeness_v(TRUTH, FOUND)
    assert (homogeneity, completeness) == pytest.approx((information / math.log(2), information / entropy))
    assert v == pytest.approx(2 * homogeneity * completeness / (homogeneity + completeness))
    # Pairs together in both: 1; in the truth 2, in the clusters 3, of 6; expected 2 * 3 / 6 = 1.
    assert adjusted_rand(TRUTH, FOUND) == pytest.approx((1 - 1) / (2.5 - 1))
    assert fowlkes_mallows(TRUTH, FOUND) == pytest.approx(1 / math.sqrt(2 * 3))
    assert purity(TRUTH, FOUND) == pytest.approx(75.0)
    assert hungarian_accuracy(TRUTH, FOUND) == pytest.approx(75.0)
    assert matched_hits(TRUTH, FOUND) == [True, True, False, True]
    assert all(type(hit) is bool for hit in matched_hits(TRUTH, FOUND))


def test_a_surplus_cluster_matches_no_class() -> None:
    assert matched_hits([7, 7, 7], [5, 5, -1]) == [True, True, False]
    assert purity([7, 7, 7], [5, 5, -1]) == 100.0


def test_names_do_not_matter_and_full_agreement_is_one() -> None:
    rng = np.random.default_rng(0)
    truth, result = rng.integers(0, 4, 50).tolist(), rng.integers(0, 5, 50).tolist()
    renamed = [{0: 9, 1: -3, 2: 0, 3: 44, 4: 1}[c] for c in result]
    assert label_metrics(truth, result) == pytest.approx(label_metrics(truth, renamed))
    perfect = label_metrics(truth, [10 - label for label in truth])
    expected = dict.fromkeys(perfect, 1.0) | {"purity": 100.0, "hungarian_accuracy": 100.0}
    expected["mutual_info_nats"] = mutual_info(truth, truth)
    assert perfect == pytest.approx(expected)


def test_adjusted_metrics_are_zero_by_chance() -> None:
    rng = np.random.default_rng(1)
    truth = np.repeat(np.arange(10), 30).tolist()
    result = [rng.permutation(truth).tolist() for _ in range(5)]
    assert np.mean([adjusted_mutual_info(truth, clusters) for clusters in result]) == pytest.approx(
        0.0, abs=0.02
    )
    assert np.mean([adjusted_rand(truth, clusters) for clusters in result]) == pytest.approx(0.0, abs=0.01)
    assert normalized_mutual_info(truth, result[0]) > 0.05


def test_shape_by_hand() -> None:
    # Two pairs, 1 apart inside, 10 between: on a line at 0, 1, 10, 11.
    result = shape_metrics([[0.0], [1.0], [10.0], [11.0]], [0, 0, 1, 1])
    assert result["silhouette"] == pytest.approx((2 * (1 - 1 / 10.5) + 2 * (1 - 1 / 9.5)) / 4)
    assert result["davies_bouldin"] == pytest.approx((0.5 + 0.5) / 10)
    assert result["calinski_harabasz"] == pytest.approx((4 * 25 / 1) / (4 * 0.25 / 2))


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="got 2 and 1 labels"):
        purity([0, 1], [0])
    with pytest.raises(ValueError, match="got 0 and 0 labels"):
        label_metrics([], [])
    with pytest.raises(ValueError, match="2 labels of 1 clusters for 2 points"):
        shape_metrics([[0.0], [1.0]], [0, 0])
