"""Metrics by hand, by their properties, and where they must refuse."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from hypvl.metrics.ranking import (
    accuracy_chance,
    first_hit_ranks,
    label_ranks,
    mean_per_class_accuracy,
    rank_keys,
    recall_at_k,
    recall_chance,
    recall_from_ranks,
    retrieval_recall,
    topk_accuracy,
)

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


def test_infinities_have_their_place() -> None:
    assert rank_keys(torch.tensor([[-math.inf, 0.0, math.inf]]), 2).tolist() == [[2, 1]]


def test_recall_of_lists_by_hand() -> None:
    predictions = {"a": [7, 8, 9], "b": [9, 7, 8], "stranger": [7]}
    truth = {"a": [8, 9], "b": [8], "silent": [7]}
    # a is hit at 2, b at 3, silent has no predictions, the stranger does not count.
    recalls = recall_at_k(predictions, truth, ks=(1, 2, 3))  # type: ignore[arg-type]
    assert recalls == {1: 0.0, 2: pytest.approx(100 / 3), 3: pytest.approx(200 / 3)}


def test_recall_of_a_matrix_by_hand() -> None:
    right = [{0}, {2}, {0, 2}, set()]  # ranks 1, 3, 2; the last row is no query
    assert retrieval_recall(SCORES, right, ks=(1, 2, 3)) == {
        1: pytest.approx(100 / 3), 2: pytest.approx(200 / 3), 3: 100.0,
    }  # fmt: skip


def test_ranks_of_first_hits() -> None:
    assert first_hit_ranks([[3, 1, 2], [3, 1], []], [[2, 1], [0], [5]]) == [2, None, None]
    assert recall_from_ranks([2, None, 1, 11], (1, 2, 10)) == {1: 25.0, 2: 50.0, 10: 50.0}


def test_recall_chance_by_hand() -> None:
    assert recall_chance([1] * 9, 1000, ks=(1, 5, 10)) == pytest.approx({1: 0.1, 5: 0.5, 10: 1.0})
    # 2 right of 5, 2 drawn: 1 - C(3, 2) / C(5, 2) = 1 - 3 / 10; and 1 of 5: 2 / 5. Mean 0.55.
    assert recall_chance([2, 1], 5, ks=(2,)) == pytest.approx({2: 55.0})
    assert recall_chance([1], 3, ks=(10,)) == {10: 100.0}


def test_recall_chance_is_the_mean_over_all_orders() -> None:
    right = [{0, 2}, {1}]
    for k in (1, 2, 3, 4):
        orders = list(itertools.permutations(range(4)))
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
        (lambda: recall_at_k({}, {1: []}, ks=(1,)), "no right item"),
        (lambda: first_hit_ranks([[1]], []), "0 entries for 1"),
        (lambda: retrieval_recall(torch.zeros(2, 2), [{0}]), "1 entries for 2"),
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
