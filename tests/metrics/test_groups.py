"""The worst group by hand, and its chance level against all outcomes."""

from itertools import product

import numpy as np
import pytest

from hypvl.metrics.groups import by_group, worst_group, worst_group_chance


def test_the_worst_group_by_hand() -> None:
    values = by_group([100.0, 0.0, 100.0, 0.0, 100.0, 100.0], ["b", "b", "a", "a", "a", "c"])
    assert values == {"a": [100.0, 0.0, 100.0], "b": [100.0, 0.0], "c": [100.0]}
    assert worst_group(values) == "b"
    assert worst_group(by_group([0.0, 0.0], ["b", "a"])) == "a"


def test_chance_is_the_mean_over_all_outcomes() -> None:
    sizes, share = (3, 2, 1), 0.4
    expected = 0.0
    for outcome in product((0, 1), repeat=sum(sizes)):
        groups = np.split(np.array(outcome), np.cumsum(sizes)[:-1])
        expected += (
            min(group.mean() for group in groups) * share ** sum(outcome) * (1 - share) ** (6 - sum(outcome))
        )
    assert worst_group_chance(sizes, chance=40.0) == pytest.approx(100 * expected)
    assert worst_group_chance([7], chance=25.0) == pytest.approx(25.0)
    # Large groups are all guessed equally well.
    assert worst_group_chance([20_000, 10_000], chance=10.0) == pytest.approx(10.0, abs=0.3)
    assert worst_group_chance([4, 4], chance=100.0) == pytest.approx(100.0)


def test_wrong_input_is_an_error() -> None:
    with pytest.raises(ValueError, match="values, groups: got 2 and 1"):
        by_group([1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match="sizes: got"):
        worst_group_chance([3, 0], chance=10.0)
    with pytest.raises(ValueError, match="chance: got 101"):
        worst_group_chance([3], chance=101)
