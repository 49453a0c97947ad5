"""Correlation of two lists of numbers: pure functions, each a number in [-1, 1], by SciPy in fp64."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from torch import Tensor

from hypvl.checks import one_of

Numbers = Sequence[float] | np.ndarray | Tensor


def pearson(x: Numbers, y: Numbers) -> float:
    """Linear correlation: covariance over the product of the standard deviations.

    Args:
        x: (N,), N >= 2, finite and not constant.
        y: (N,), likewise.

    Raises:
        ValueError: for other lists, whose correlation is not defined.

    Example:
        >>> round(pearson([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), 6)
        1.0
    """
    from scipy import stats

    return float(stats.pearsonr(*_checked(x, y)).statistic)


def spearman(x: Numbers, y: Numbers) -> float:
    """Pearson's correlation of the ranks; tied numbers share the mean of their ranks.

    Args, Raises: as :func:`pearson`.

    Example:
        >>> round(spearman([1.0, 2.0, 3.0], [1.0, 10.0, 100.0]), 6)
        1.0
    """
    from scipy import stats

    return float(stats.spearmanr(*_checked(x, y)).statistic)


def kendall_tau(x: Numbers, y: Numbers, *, variant: Literal["b", "c"] = "b") -> float:
    """Concordant pairs minus discordant ones, over the largest possible difference.

    Formula: with P concordant and Q discordant pairs, T_x and T_y pairs tied only in x and only in y,
    ``b``: (P - Q) / sqrt((P + Q + T_x) (P + Q + T_y)); ``c``, Stuart's: 2 (P - Q) / (N^2 (m - 1) / m), m the smaller
    number of distinct values.

    Args, Raises: as :func:`pearson`, and
        variant: ``b`` for lists with equally many distinct values, ``c`` for scores against a few grades.

    Source: Kendall 1945, "The treatment of ties in ranking problems"; Stuart 1953.

    Example:
        >>> round(kendall_tau([1.0, 2.0, 3.0], [1.0, 3.0, 2.0]), 4)
        0.3333
    """
    from scipy import stats

    one_of("variant", variant, Literal["b", "c"])
    return float(stats.kendalltau(*_checked(x, y), variant=variant).statistic)


def _checked(x: Numbers, y: Numbers) -> tuple[np.ndarray, np.ndarray]:
    arrays = [np.asarray(z.tolist() if isinstance(z, Tensor) else z, dtype=np.float64) for z in (x, y)]
    for name, values in zip(("x", "y"), arrays, strict=True):
        if values.ndim != 1 or len(values) < 2 or len(values) != len(arrays[0]):
            raise ValueError(
                f"{name}: got shape {values.shape}; expected (N,) with N >= 2, and as many in x as in y."
            )
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: holds NaN or infinity; expected finite numbers.")
        if (values == values[0]).all():
            raise ValueError(
                f"{name}: all {len(values)} values are {values[0]:g}; a constant correlates with nothing."
            )
    return arrays[0], arrays[1]
