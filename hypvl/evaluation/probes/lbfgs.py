"""L-BFGS on a smooth function whose value and gradient cost far more than anything done here."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

#: A point (P,) -> value and gradient (P,).
Evaluate: TypeAlias = Callable[[Tensor], tuple[float, Tensor]]
#: A value and the norm of its gradient -> whether that is good enough.
Done: TypeAlias = Callable[[float, float], bool]

_ARMIJO = 1e-4
_CURVATURE = 0.9
_MAX_TRIALS = 30
_PATIENCE = 20


class Point(NamedTuple):
    """Where a function was evaluated: x (P,), value, gradient (P,)."""

    x: Tensor
    value: float
    gradient: Tensor


@dataclass(frozen=True)
class Minimum:
    """Where the search was left.

    Attributes:
        point: The last point.
        iterations: Steps taken.
        evaluations: Calls of ``evaluate``.
        converged: Whether the point is good enough.
    """

    point: Point
    iterations: int
    evaluations: int
    converged: bool


def minimise(
    evaluate: Evaluate,
    start: Point,
    *,
    done: Done,
    max_iterations: int = 1000,
    history: int = 10,
    noise: float = 8 * torch.finfo(torch.float64).eps,
) -> Minimum:
    """Minimise a function of P numbers.

    The inverse Hessian in its compact form, and a bisection to a step with the weak Wolfe conditions. It ends where
    ``done`` says so, after ``max_iterations`` steps, or where rounding is all that is left: no step makes the value
    smaller any more, or in 20 of them neither the value fell by more than ``noise`` nor the gradient to a half.

    Args:
        evaluate: Value and gradient; a value that is no number is a step too far.
        start: Evaluated already.
        done: When to stop.
        max_iterations: Steps.
        history: Pairs of steps and gradient changes to remember, >= 1.
        noise: What rounding leaves of a value, relative: values that differ by less are equal, and the slope decides.

    Source: Byrd, Nocedal & Schnabel 1994, Representations of quasi-Newton matrices and their use in limited memory
        methods, theorem 2.2; Lewis & Overton 2013, Nonsmooth optimization via quasi-Newton methods, section 2.2
        (line search).
    """
    if start.x.ndim != 1 or max_iterations < 0 or history < 1:
        raise ValueError(
            f"minimise: got start {tuple(start.x.shape)}, max_iterations={max_iterations}, history={history}; "
            "expected (P,), max_iterations >= 0, history >= 1."
        )
    at = start
    evaluations = 0
    memory = _Memory(history)
    best_value, best_norm, since = math.inf, math.inf, 0
    for iteration in range(max_iterations + 1):
        norm = float(at.gradient.norm())
        if done(at.value, norm):
            return Minimum(at, iteration, evaluations, True)
        if at.value < best_value - noise * abs(at.value) or norm < best_norm / 2:
            best_value, best_norm, since = min(at.value, best_value), min(norm, best_norm), 0
        since += 1
        if iteration == max_iterations or since > _PATIENCE:
            break
        found, trials = _line_search(evaluate, at, memory.direction(at.gradient), noise=noise)
        evaluations += trials
        if (
            found is None and memory.steps is not None
        ):  # once more along the gradient, and then rounding has the last word
            memory = _Memory(history)
            found, trials = _line_search(evaluate, at, -at.gradient, noise=noise)
            evaluations += trials
        if found is None:
            break
        memory.add(found.x - at.x, found.gradient - at.gradient)
        at = found
    return Minimum(at, iteration, evaluations, False)


class _Memory:
    """The last steps and what they changed the gradient by, as rows of S and Y, oldest first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.steps: Tensor | None = None  # S (m, P)
        self.changes: Tensor | None = None  # Y (m, P)
        self.scale = 1.0

    def add(self, s: Tensor, y: Tensor) -> None:
        inner, square = float(s @ y), float(y @ y)
        if inner <= 1e-10 * float(s.norm()) * math.sqrt(square):
            return
        self.scale = inner / square
        self.steps = _appended(self.steps, s, self.size)
        self.changes = _appended(self.changes, y, self.size)

    def direction(self, gradient: Tensor) -> Tensor:
        """- (approximate inverse Hessian) gradient, (P,); along the gradient where that does not descend."""
        if self.steps is None or self.changes is None:
            return -gradient
        inner = self.steps @ self.changes.T  # (m, m)
        upper = inner.triu()
        w = torch.linalg.solve_triangular(upper, (self.steps @ gradient)[:, None], upper=True)[:, 0]
        middle = inner.diagonal() * w + self.scale * (self.changes @ (w @ self.changes - gradient))
        top = torch.linalg.solve_triangular(upper.T, middle[:, None], upper=False)[:, 0]
        q = top @ self.steps + self.scale * (gradient - w @ self.changes)
        if float(q @ gradient) > 0:
            return -q
        self.steps, self.changes, self.scale = None, None, 1.0
        return -gradient


def _appended(rows: Tensor | None, row: Tensor, size: int) -> Tensor:
    return (
        row[None] if rows is None else torch.cat([rows[-(size - 1) :] if size > 1 else rows[:0], row[None]])
    )


def _line_search(
    evaluate: Evaluate, start: Point, along: Tensor, *, noise: float
) -> tuple[Point | None, int]:
    """A point along a direction, None where there is none; and how often it evaluated."""
    slope = float(start.gradient @ along)
    slack = noise * abs(start.value)
    low, high = 0.0, math.inf
    step = 1.0
    for trial in range(1, _MAX_TRIALS + 1):
        x = start.x + step * along
        value, gradient = evaluate(x)
        # NaN and infinity compare false, and are too far.
        if not value <= start.value + _ARMIJO * step * slope + slack:
            high = step
        elif float(gradient @ along) < _CURVATURE * slope:
            low = step
        else:
            return Point(x, value, gradient), trial
        step = 2 * low if math.isinf(high) else (low + high) / 2
        if -step * slope < 1e-3 * slack:
            return None, trial  # what is left to win is nothing that could be seen
    return None, _MAX_TRIALS
