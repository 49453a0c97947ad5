"""Metrics of graded ranked lists by hand and by their bounds."""

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hypvl.metrics.passages import (
    average_precision_at,
    hit_at,
    ndcg_at,
    precision_at,
    recall_at,
    reciprocal_rank_at,
)

RANKED, RIGHT = ["x", "a", "y", "b", "z"], {"a", "b", "lost"}


def test_by_hand() -> None:
    assert [hit_at(RANKED, RIGHT, k=k) for k in (1, 2, 9)] == [0.0, 100.0, 100.0]
    assert precision_at(RANKED, RIGHT, k=4) == pytest.approx(50.0)
    assert precision_at(RANKED, RIGHT, k=10) == pytest.approx(20.0)  # ten places, whether filled or not
    assert recall_at(RANKED, RIGHT, k=2) == pytest.approx(100 / 3)
    assert reciprocal_rank_at(RANKED, RIGHT, k=10) == pytest.approx(50.0)
    assert reciprocal_rank_at(RANKED, RIGHT, k=1) == 0.0
    assert average_precision_at(RANKED, RIGHT, k=4) == pytest.approx(100 * (1 / 2 + 2 / 4) / 3)
    assert average_precision_at(RANKED, RIGHT, k=2) == pytest.approx(100 * (1 / 2) / 2)  # at most 2 fit


def test_ndcg_by_hand() -> None:
    grades = {"a": 1.0, "b": 3.0}
    second, fourth = 1 / math.log2(3), 1 / math.log2(5)
    assert ndcg_at(RANKED, grades, k=5) == pytest.approx(100 * (second + fourth) / (1 + second))
    linear = (second + 3 * fourth) / (3 + second)
    assert ndcg_at(RANKED, grades, k=5, gain="linear") == pytest.approx(100 * linear)
    exponential = (second + 7 * fourth) / (7 + second)
    assert ndcg_at(RANKED, grades, k=5, gain="exponential") == pytest.approx(100 * exponential)
    assert ndcg_at(RANKED, grades, k=1) == 0.0


@settings(max_examples=60, deadline=None)
@given(
    st.permutations(range(8)),
    st.dictionaries(st.integers(0, 11), st.integers(1, 3), min_size=1),
    st.integers(1, 10),
)
def test_bounds_and_relations(ranked: list[int], grades: dict[int, int], k: int) -> None:
    graded = {item: float(grade) for item, grade in grades.items()}
    values = [
        f(ranked, grades, k=k)
        for f in (hit_at, precision_at, recall_at, reciprocal_rank_at, average_precision_at)
    ]
    values += [ndcg_at(ranked, graded, k=k, gain=gain) for gain in ("binary", "linear", "exponential")]  # type: ignore[arg-type]
    assert all(-1e-9 <= value <= 100 + 1e-9 for value in values)
    assert values[1] * k == pytest.approx(values[2] * len(grades))
    assert (values[0] == 0) == (max(values) == 0)
    if k <= 8:  # wrong items first, then every right one at the end, is never better
        worse = sorted(ranked, key=lambda item: item in grades)
        assert ndcg_at(worse, graded, k=k) <= ndcg_at(ranked, graded, k=k) + 1e-9


def test_linear_gain_is_scikit_learn_s() -> None:
    from sklearn.metrics import ndcg_score

    rng = np.random.default_rng(1)
    grades, scores = rng.integers(0, 4, 12), rng.normal(size=12)
    order = np.argsort(-scores).tolist()
    graded = {i: float(g) for i, g in enumerate(grades) if g}
    assert ndcg_at(order, graded, k=5, gain="linear") == pytest.approx(
        100 * ndcg_score([grades], [scores], k=5)
    )


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="right: got no items"):
        hit_at(RANKED, set(), k=1)
    with pytest.raises(ValueError, match="k: got 0"):
        precision_at(RANKED, RIGHT, k=0)
    with pytest.raises(ValueError, match=r"grades: got 0\.0"):
        ndcg_at(RANKED, {"a": 0.0}, k=1)
    with pytest.raises(ValueError, match="gain: got 'cubic'"):
        ndcg_at(RANKED, {"a": 1.0}, k=1, gain="cubic")  # type: ignore[arg-type]
