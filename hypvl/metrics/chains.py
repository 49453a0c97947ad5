"""Chains of texts from the most general to the most specific: pure functions of scores and of distances to the root."""

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor


def level_tau(radii: Sequence[float]) -> float:
    """Kendall's tau between the level of each text and its distance to the root.

    Formula: (C - D) / (n (n - 1) / 2), C pairs of levels whose radii grow with the level, D pairs whose radii shrink;
    equal radii count for neither.

    Args:
        radii: From the most general text to the most specific, at least 2.

    Returns:
        1 = radii always grow, -1 = always shrink, 0 = no order, also where all radii are equal.

    Raises:
        ValueError: for fewer levels, or a radius that is NaN.

    Source: HierarCaps, Alper and Averbuch-Elor 2024 (arXiv 2407.08521), the measure tau_d.

    Example:
        >>> level_tau([0.1, 0.5, 0.4])  # two of three pairs in order, one not
        0.3333333333333333
    """
    if len(radii) < 2:
        raise ValueError(f"radii: got {len(radii)}; expected at least 2 levels.")
    if any(math.isnan(radius) for radius in radii):
        raise ValueError(f"radii: got {list(radii)}; expected no NaN, which is neither nearer nor farther.")
    pairs = list(combinations(radii, 2))
    return sum((far > near) - (far < near) for near, far in pairs) / len(pairs)


def order_hits(general: Tensor, specific: Tensor) -> list[float]:
    """Of each pair of distances to the root, (N,) each, 100 where the general one is nearer, 50 for a tie, else 0.

    Example:
        >>> order_hits(torch.tensor([0.1, 0.5]), torch.tensor([0.3, 0.5]))
        [100.0, 50.0]
    """
    return (100.0 * (general < specific).double() + 50.0 * (general == specific).double()).tolist()


def along_radii(scores: Tensor, radii: Tensor, *, steps: int = 50) -> list[list[int]]:
    """What each query retrieves within growing radii.

    ``steps`` thresholds are evenly spaced from the smallest to the largest radius; each one retrieves the best-scoring
    candidate whose radius is at most the threshold, of equal scores the one nearer the root.

    Args:
        scores: Queries against candidates, (Q, K), higher = closer.
        radii: Distances of the candidates to the root, (K,).
        steps: Number of thresholds, at least 2.

    Returns:
        For each query the distinct candidates, from the root outwards.

    Raises:
        ValueError: for other shapes, fewer thresholds, scores that are NaN, or radii that are not finite.

    Example:
        >>> scores = torch.tensor([[0.9, 0.5]])  # of one query with two texts
        >>> along_radii(scores, torch.tensor([1.0, 0.2]), steps=4)
        [[1, 0]]
    """
    if scores.ndim != 2 or radii.shape != scores.shape[1:] or len(radii) == 0 or steps < 2:
        raise ValueError(
            f"scores, radii, steps: got {tuple(scores.shape)}, {tuple(radii.shape)} and {steps}; expected (Q, K), "
            "(K,), K >= 1 and at least 2 thresholds."
        )
    if bool(scores.isnan().any()) or not bool(radii.isfinite().all()):
        raise ValueError("scores, radii: hold NaN, or infinite radii; expected finite radii and no NaN.")
    order = radii.sort(stable=True)
    sorted_scores = scores[:, order.indices]
    # Running maximum whose position is the first to reach it: torch.cummax gives the last of equal ones.
    best = sorted_scores.cummax(1).values
    rises = torch.ones_like(best, dtype=torch.bool)
    rises[:, 1:] = best[:, 1:] > best[:, :-1]
    position = torch.arange(best.shape[1], device=best.device)
    first = torch.where(rises, position, 0).cummax(1).values  # (Q, K)
    low, high = order.values[0], order.values[-1]
    weights = torch.linspace(0.0, 1.0, steps, dtype=order.values.dtype, device=radii.device)
    thresholds = low + weights * (high - low)
    thresholds[-1] = high
    allowed = torch.searchsorted(order.values, thresholds, right=True).clamp(
        min=1
    )  # number of candidates within
    chosen = order.indices[first[:, allowed - 1]]  # (Q, steps)
    return [list(dict.fromkeys(row)) for row in chosen.tolist()]
