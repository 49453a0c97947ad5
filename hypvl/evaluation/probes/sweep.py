"""The published search of a setting on a logarithmic scale: a coarse grid, then halvings around the best value."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: Inverse strengths of the penalty that CLIP and MERU search first; 4 halvings end at 8 values per factor of 10.
COARSE_GRID: tuple[float, ...] = (1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e4, 1e6)


@dataclass(frozen=True)
class SweepResult:
    """Result of a search."""

    best: float  # the value with the highest score, the lowest of equal ones
    scores: dict[float, float]  # value -> score, ascending by value


def halving_search(
    score: Callable[[Sequence[float]], Sequence[float]], grid: Sequence[float], *, halvings: int
) -> SweepResult:
    """Find the value with the highest score.

    All of the grid is scored; then, ``halvings`` times, the step between neighbours is halved (in the logarithm)
    and the two values one step from the best so far are scored, unless they lie outside of the grid's range.

    Args:
        score: Values -> scores, higher is better; called once per round.
        grid: Different values > 0; evenly spaced in the logarithm where there are halvings.
        halvings: Number of halvings; 0 = the grid alone.

    Raises:
        ValueError: for a grid that does not fit.
    """
    values = _by_exponent(grid, halvings)  # exponent -> value, as given
    points = list(values)
    scores: dict[float, float] = {}

    def visit(exponents: Sequence[float]) -> None:
        new = [values.setdefault(e, 10.0**e) for e in exponents]
        scores.update(zip(exponents, score(new), strict=True))

    visit(points)
    step = points[1] - points[0] if len(points) > 1 else 0.0
    for _ in range(halvings if len(points) > 1 else 0):
        step /= 2
        centre = _best(scores)
        nearby = [
            e for e in (centre - step, centre + step) if points[0] <= e <= points[-1] and e not in scores
        ]
        if nearby:
            visit(nearby)
    return SweepResult(values[_best(scores)], {values[e]: scores[e] for e in sorted(scores)})


def _by_exponent(grid: Sequence[float], halvings: int) -> dict[float, float]:
    if not grid or len(set(grid)) < len(grid) or not all(0 < v < math.inf for v in grid) or halvings < 0:
        raise ValueError(
            f"grid, halvings: got {list(grid)}, {halvings}; expected different positive numbers, halvings >= 0."
        )
    values = {round(math.log10(v), 9): float(v) for v in sorted(grid)}
    steps = [b - a for a, b in itertools.pairwise(values)]
    if halvings and steps and max(steps) - min(steps) > 1e-6:
        raise ValueError(
            f"grid: got {list(grid)}; expected even steps in the logarithm, for {halvings} halvings."
        )
    return values


def _best(scores: dict[float, float]) -> float:
    return min(scores, key=lambda e: (-scores[e], e))
