"""L-BFGS on many independent problems at once: one evaluation serves them all, each takes its own steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

#: Points (A, P) of the problems ``which`` (A,) int64 -> values (A,) and gradients (A, P).
Evaluate: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

_ARMIJO = 1e-4
_CURVATURE = 0.9
_MAX_TRIALS = 30


@dataclass(frozen=True)
class Minimum:
    """Where each of K problems was left.

    Attributes:
        x: (K, P).
        value: (K,).
        gradient_norm: Euclidean norm of the gradient there, (K,).
        iterations: Steps taken, (K,) int64.
        converged: Whether the gradient norm is within its limit, (K,) bool.
        evaluations: Calls of ``evaluate``.
    """

    x: Tensor
    value: Tensor
    gradient_norm: Tensor
    iterations: Tensor
    converged: Tensor
    evaluations: int


def minimise(
    evaluate: Evaluate,
    start: Tensor,
    *,
    tolerance: float | Tensor = 1e-6,
    max_iterations: int = 1000,
    history: int = 10,
    small_value: float = 0.0,
) -> Minimum:
    """Minimise K smooth functions of P numbers each.

    Two-loop recursion with per-problem inner products, and a bisection to a step with the weak Wolfe conditions;
    a problem that is done takes no part in later evaluations. A problem ends when its gradient norm is within its
    limit, after ``max_iterations`` steps, or where no step makes it smaller any more (rounding).

    Args:
        evaluate: Values and gradients of some of the problems.
        start: (K, P), floating point.
        tolerance: Of the Euclidean norm of the gradient, > 0, one for all or (K,); see ``small_value``.
        max_iterations: Steps of each problem.
        history: Pairs of steps and gradient changes to remember, >= 1.
        small_value: Below it the tolerance shrinks in proportion to the value, for functions that stay above 0.

    Source: Nocedal & Wright 2006, Numerical Optimization, algorithms 7.4 and 7.5; Lewis & Overton 2013, Nonsmooth
        optimization via quasi-Newton methods, section 2.2 (line search).
    """
    limits = torch.as_tensor(tolerance, dtype=torch.float64, device=start.device).expand(len(start))
    if start.ndim != 2 or not bool((limits > 0).all()) or max_iterations < 0 or history < 1:
        raise ValueError(
            f"minimise: got start {tuple(start.shape)}, tolerance={tolerance}, max_iterations={max_iterations}, "
            f"history={history}; expected (K, P), tolerance > 0, max_iterations >= 0, history >= 1."
        )
    active = torch.arange(len(start), device=start.device)
    x = start.clone()
    f, g = evaluate(x, active)
    evaluations = 1

    def within(values: Tensor, norms: Tensor, limit: Tensor) -> Tensor:
        return norms <= limit * ((values / small_value).clamp_max(1.0) if small_value else 1.0)

    out_x, out_f, out_norm = x.clone(), f.clone(), g.norm(dim=1)
    steps = torch.zeros_like(active)
    memory = _Memory(history)
    for _ in range(max_iterations):
        going = ~within(f, g.norm(dim=1), limits[active])
        active, x, f, g = active[going], x[going], f[going], g[going]
        memory.keep(going)
        if len(active) == 0:
            break
        direction = memory.direction(g)
        moved = _line_search(evaluate, active, x, f, g, direction)
        evaluations += moved.evaluations
        stuck = ~moved.found
        if bool(stuck.any()):  # once more along the gradient, and then rounding has the last word
            memory.forget(stuck)
            again = _line_search(evaluate, active[stuck], x[stuck], f[stuck], g[stuck], -g[stuck])
            evaluations += again.evaluations
            moved.x[stuck], moved.f[stuck], moved.g[stuck] = again.x, again.f, again.g
            moved.found[stuck] = again.found
        memory.add(moved.x - x, moved.g - g)
        x, f, g = moved.x, moved.f, moved.g
        steps[active[moved.found]] += 1
        out_x[active], out_f[active], out_norm[active] = x, f, g.norm(dim=1)
        active, x, f, g = active[moved.found], x[moved.found], f[moved.found], g[moved.found]
        memory.keep(moved.found)
    return Minimum(out_x, out_f, out_norm, steps, within(out_f, out_norm, limits), evaluations)


class _Memory:
    """The last pairs (s, y) of every problem still going; a pair of no use to a problem has weight 0 there."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []  # s (A, P), y (A, P), 1 / <s, y> or 0 (A,)
        self.scale: Tensor | None = None  # (A,)

    def add(self, s: Tensor, y: Tensor) -> None:
        inner = (s * y).sum(dim=1)
        useful = inner > 1e-10 * s.norm(dim=1) * y.norm(dim=1)
        weight = torch.where(useful, 1.0 / torch.where(useful, inner, 1.0), 0.0)
        self.pairs = [*self.pairs, (s, y, weight)][-self.size :]
        before = torch.ones_like(inner) if self.scale is None else self.scale
        self.scale = torch.where(useful, inner / torch.where(useful, y.square().sum(dim=1), 1.0), before)

    def keep(self, mask: Tensor) -> None:
        if bool(mask.all()):
            return
        self.pairs = [(s[mask], y[mask], weight[mask]) for s, y, weight in self.pairs]
        self.scale = None if self.scale is None else self.scale[mask]

    def forget(self, mask: Tensor) -> None:
        self.pairs = [(s, y, weight.masked_fill(mask, 0.0)) for s, y, weight in self.pairs]
        self.scale = None if self.scale is None else self.scale.masked_fill(mask, 1.0)

    def direction(self, gradient: Tensor) -> Tensor:
        """- (approximate inverse Hessian) gradient, (A, P); along the gradient where that does not descend."""
        q = gradient.clone()
        taken = []
        for s, y, weight in reversed(self.pairs):
            a = weight * (s * q).sum(dim=1)
            q -= a[:, None] * y
            taken.append(a)
        if self.scale is not None:
            q *= self.scale[:, None]
        for (s, y, weight), a in zip(self.pairs, reversed(taken), strict=True):
            b = weight * (y * q).sum(dim=1)
            q += (a - b)[:, None] * s
        descends = (q * gradient).sum(dim=1) > 0
        if not bool(descends.all()):
            self.forget(~descends)
            q = torch.where(descends[:, None], q, gradient)
        return -q


@dataclass
class _Step:
    x: Tensor
    f: Tensor
    g: Tensor
    found: Tensor
    evaluations: int


def _line_search(evaluate: Evaluate, which: Tensor, x: Tensor, f: Tensor, g: Tensor, along: Tensor) -> _Step:
    """A step of each problem along its direction; where none is found, the point it came from."""
    slope = (g * along).sum(dim=1)
    # Values that differ by their last bits only are equal: near the minimum the slope decides.
    slack = 8 * torch.finfo(g.dtype).eps * f.abs()
    low, high = torch.zeros_like(f), torch.full_like(f, torch.inf)
    step = torch.ones_like(f)
    new_x, new_f, new_g = x.clone(), f.clone(), g.clone()
    found = torch.zeros_like(f, dtype=torch.bool)
    evaluations = 0
    pending = torch.arange(len(f), device=f.device)
    for _ in range(_MAX_TRIALS):
        trial = x[pending] + step[pending, None].to(x) * along[pending]  # values may be finer than points
        value, gradient = evaluate(trial, which[pending])
        evaluations += 1
        new_slope = (gradient * along[pending]).sum(dim=1)
        t, s = step[pending], slope[pending]
        # NaN and infinity compare false, and are too far.
        small = value <= f[pending] + _ARMIJO * t * s + slack[pending]
        flat = new_slope >= _CURVATURE * s
        good = small & flat
        done = pending[good]
        new_x[done], new_f[done], new_g[done] = trial[good], value[good], gradient[good]
        found[done] = True
        high[pending] = torch.where(small, high[pending], t)
        low[pending] = torch.where(small & ~flat, t, low[pending])
        middle = torch.where(high.isinf(), 2 * low, (low + high) / 2)
        step = torch.where(found, step, middle)
        pending = pending[~good]
        if len(pending) == 0:
            break
    return _Step(new_x, new_f, new_g, found, evaluations)
