"""Metrics by hand, by their properties, and where they must refuse."""

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings, strategies as st

from hypvl.metrics.ranking import (
    accuracy_chance,
    average_precision_at_r,
    average_precision_at_r_chance,
    first_hit_ranks,
    found_share,
    hits_at,
    label_ranks,
    mean_per_class_accuracy,
    median_rank,
    r_precision,
    r_precision_chance,
    rank_keys,
    recall_chance,
    recall_from_ranks,
)
from tests.metrics.composed import retrieval_recall, topk_accuracy

SCORES = torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.3, 0.1], [0.4, 0.6, 0.5], [0.0, 0.1, 0.2]])


def test_rank_keys_by_hand() -> None:
    assert rank_keys(SCORES).tolist() == [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 1, 0]]
    assert rank_keys(SCORES, 1).tolist() == [[0], [1], [1], [2]]
    assert rank_keys(SCORES, 9).tolist() == rank_keys(SCORES).tolist()


def test_ties_go_to_the_lower_column() -> None:
    scores = torch.tensor([[1.0, 2.0, 2.0, 2.0, 1.0]])
    assert rank_keys(scores).tolist() == [[1, 2, 3, 0, 4]]
    for k in range(1, 6):
        assert rank_keys(scores, k).tolist() == [[1, 2, 3, 0, 4][:k]]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=4), st.integers(1, 7)
)
def test_a_cut_off_order_is_the_start_of_the_whole_one(rows: list[list[int]], k: int) -> None:
    # Few distinct values: ties everywhere, also across the cut.
    expected = [sorted(range(6), key=lambda j, row=row: (-row[j], j))[:k] for row in rows]
    assert rank_keys(torch.tensor(rows, dtype=torch.float32), k).tolist() == expected


def test_infinities_are_ranked() -> None:
    assert rank_keys(torch.tensor([[-math.inf, 0.0, math.inf]]), 2).tolist() == [[2, 1]]


def test_recall_of_a_matrix_by_hand() -> None:
    right = [{0}, {2}, {0, 2}, set()]  # ranks 1, 3, 2; the last row is not a query
    assert retrieval_recall(SCORES, right, ks=(1, 2, 3)) == {
        1: pytest.approx(100 / 3), 2: pytest.approx(200 / 3), 3: 100.0,
    }  # fmt: skip


def test_ranks_of_first_hits() -> None:
    assert first_hit_ranks([[3, 1, 2], [3, 1], []], [[2, 1], [0], [5]]) == [2, None, None]
    assert first_hit_ranks([[7, 8, 9], [9, 7, 8], []], [[8, 9], [8], [7]]) == [2, 3, None]
    assert hits_at([2, None, 1, 11], 2) == [100.0, 0.0, 100.0, 0.0]
    assert recall_from_ranks([2, None, 1, 11], (1, 2, 10)) == {1: 25.0, 2: 50.0, 10: 50.0}


def test_recall_chance_by_hand() -> None:
    assert recall_chance([1] * 9, 1000, ks=(1, 5, 10)) == pytest.approx({1: 0.1, 5: 0.5, 10: 1.0})
    # 2 right of 5, 2 drawn: 1 - C(3, 2) / C(5, 2) = 1 - 3 / 10; and 1 of 5: 2 / 5. Mean 0.55.
    assert recall_chance([2, 1], 5, ks=(2,)) == pytest.approx({2: 55.0})
    assert recall_chance([1], 3, ks=(10,)) == {10: 100.0}


def test_recall_chance_is_the_mean_over_all_orders() -> None:
    right = [{0, 2}, {1}]
    for k in (1, 2, 3, 4):
        orders = list(permutations(range(4)))
        recalls = [recall_from_ranks(first_hit_ranks([o, o], right), [k])[k] for o in orders]
        assert sum(recalls) / len(recalls) == pytest.approx(recall_chance([2, 1], 4, ks=(k,))[k])


def test_recall_chance_of_a_large_gallery_is_finite() -> None:
    chance = recall_chance([5] * 5000, 25_000, ks=(1, 10))
    assert chance[1] == pytest.approx(100 * 5 / 25_000)
    assert chance[10] == pytest.approx(100 * (1 - (1 - 5 / 25_000) ** 10), rel=1e-3)


def test_accuracies_by_hand() -> None:
    labels = torch.tensor([0, 0, 2, 2])
    assert label_ranks(SCORES, labels).tolist() == [1, 2, 2, 1]
    assert topk_accuracy(SCORES, labels) == 50.0
    assert topk_accuracy(SCORES, labels, k=2) == 100.0
    # Class 0: 2 of 3, class 5: 0 of 1 (no prediction), class 1 does not occur.
    assert mean_per_class_accuracy([0, 1, 0, None], [0, 0, 0, 5]) == pytest.approx(100 / 3)
    assert (
        accuracy_chance(10) == 10.0 and accuracy_chance(10, k=5) == 50.0 and accuracy_chance(3, k=5) == 100.0
    )


def test_constant_scores_get_chance() -> None:
    labels = torch.arange(10).repeat(3)
    scores = torch.zeros(30, 10)
    assert mean_per_class_accuracy(rank_keys(scores, 1)[:, 0], labels) == pytest.approx(accuracy_chance(10))
    assert topk_accuracy(scores, labels, k=5) == pytest.approx(accuracy_chance(10, k=5))


def test_mean_per_class_equals_top1_for_equal_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(40, 4, generator=generator)
    labels = torch.arange(4).repeat(10)
    predicted = rank_keys(scores, 1)[:, 0]
    assert mean_per_class_accuracy(predicted, labels) == pytest.approx(topk_accuracy(scores, labels))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rank_keys(torch.tensor([[1.0, math.nan]])), "NaN"),
        (lambda: rank_keys(torch.zeros(3)), r"shape \(3,\)"),
        (lambda: rank_keys(torch.zeros(1, 2), 0), "at least 1"),
        (lambda: recall_from_ranks([], [1]), "no queries"),
        (lambda: recall_from_ranks([1], [0]), r"\[0\]"),
        (lambda: first_hit_ranks([[1]], []), "0 entries for 1"),
        (lambda: recall_chance([0], 3, ks=(1,)), "expected 1 … 3"),
        (lambda: recall_chance([4], 3, ks=(1,)), "expected 1 … 3"),
        (lambda: label_ranks(torch.zeros(2, 3), torch.tensor([0, 3])), "below 3"),
        (lambda: mean_per_class_accuracy([], []), "0 and 0"),
        (lambda: accuracy_chance(0), "at least 1"),
    ],
)
def test_wrong_arguments_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


def test_median_ranks_by_hand() -> None:
    assert median_rank([5, 1, 2], 10) == 2.0
    assert median_rank([5, 1, 2, 4], 10) == 3.0
    assert median_rank([5, None, None], 10) == 10.0
    assert median_rank([1, None], 10) == 5.5


def test_precisions_by_hand() -> None:
    # Right: a, b, c, so R = 3. Of the first three x, a, b two are right, at places 2 and 3.
    ranked = ["x", "a", "b", "y", "c"]
    assert r_precision(ranked, "abc") == pytest.approx(100 * 2 / 3)
    assert average_precision_at_r(ranked, "abc") == pytest.approx(100 * (1 / 2 + 2 / 3) / 3)
    assert found_share(ranked, "abc", 5) == 100.0
    assert found_share(ranked, "abc", 2) == pytest.approx(100 / 3)


def test_an_item_outside_the_gallery_counts_in_r() -> None:
    assert r_precision(["a", "x"], ["a", "lost"]) == 50.0
    assert average_precision_at_r(["a", "x"], ["a", "lost"]) == 50.0
    assert average_precision_at_r([], ["a"]) == r_precision([], ["a"]) == 0.0


def test_one_right_item_gives_recall_at_1() -> None:
    for ranked, hit in ((["a", "b"], 100.0), (["b", "a"], 0.0)):
        assert r_precision(ranked, ["a"]) == average_precision_at_r(ranked, ["a"]) == hit


def test_order_within_the_first_r_moves_only_the_average_precision() -> None:
    early, late = ["a", "b", "x", "y"], ["x", "y", "a", "b"]
    assert r_precision(early, "abcd") == r_precision(late, "abcd") == 50.0
    assert average_precision_at_r(early, "abcd") > average_precision_at_r(late, "abcd")


@pytest.mark.parametrize(
    ("count", "size", "outside"),
    [(1, 1, 0), (1, 4, 0), (2, 5, 0), (3, 5, 0), (5, 5, 0), (3, 5, 1), (1, 4, 1), (6, 4, 3)],
)
def test_chance_of_precisions_is_the_mean_over_all_orders(count: int, size: int, outside: int) -> None:
    orders = list(permutations(range(size)))
    right = range(-outside, count - outside)  # negative ones are in no order
    mean = sum(r_precision(order, right) for order in orders) / len(orders)
    assert r_precision_chance(count, size, in_gallery=count - outside) == pytest.approx(mean)
    mean = sum(average_precision_at_r(order, right) for order in orders) / len(orders)
    assert average_precision_at_r_chance(count, size, in_gallery=count - outside) == pytest.approx(mean)


def test_ranks_and_precisions_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="got no queries"):
        median_rank([], 3)
    with pytest.raises(ValueError, match="leave queries without a right item out"):
        r_precision(["a"], [])
    for function in (r_precision_chance, average_precision_at_r_chance):
        with pytest.raises(ValueError, match=r"right_count: got 4, 4 of them in a gallery of 3"):
            function(4, 3)
