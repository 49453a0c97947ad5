"""Bootstrap intervals: known spread, constants, reproducible draws, errors."""

import math

import pytest
import torch

from hypvl.evaluation.bootstrap import bootstrap_intervals


def test_half_width_is_that_of_the_normal_approximation() -> None:
    values = [0.0, 100.0] * 500  # a share of 50 % of 1000: standard error 100 * sqrt(.25 / 1000)
    low, high = bootstrap_intervals({"accuracy": values}, resamples=4000)["accuracy"]
    half = 1.96 * 100 * math.sqrt(0.25 / 1000)
    assert low == pytest.approx(50 - half, abs=0.25) and high == pytest.approx(50 + half, abs=0.25)


def test_level_widens() -> None:
    values = {"m": torch.arange(50.0).tolist()}
    narrow = bootstrap_intervals(values, level=0.5)["m"]
    wide = bootstrap_intervals(values, level=0.99)["m"]
    assert wide[0] < narrow[0] < 24.5 < narrow[1] < wide[1]


def test_a_constant_has_no_spread_and_no_items_no_interval() -> None:
    assert bootstrap_intervals({"none": [], "same": [3.0] * 7}) == {"same": (3.0, 3.0)}


def test_draws_depend_on_the_seed_only_and_are_shared_between_metrics() -> None:
    values = [1.0, 5.0, 2.0, 9.0]
    before = torch.get_rng_state()
    found = bootstrap_intervals({"a": values, "long": [0.0, 1.0] * 5, "b": [2 * value for value in values]})
    assert torch.equal(torch.get_rng_state(), before)
    assert found["b"] == pytest.approx([2 * bound for bound in found["a"]])
    assert found["a"] == bootstrap_intervals({"a": values})["a"]
    assert found["a"] != bootstrap_intervals({"a": values}, seed=1)["a"]


def test_many_items_are_drawn_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap_intervals({"a": [1.0, 5.0, 2.0]}, resamples=100)
    monkeypatch.setattr("hypvl.evaluation.bootstrap._BLOCK", 7)  # two resamples at once
    low, high = bootstrap_intervals({"a": [1.0, 5.0, 2.0]}, resamples=100)["a"]
    assert 1.0 <= low < high <= 5.0 and low == pytest.approx(whole["a"][0], abs=1.0)


@pytest.mark.parametrize(
    ("settings", "values", "message"),
    [
        ({"level": 1.0}, [1.0], "expected a level in"),
        ({"resamples": 10}, [1.0], "at least 100 resamples"),
        ({}, [1.0, math.nan], "samples of m: got NaN"),
    ],
)
def test_refused(settings: dict[str, float], values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_intervals({"m": values}, **settings)  # type: ignore[arg-type]
