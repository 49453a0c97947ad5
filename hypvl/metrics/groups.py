"""Metrics of the worst of several groups of items: pure functions."""

import math
from collections.abc import Sequence

import numpy as np

from hypvl.checks import number


def by_group(values: Sequence[float], groups: Sequence[str]) -> dict[str, list[float]]:
    """The values of each group that occurs, groups in sorted order.

    Args:
        values: One per item, such as 100 for a hit and 0 for a miss.
        groups: The group of each item.

    Raises:
        ValueError: without items, or for other lengths.

    Example:
        >>> by_group([100.0, 0.0, 50.0], ["b", "a", "b"])
        {'a': [0.0], 'b': [100.0, 50.0]}
    """
    if not values or len(values) != len(groups):
        raise ValueError(
            f"values, groups: got {len(values)} and {len(groups)}; expected one group per item, at least one item."
        )
    result: dict[str, list[float]] = {name: [] for name in sorted(set(groups))}
    for value, group in zip(values, groups, strict=True):
        result[group].append(value)
    return result


def worst_group(values: dict[str, list[float]]) -> str:
    """The group with the lowest mean; of several the first.

    Args:
        values: As :func:`by_group` gives them.

    Source: Sagawa et al. 2020 (arXiv 1911.08731); over regions: Koh et al. 2021, WILDS (arXiv 2012.07421), FMoW.

    Example:
        >>> worst_group({"a": [0.0, 100.0], "b": [25.0]})
        'b'
    """
    return min(values, key=lambda name: math.fsum(values[name]) / len(values[name]))


def worst_group_chance(sizes: Sequence[int], *, chance: float) -> float:
    """The accuracy of the worst group that guessing gets on average, in percent.

    Formula: ``integral from 0 to 1 of prod_g P(H_g >= x n_g) dx``, H_g the binomial number of
    hits among the n_g items of group g.

    Args:
        sizes: Items of each group, each at least 1.
        chance: Percent of guesses that are right, of every item.

    Raises:
        ValueError: for no group, an empty one, or a chance outside 0 ... 100.

    Example:
        >>> worst_group_chance([1], chance=50.0)
        50.0
    """
    number("chance", chance, least=0, most=100)
    if not sizes or min(sizes) < 1:
        raise ValueError(f"sizes: got {list(sizes)}; expected at least one group, none of them empty.")
    from scipy.stats import binom

    # Equal fractions of different groups are the same float, since a division rounds correctly.
    shares = {size: np.arange(size + 1) / size for size in set(sizes)}
    ends = np.unique(np.concatenate(list(shares.values())))[1:]
    reached = np.ones(len(ends))
    for size in sizes:
        hits = np.searchsorted(shares[size], ends)  # the least number that is as much as this share
        reached *= binom.sf(hits - 1, size, chance / 100.0)
    return 100.0 * float((np.diff(ends, prepend=0.0) * reached).sum())
