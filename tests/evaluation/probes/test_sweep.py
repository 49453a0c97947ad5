"""The search on a logarithmic scale."""

from collections.abc import Sequence

import pytest

from hypvl.evaluation.probes.sweep import COARSE_GRID, halving_search


def peak_at(exponent: float, asked: list[list[float]]):
    import math

    def score(values: Sequence[float]) -> list[float]:
        asked.append([round(math.log10(v), 6) for v in values])
        return [-abs(math.log10(v) - exponent) for v in values]

    return score


def test_the_published_search_by_hand() -> None:
    asked: list[list[float]] = []
    result = halving_search(peak_at(0.7, asked), COARSE_GRID, halvings=4)
    # 0 is the best of the grid; then 1 (0.3 off), 0.5 (0.2 off), 0.75 (0.05 off), and that stays.
    assert asked == [[-6, -4, -2, 0, 2, 4, 6], [-1, 1], [0.5, 1.5], [0.25, 0.75], [0.625, 0.875]]
    assert result.best == pytest.approx(10**0.75)
    assert len(result.scores) == 15 and list(result.scores) == sorted(result.scores)


def test_the_search_stays_in_range_and_scores_nothing_twice() -> None:
    asked: list[list[float]] = []
    result = halving_search(peak_at(9.0, asked), COARSE_GRID, halvings=2)
    assert result.best == 1e6 and asked[1:] == [[5], [5.5]]


def test_the_lowest_of_equal_values_wins() -> None:
    result = halving_search(lambda values: [1.0] * len(values), [1.0, 100.0, 0.01], halvings=3)
    assert result.best == 0.01


def test_without_halvings_only_the_grid_is_scored() -> None:
    asked: list[list[float]] = []
    assert halving_search(peak_at(0.0, asked), [0.1, 2.0, 7.0], halvings=0).best == 2.0
    assert len(asked) == 1
    assert halving_search(peak_at(0.0, asked), [5.0], halvings=4).best == pytest.approx(5.0)


def test_the_worst_of_scores_may_be_infinite() -> None:
    result = halving_search(lambda v: [float("-inf") if x > 1 else 0.0 for x in v], [1.0, 100.0], halvings=1)
    assert result.best == 1.0


@pytest.mark.parametrize("grid", [[], [1.0, 1.0], [0.0, 1.0], [1.0, 10.0, 1000.0]])
def test_wrong_grids(grid: list[float]) -> None:
    with pytest.raises(ValueError, match="grid"):
        halving_search(lambda v: [0.0] * len(v), grid, halvings=1)
