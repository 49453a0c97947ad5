"""Bootstrap intervals: known spread, constants, reproducible draws, errors."""

import math

import pytest
import torch

from hypvl.metrics.bootstrap import bootstrap_intervals


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
    result = bootstrap_intervals({"a": values, "long": [0.0, 1.0] * 5, "b": [2 * value for value in values]})
    assert torch.equal(torch.get_rng_state(), before)
    assert result["b"] == pytest.approx([2 * bound for bound in result["a"]])
    assert result["a"] == bootstrap_intervals({"a": values})["a"]
    assert result["a"] != bootstrap_intervals({"a": values}, seed=1)["a"]


def test_many_items_are_drawn_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap_intervals({"a": [1.0, 5.0, 2.0]}, resamples=100)
    monkeypatch.setattr("hypvl.metrics.bootstrap._BLOCK", 7)  # two resamples at once
    low, high = bootstrap_intervals({"a": [1.0, 5.0, 2.0]}, resamples=100)["a"]
    assert 1.0 <= low < high <= 5.0 and low == pytest.approx(whole["a"][0], abs=1.0)


@pytest.mark.parametrize("sizes", [(10, 90), (20, 850), (1, 3, 7), (1,)])
def test_a_perfect_mean_of_groups_has_no_spread(sizes: tuple[int, ...]) -> None:
    groups = [name for name, size in enumerate(sizes) for _ in range(size)]
    for value in (100.0, 0.0, 100 / 3):
        samples, strata = {"mean_per_class": [value] * len(groups)}, {"mean_per_class": groups}
        assert bootstrap_intervals(samples, strata=strata) == {"mean_per_class": (value, value)}


def test_a_mean_of_groups_spreads_as_its_groups_do() -> None:
    # 40 of 80 right in one class, 10 of 20 in the other: variance (2500 / 80 + 2500 / 20) / 4.
    values, groups = [0.0, 100.0] * 50, ["many"] * 80 + ["few"] * 20
    half = 1.96 * math.sqrt((2500 / 80 + 2500 / 20) / 4)
    for order in (range(100), range(99, -1, -1)):  # groups need not be one after the other
        given = {"m": [values[i] for i in order]}
        low, high = bootstrap_intervals(given, strata={"m": [groups[i] for i in order]}, resamples=4000)["m"]
        assert low == pytest.approx(50 - half, abs=1.0) and high == pytest.approx(50 + half, abs=1.0)


def test_differences_between_groups_alone_add_no_spread() -> None:
    values, groups = [0.0] * 10 + [100.0] * 90, ["wrong"] * 10 + ["right"] * 90
    assert bootstrap_intervals({"m": values}, strata={"m": groups}) == {"m": (50.0, 50.0)}


def test_metrics_with_groups_do_not_change_the_intervals_of_others() -> None:
    values = [1.0, 5.0, 2.0, 9.0]
    alone = bootstrap_intervals({"a": values})
    result = bootstrap_intervals({"a": values, "b": values}, strata={"b": ["x", "x", "y", "y"]})
    assert result["a"] == alone["a"] and result["b"] != alone["a"]
    assert 1.5 <= result["b"][0] < result["b"][1] <= 7.0


def test_groups_are_drawn_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    given, strata = {"a": [1.0, 5.0, 2.0]}, {"a": ["x", "x", "y"]}
    whole = bootstrap_intervals(given, strata=strata, resamples=100)["a"]
    monkeypatch.setattr("hypvl.metrics.bootstrap._BLOCK", 7)
    assert bootstrap_intervals(given, strata=strata, resamples=100)["a"] == whole == (1.5, 3.5)


@pytest.mark.parametrize(
    ("strata", "message"),
    [
        ({"m": [0]}, "strata of m: got 1 groups for 2 items; expected one per item"),
        ({"n": [0, 0]}, "got groups of 'n', which has no samples"),
    ],
)
def test_groups_that_do_not_fit_are_refused(strata: dict[str, list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_intervals({"m": [1.0, 2.0]}, strata=strata)


@pytest.mark.parametrize(
    ("settings", "values", "message"),
    [
        ({"level": 1.0}, [1.0], "expected a level in"),
        ({"resamples": 10}, [1.0], "at least 100 resamples"),
        ({}, [1.0, math.nan], "samples of m: got NaN"),
    ],
)
def test_levels_resamples_and_values_out_of_range_are_refused(
    settings: dict[str, float], values: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_intervals({"m": values}, **settings)  # type: ignore[arg-type]
