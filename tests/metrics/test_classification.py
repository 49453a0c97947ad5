"""ELEVATER's metrics and VQA accuracy by hand, against scikit-learn, and by their properties."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hypvl.metrics.classification import (
    average_precision,
    average_precision_11_points,
    average_precision_chance,
    f1,
    false_positive_rate,
    macro_f1,
    macro_f1_chance,
    mean_over_sets,
    one_hot,
    roc_auc,
    vqa_accuracy,
)

TABLE = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=25)


def test_roc_auc_by_hand() -> None:
    # Pairs (positive, negative): 3>2, 3>1, 1<2, 1=1.
    assert roc_auc([3, 1, 2, 1], [1, 1, 0, 0]) == pytest.approx(100 * 2.5 / 4)
    assert roc_auc([math.inf, -math.inf], [0, 1]) == 0.0


def test_roc_auc_depends_on_the_order_only() -> None:
    scores, labels = np.random.default_rng(0).integers(0, 6, size=40).astype(float), np.repeat([1, 0], 20)
    area = roc_auc(scores, labels)
    assert roc_auc(np.exp(scores), labels) == pytest.approx(area)
    assert roc_auc(scores, 1 - labels) == pytest.approx(100.0 - area)


def test_average_precision_by_hand() -> None:
    # From the top: right, wrong, right, wrong: precision 1 and 2/3 at the two steps of recall.
    scores, labels = [4, 3, 2, 1], [1, 0, 1, 0]
    assert average_precision(scores, labels) == pytest.approx(100 * (1 / 2 + 2 / 3 / 2))
    # Recalls up to 0.5 (six points) have precision 1, the five above 2/3.
    assert average_precision_11_points(scores, labels) == pytest.approx(100 * (6 + 5 * 2 / 3) / 11)
    # The best one is wrong: every point has 1/2 by VOC's rule, and the first 1 by ELEVATER's.
    assert average_precision_11_points([4, 3], [0, 1]) == pytest.approx(50.0)
    assert average_precision_11_points([4, 3], [0, 1], rule="elevater") == pytest.approx(100 * 6 / 11)


def test_the_mean_goes_over_classes_with_a_positive() -> None:
    scores = np.array([[4, 1, 0], [3, 2, 0], [2, 3, 0], [1, 4, 0]])
    labels = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0]])
    assert average_precision(scores, labels) == average_precision_11_points(scores, labels) == 100.0


def test_recall_of_exactly_a_tenth_is_reached() -> None:
    # 3 of 10 in floats is below 3 * 0.1; here precision falls right after the third positive.
    labels = np.array([1] * 3 + [0] * 90 + [1] * 7)
    points = [1.0] * 4 + [10 / 100] * 7
    result = average_precision_11_points(-np.arange(100), labels)
    assert result == pytest.approx(100 * np.mean(points))


@settings(max_examples=80, deadline=None)
@given(TABLE)
def test_as_scikit_learn_with_ties(rows: list[tuple[int, bool]]) -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores, labels = [row[0] for row in rows], [row[1] for row in rows]
    if any(labels):
        assert average_precision(scores, labels) == pytest.approx(
            100 * average_precision_score(labels, scores)
        )
        eleven = average_precision_11_points(scores, labels)
        assert (
            eleven - 1e-9 <= average_precision_11_points(scores, labels, rule="elevater") <= eleven + 100 / 11
        )
        if not all(labels):
            assert roc_auc(scores, labels) == pytest.approx(100 * roc_auc_score(labels, scores))


@settings(max_examples=40, deadline=None)
@given(TABLE, st.randoms())
def test_the_order_of_items_does_not_matter(rows: list[tuple[int, bool]], random: object) -> None:
    rows.append((2, True))
    other = list(rows)
    random.shuffle(other)  # type: ignore[attr-defined]
    for metric in (average_precision, average_precision_11_points):
        values = [metric([r[0] for r in order], [r[1] for r in order]) for order in (rows, other)]
        assert values[0] == pytest.approx(values[1])


def test_chance_of_average_precision_is_the_mean_over_all_orders() -> None:
    from itertools import permutations

    labels = [1, 1, 0, 0, 0]
    values = [average_precision(order, labels) for order in permutations(range(5))]
    assert average_precision_chance(labels) == pytest.approx(np.mean(values))
    assert average_precision_chance([1]) == 100.0


@pytest.mark.parametrize(("agreeing", "official", "simple"), [(0, 0, 0), (1, 30, 100 / 3), (2, 60, 200 / 3),
                                                              (3, 90, 100), (4, 100, 100), (10, 100, 100)])  # fmt: skip
def test_vqa_accuracy_of_ten_people(agreeing: int, official: float, simple: float) -> None:
    answers = ["yes"] * agreeing + ["no"] * (10 - agreeing)
    assert vqa_accuracy("yes", answers) == pytest.approx(official)
    assert vqa_accuracy("yes", answers, rule="simple") == pytest.approx(simple)


def test_missing_sets_are_left_out_of_the_mean() -> None:
    assert mean_over_sets({"a": 10.0, "b": None, "c": 20.0, "d": math.nan}) == (15.0, ["b", "d"])
    assert mean_over_sets({"a": None}) == (None, ["a"])


def test_one_hot_of_sets_of_classes() -> None:
    assert one_hot([{0, 2}, [], (1,)], 3).tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    with pytest.raises(ValueError, match=r"labels\[0\]: has the class 3; expected 0 … 2"):
        one_hot([{3}], 3)


def test_wrong_input_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 of 2 are positive"):
        roc_auc([1, 2], [1, 1])
    with pytest.raises(ValueError, match="in 2 columns"):
        roc_auc([[1, 2], [2, 1]], [[1, 0], [0, 1]])
    with pytest.raises(ValueError, match="no class has a positive"):
        average_precision([1, 2], [0, 0])
    with pytest.raises(ValueError, match="no class has a positive"):
        average_precision_chance([0, 0])
    with pytest.raises(ValueError, match="hold NaN"):
        average_precision([1, math.nan], [0, 1])
    with pytest.raises(ValueError, match=r"got shapes \(2,\) and \(3,\)"):
        average_precision_11_points([1, 2], [0, 1, 1])
    with pytest.raises(ValueError, match="other values than 0 and 1"):
        roc_auc([1, 2], [1, 2])
    with pytest.raises(ValueError, match="rule: got 'coco'"):
        average_precision_11_points([1, 2], [0, 1], rule="coco")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rule: got 'official'"):
        vqa_accuracy("a", ["a", "b"], rule="official")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="answers: got 1"):
        vqa_accuracy("a", ["a"])


def test_false_positive_rate_by_hand() -> None:
    labels = [1, 1, 0, 0, 1, 0]
    scores = [5.0, 4.0, 3.0, 2.0, 1.0, 0.0]
    assert false_positive_rate(scores, labels, recall=60) == 0.0  # two of three positives
    assert false_positive_rate(scores, labels) == pytest.approx(100 * 2 / 3)
    assert false_positive_rate([1.0, 1.0], [1, 0]) == 100.0  # a tie
    with pytest.raises(ValueError, match="expected one column with both"):
        false_positive_rate([1.0, 2.0], [1, 1])
    with pytest.raises(ValueError, match="recall: got 0"):
        false_positive_rate(scores, labels, recall=0)


def test_f1_by_hand() -> None:
    # 2 right of 3 predicted, and of 4 that are there: precision 2/3, recall 1/2.
    assert f1([1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 1, 0]) == pytest.approx(100 * 4 / 7)
    assert f1([0, 0], [0, 0]) == 0.0


def test_macro_f1_by_hand() -> None:
    # Class 0: 1 right of 2 predicted and 2 there; class 1: 1 right of 1 predicted and 2 there; class 2 never occurs.
    assert macro_f1([0, None, 1, 0], [0, 0, 1, 1]) == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)
    assert macro_f1([2, 2], [0, 1]) == 0.0
    with pytest.raises(ValueError, match="labels: got no items"):
        macro_f1([], [])


def test_chance_of_macro_f1_is_the_mean_over_all_guesses() -> None:
    labels = [0, 0, 0, 2]
    values = [macro_f1(guess, labels) for guess in product(range(3), repeat=4)]
    assert macro_f1_chance(labels, classes=3) == pytest.approx(np.mean(values))
    with pytest.raises(ValueError, match="labels, classes: got 0 and 3"):
        macro_f1_chance([], classes=3)
