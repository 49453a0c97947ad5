"""Correlations by hand, by their invariances, and where they must refuse."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from hypvl.metrics.correlation import kendall_tau, pearson, spearman

ALL = (pearson, spearman, kendall_tau, lambda x, y: kendall_tau(x, y, variant="c"))


def test_by_hand() -> None:
    # Deviations (-1, 0, 1) and (-1, 1, 0): sums of products 1, of squares 2 and 2.
    assert pearson([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)
    assert spearman([1, 2, 30], [1, 300, 2]) == pytest.approx(0.5)
    # Pairs: (1,2) and (1,3) concordant, (2,3) discordant.
    assert kendall_tau([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)


def test_kendall_with_ties_by_hand() -> None:
    # x = 1 1 2 3, y = 1 2 2 3. Of 6 pairs: one tied in x only, one in y only, four concordant.
    x, y = [1, 1, 2, 3], [1, 2, 2, 3]
    assert kendall_tau(x, y) == pytest.approx(4 / math.sqrt(5 * 5))
    assert kendall_tau(x, y, variant="c") == pytest.approx(2 * 4 / (16 * (3 - 1) / 3))


@pytest.mark.parametrize("correlate", ALL)
def test_correlations_are_symmetric_odd_and_scale_invariant(correlate: Callable[..., float]) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=30), rng.integers(0, 4, 30).astype(float)
    assert correlate(x, y) == pytest.approx(correlate(y, x))
    assert correlate(-x, y) == pytest.approx(-correlate(x, y))
    assert correlate(3 * x + 7, y) == pytest.approx(correlate(x, y))
    assert correlate(torch.tensor(x), y.tolist()) == pytest.approx(correlate(x, y))


@pytest.mark.parametrize("correlate", ALL[1:])
def test_rank_correlations_are_invariant_to_monotone_maps(correlate: Callable[..., float]) -> None:
    x, y = [0.1, 0.5, 0.2, 0.9, 0.5], [3.0, 1.0, 2.0, 5.0, 4.0]
    assert correlate([math.exp(v) for v in x], y) == pytest.approx(correlate(x, y))


@pytest.mark.parametrize("correlate", ALL)
def test_lists_without_a_correlation_are_an_error(correlate: Callable[..., float]) -> None:
    with pytest.raises(ValueError, match="x: all 3 values are 2; a constant"):
        correlate([2, 2, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="y: holds NaN"):
        correlate([1, 2, 3], [1, math.nan, 3])
    with pytest.raises(ValueError, match=r"y: got shape \(2,\)"):
        correlate([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match=r"x: got shape \(1,\)"):
        correlate([1], [1])
    with pytest.raises(ValueError, match="variant: got 'a'"):
        kendall_tau([1, 2], [1, 2], variant="a")  # type: ignore[arg-type]
