"""L2-regularised logistic regression along a path of costs, with scikit-learn's optimum."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from hypvl.checks import number, one_of
from hypvl.evaluation.labelled_images import check_features
from hypvl.io.progress import SOON, terminal_bar

#: Precision of the solver; ``"mixed"`` solves in fp32 as far as fp32 can go, and continues in fp64.
Precision: TypeAlias = Literal["mixed", "fp64", "fp32"]

# Rows are processed in blocks whose logits fit the processor's cache, of at least so many rows (matrix products).
_BLOCK_ELEMENTS, _BLOCK_ROWS = 1 << 19, 512
_PREPARE_ROWS = 1 << 14
# Rounding error of a gradient of the mean loss, relative to the value: no smaller gradient norm is asked for.
_FLOORS = {"mixed": 1e-13, "fp64": 1e-13, "fp32": 1e-7}
# In mixed precision the fp32 pass is not asked for a smaller tolerance than this.
_FINEST = {torch.float64: 0.0, torch.float32: 2e-5}
_PASSES: dict[str, tuple[torch.dtype, ...]] = {
    "mixed": (torch.float32, torch.float64),
    "fp64": (torch.float64,),
    "fp32": (torch.float32,),
}
# Trials of one line search. Near the optimum a failed search means rounding error, so few are enough: with SciPy's 20
# a tolerance of 1e-6 in mixed precision took half more evaluations, and no tolerance took fewer.
_LINE_SEARCH_TRIALS = 6


@dataclass(frozen=True)
class LogisticModels:
    """One classifier per cost. A class without training items has weight 0 and bias minus infinity."""

    costs: tuple[float, ...]  # K inverse strengths of the penalty
    weight: Tensor  # (K, C, D) fp64
    bias: Tensor  # (K, C) fp64
    independent: bool  # whether each class is a binary problem of its own (several labels an item)
    converged: tuple[bool, ...]  # per cost, whether the gradient norm is within the tolerance
    gradient_norm: tuple[float, ...]  # per cost, as LogisticPath measures it
    iterations: tuple[int, ...]  # per cost
    evaluations: int  # of value and gradient (passes over the data), the sum over the costs

    def probabilities(self, features: Tensor, which: int) -> Tensor:
        """Of classifier ``which``: (N, D) -> (N, C); rows sum to 1 unless the classes are independent."""
        weight, bias = self.weight[which], self.bias[which]
        blocks = []
        for rows in features.split(max(_BLOCK_ROWS, _BLOCK_ELEMENTS // max(1, len(bias)))):
            logits = torch.addmm(bias, rows.to(weight.device, weight.dtype), weight.T)  # (n, C)
            blocks.append((logits.sigmoid() if self.independent else logits.softmax(dim=1)).cpu())
        return torch.cat(blocks)


class LogisticPath:
    """Linear classifiers of one training set for any number of costs, each solved from its neighbours on the path.

    For a cost c: minimise c * sum of losses + |W|^2 / 2, the intercept not penalised. The loss is the cross entropy of
    the softmax; with two classes W is the difference of their rows, as in scikit-learn's binary case, so that the
    optimum is that of ``LogisticRegression(C=c)`` for any number of classes. With targets (N, C) it is the binary cross
    entropy of each class, which gives the optimum of one binary ``LogisticRegression`` per class.

    A change of variables, which does not change the optimum, preconditions the problem: features are centred and
    rotated to their principal axes (at most N - 1 of them), and axis j is scaled by sqrt(h var_j + 1 / (c N)), the
    curvature of loss and penalty at W = 0 (h = 1/C, for independent classes 1/4). Badly scaled or correlated
    features then cost no extra iterations. The solver is SciPy's L-BFGS.

    Along log c the optimum moves in a nearly straight line. A cost between two solved ones starts on the line through
    them, one beyond them on its continuation where that is better than the nearest solution.

    Args:
        features: (N, D), finite; computations run on their device.
        targets: (N,) int64 below ``num_classes``, or (N, C) of 0 and 1.
        num_classes: C.
        tolerance: A cost has converged when the Euclidean norm of the gradient of the objective / (c N), in the
            variables above, is at most tolerance * min(1, g, value). g is the norm of the gradient by the weights at
            W = 0: with a strong penalty all weights are small, but their order counts. The value is small where the
            classes are separable and the penalty is weak: value and gradient vanish long before the optimum. The
            relative excess of the objective is then about 4 tolerance^2.
        max_iterations: Of L-BFGS, for each cost.
        precision: Of the solver.

    Raises:
        ValueError: for targets that do not fit.
        UserError: when features are NaN or infinite.

    Source: Pedregosa et al. 2011 (scikit-learn's objective); Boehning 1992, Multinomial logistic regression
        algorithm (the curvature at 0 and its bound).
    """

    def __init__(
        self,
        features: Tensor,
        targets: Tensor,
        *,
        num_classes: int,
        tolerance: float = 5e-4,
        max_iterations: int = 1000,
        precision: Precision = "mixed",
    ) -> None:
        one_of("precision", precision, Precision)
        _check(features, targets, num_classes)
        self.tolerance = number("tolerance", tolerance, above=0)
        self.max_iterations = max_iterations
        self.precision: Precision = precision
        self.num_classes = num_classes
        self._data = _Data(features, targets, num_classes, dtype=_PASSES[precision][0])
        self._solutions: dict[float, Tensor] = {}  # cost -> parameters (R + 1, C') fp64, not scaled

    def warm_start(self, models: LogisticModels) -> None:
        """Start the costs of these classifiers, of other data with the same classes, from them."""
        for cost, weight, bias in zip(models.costs, models.weight, models.bias, strict=True):
            self._solutions[cost] = self._data.to_axes(weight, bias)

    def fit(self, costs: Sequence[float]) -> LogisticModels:
        """One classifier per cost, in their order; a cost that is solved already is only checked again.

        Raises:
            ValueError: for costs that are not positive numbers.
        """
        costs = tuple(float(cost) for cost in costs)
        if not costs or not all(0 < c < math.inf for c in costs):
            raise ValueError(f"costs: got {list(costs)}; expected positive numbers, at least one.")
        todo = sorted(set(costs))
        with terminal_bar("logistic regression", after=SOON) as move_bar:
            solved = {}
            for done, cost in enumerate(todo):
                move_bar(done, len(todo), f"logistic regression, cost {cost:g}")
                solved[cost] = self._solve(cost)
        models = [self._all_classes(self._solutions[cost]) for cost in costs]
        return LogisticModels(
            costs=costs,
            weight=torch.stack([weight for weight, _ in models]),
            bias=torch.stack([bias for _, bias in models]),
            independent=self._data.independent,
            converged=tuple(solved[cost].converged for cost in costs),
            gradient_norm=tuple(solved[cost].gradient_norm for cost in costs),
            iterations=tuple(solved[cost].iterations for cost in costs),
            evaluations=sum(end.evaluations for end in solved.values()),
        )

    def _solve(self, cost: float) -> "_Solved":
        problem = _Problem(self._data, cost)
        first_norm = min(1.0, problem.first_norm())
        floor = min(_FLOORS[self.precision], self.tolerance)

        def converged(at: _Point, tolerance: float = self.tolerance) -> bool:
            limit = max(tolerance * min(first_norm, at.value), floor * min(1.0, at.value))
            return at.gradient_norm <= limit

        starts = [start * problem.scale for start in self._starts(cost)] or [problem.zeros()]
        evaluations, iterations = 0, 0
        for dtype in _PASSES[self.precision]:
            finest = max(self.tolerance, _FINEST[dtype] if self.precision == "mixed" else 0.0)
            points = [problem.evaluate(start.flatten(), dtype) for start in starts]
            end, steps, passes = _minimize(
                partial(problem.evaluate, dtype=dtype),
                min(points, key=lambda p: p.value if math.isfinite(p.value) else math.inf),
                converged=partial(converged, tolerance=finest),
                max_iterations=self.max_iterations - iterations,
            )
            evaluations += len(points) + passes
            iterations += steps
            starts = [end.x]
            if converged(end) or iterations >= self.max_iterations:
                break
        self._solutions[cost] = end.x.view(problem.scale.shape[0], -1) / problem.scale
        return _Solved(converged(end), end.gradient_norm, iterations, evaluations)

    def _starts(self, cost: float) -> list[Tensor]:
        """Parameters to start from, not scaled: the solution of this cost, or of its neighbours on the path."""
        solved = self._solutions
        if cost in solved or not solved:
            return [solved[cost]] if solved else []
        below = sorted(c for c in solved if c < cost)
        above = sorted(c for c in solved if c > cost)
        if below and above:
            share = math.log(cost / below[-1]) / math.log(above[0] / below[-1])
            return [torch.lerp(solved[below[-1]], solved[above[0]], share)]
        near = (below or above)[-1 if below else 0]
        starts = [solved[near]]
        if len(below) > 1:
            before = below[-2]
            ahead = math.log(cost / before) / math.log(near / before)
            starts.append(torch.lerp(solved[before], solved[near], ahead))
        return starts

    def _all_classes(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (C, D) and intercepts (C,) of all classes, for the features as they came."""
        data = self._data
        weight, bias = data.from_axes(parameters)
        full_weight = weight.new_zeros(self.num_classes, weight.shape[1])
        full_bias = bias.new_full((self.num_classes,), -math.inf)
        full_bias[data.always] = math.inf
        full_weight[data.present], full_bias[data.present] = weight, bias
        return full_weight, full_bias


class _Solved(NamedTuple):
    converged: bool
    gradient_norm: float
    iterations: int
    evaluations: int


class _Point(NamedTuple):
    """A point x (P,) where the objective was evaluated, its value and gradient (P,)."""

    x: Tensor
    value: float
    gradient: Tensor

    @property
    def gradient_norm(self) -> float:
        return float(self.gradient.norm())


class _ConvergedStop(Exception):  # noqa: N818 - not an error
    """Ends SciPy's search at a point that is good enough, also inside a line search."""


def _minimize(
    evaluate: Callable[[Tensor], _Point],
    start: _Point,
    *,
    converged: Callable[[_Point], bool],
    max_iterations: int,
) -> tuple[_Point, int, int]:
    """L-BFGS from an evaluated start: the last point, iterations and evaluations.

    It ends at the first evaluated point that has converged, after ``max_iterations``, or where no step decreases the
    value. Where rounding error of the value is the reason, a second search goes on by gradients alone: the difference
    to the value at its start, which is lost in rounding, is integrated along the step by the trapezoidal rule.
    """
    from scipy.optimize import OptimizeResult, minimize

    latest, iterations, evaluations = start, 0, 0

    def function(moved: np.ndarray, by_gradient: bool) -> tuple[float, np.ndarray]:
        nonlocal latest, evaluations
        step = torch.from_numpy(moved).to(start.x.device)
        if bool(step.any()):  # SciPy asks for the start first
            latest = evaluate(start.x + step)
            evaluations += 1
            if converged(latest):
                raise _ConvergedStop
        value = float((latest.gradient + start.gradient) @ step) / 2 if by_gradient else latest.value
        return value, latest.gradient.cpu().numpy()

    def count(intermediate_result: OptimizeResult) -> None:
        nonlocal iterations
        iterations += 1

    for by_gradient in (False, True):
        if converged(start) or iterations >= max_iterations:
            break
        options = {"maxiter": max_iterations - iterations, "maxfun": math.inf, "maxls": _LINE_SEARCH_TRIALS}
        options |= {"ftol": 0.0, "gtol": 0.0}
        try:
            end = minimize(
                function,
                np.zeros(start.x.shape),
                args=(by_gradient,),
                jac=True,
                method="L-BFGS-B",
                callback=count,
                options=options,
            )
        except _ConvergedStop:
            return latest, iterations + 1, evaluations
        moved, gradient = (torch.from_numpy(row).to(start.x.device) for row in (end.x, end.jac))
        value = float(end.fun) + (start.value if by_gradient else 0.0)
        start = latest = _Point(start.x + moved, value, gradient)
    return start, iterations, evaluations


class _Data:
    """Features along their principal axes with a column of ones, (N, R + 1), and the targets."""

    def __init__(self, features: Tensor, targets: Tensor, num_classes: int, *, dtype: torch.dtype) -> None:
        targets = targets.to(features.device)
        self.dtype = dtype  # of the first pass
        self.independent = targets.ndim == 2
        self.count = len(features)
        counts = targets.sum(0) if self.independent else targets.bincount(minlength=num_classes)
        some = (counts > 0) & (counts < self.count) if self.independent else counts > 0
        self.present = some.nonzero()[:, 0]  # classes that have something to learn, ascending (C',)
        # Classes that every item has, with several labels an item.
        self.always = (counts == self.count).nonzero()[:, 0] if self.independent else self.present[:0]
        if self.independent:
            self.targets = targets[:, self.present]  # (N, C')
        else:
            self.targets = (some.cumsum(0) - 1)[targets]  # (N,)
        self.mean = features.mean(dim=0, dtype=torch.float64)
        self.axes = _principal_axes(features, self.mean)  # (D, R) fp64
        self._features = features
        self._rows: dict[torch.dtype, Tensor] = {}
        self._signs: dict[torch.dtype, Tensor] = {}
        self.spread = self.mean.new_zeros(self.axes.shape[1] + 1)  # mean squares of the columns
        for block in self.rows(dtype).split(_PREPARE_ROWS):
            self.spread += block.double().square().sum(0) / self.count

    def rows(self, dtype: torch.dtype) -> Tensor:
        """(N, R + 1), rotated in fp64 so that small columns keep all their digits."""
        if dtype not in self._rows:
            out = self._features.new_ones(self.count, self.axes.shape[1] + 1, dtype=dtype)
            for at in range(0, self.count, _PREPARE_ROWS):
                block = self._features[at : at + _PREPARE_ROWS].double() - self.mean
                out[at : at + _PREPARE_ROWS, :-1] = block @ self.axes
            self._rows[dtype] = out
        return self._rows[dtype]

    def signs(self, dtype: torch.dtype) -> Tensor:
        """-1 where an item has the class and 1 where not, (N, C')."""
        if dtype not in self._signs:
            self._signs[dtype] = 1 - 2 * self.targets.to(dtype)
        return self._signs[dtype]

    def to_axes(self, weight: Tensor, bias: Tensor) -> Tensor:
        """Weights (C, D) and intercepts (C,) -> parameters (R + 1, C'); 0 for classes without an intercept."""
        weight, bias = weight[self.present].to(self.mean), bias[self.present].to(self.mean)
        bias = torch.where(bias.isfinite(), bias, 0.0) + weight @ self.mean
        return torch.cat([weight @ self.axes, bias[:, None]], dim=1).T

    def from_axes(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters (R + 1, C') -> weights (C', D) and intercepts (C',) for the features as they came."""
        weight = (self.axes @ parameters[:-1]).T
        return weight, parameters[-1] - weight @ self.mean


class _Problem:
    """The objective of one cost / (c N), in the variables of :class:`LogisticPath`, (R + 1, C')."""

    def __init__(self, data: _Data, cost: float) -> None:
        self.data = data
        classes = len(data.present)
        # scikit-learn's binary case penalises the difference of the two rows, w = 2 W_1: |w|^2 = 2 |W|^2.
        doubled = 2.0 if classes == 2 and not data.independent else 1.0
        self.penalty = torch.full_like(data.spread, doubled / (cost * data.count))[:, None]  # (R + 1, 1)
        self.penalty[-1] = 0.0
        curvature = 0.25 if data.independent else 1.0 / max(1, classes)
        # The scale of an axis without variance goes to 0 as the cost grows; it is a divisor.
        tiny = torch.finfo(torch.float32).tiny
        self.scale = (curvature * data.spread[:, None] + self.penalty).clamp_min(tiny).sqrt()  # (R + 1, 1)

    def zeros(self) -> Tensor:
        return self.scale.new_zeros(len(self.scale), len(self.data.present))

    def first_norm(self) -> float:
        """Norm of the gradient by the weights at W = 0, whatever the intercepts."""
        rows, targets = self.data.rows(self.data.dtype), self.data.targets
        if not self.data.independent:
            targets = nn.functional.one_hot(targets, len(self.data.present))
        gradient = (rows.T @ targets.to(rows)).double() / self.data.count  # (R + 1, C')
        return float((gradient / self.scale)[:-1].norm())

    def evaluate(self, x: Tensor, dtype: torch.dtype) -> _Point:
        """Value and gradient at x (P,), fp64; the sums over N rows are computed in ``dtype``."""
        data = self.data
        parameters = x.view(len(self.scale), -1) / self.scale
        factors = parameters.to(dtype)
        rows = data.rows(dtype)
        total = x.new_zeros(())
        summed = torch.zeros_like(factors)
        size = max(_BLOCK_ROWS, _BLOCK_ELEMENTS // max(1, factors.shape[1]))
        for at in range(0, data.count, size):
            block = rows[at : at + size]  # (n, R + 1)
            logits = block @ factors  # (n, C')
            if data.independent:
                losses, residual = _binary(logits, data.signs(dtype)[at : at + size])
            else:
                losses, residual = _softmax(logits, data.targets[at : at + size, None])
            total += losses.sum(dtype=torch.float64)
            summed.addmm_(block.T, residual)
        value = total / data.count + (self.penalty * parameters.square()).sum() / 2
        gradient = summed.double() / data.count + self.penalty * parameters
        return _Point(x, float(value), (gradient / self.scale).flatten())


def _softmax(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropies (n, 1) and derivatives (n, C), accurate also where losses are tiny."""
    probability = logits.softmax(dim=1)
    own = probability.gather(1, targets)
    residual = probability.scatter_(1, targets, 0.0)
    others = residual.sum(dim=1, keepdim=True)  # 1 - own, without its rounding
    residual.scatter_(1, targets, -others)
    losses = torch.where(others < 0.5, -torch.log1p(-others), -own.log())
    underflow = losses.isinf()[:, 0]
    if bool(underflow.any()):  # own rounds to 0
        losses[underflow] = -logits[underflow].log_softmax(dim=1).gather(1, targets[underflow])
    return losses, residual


def _binary(logits: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross entropies and their derivatives, (n, C) each."""
    wrong = signs * logits
    return nn.functional.softplus(wrong), signs * wrong.sigmoid()


def _principal_axes(features: Tensor, mean: Tensor) -> Tensor:
    """Orthonormal axes (D, R) fp64 that span all rows minus their mean."""
    count, dim = features.shape
    if count <= dim:
        _, sizes, axes = torch.linalg.svd(features.double() - mean, full_matrices=False)
        nonzero = sizes > sizes.max() * dim * torch.finfo(torch.float64).eps
        nonzero[0] = True  # where all rows are equal, one axis along which they are 0
        return axes[nonzero].T
    product = mean.new_zeros(dim, dim)
    for rows in features.split(_PREPARE_ROWS):
        wide = rows.double() - mean
        product.addmm_(wide.T, wide)
    return torch.linalg.eigh(product).eigenvectors


def _check(features: Tensor, targets: Tensor, num_classes: int) -> None:
    if features.ndim != 2 or len(features) == 0 or len(targets) != len(features):
        raise ValueError(
            f"features, targets: got {tuple(features.shape)}, {tuple(targets.shape)}; expected (N, D) with N >= 1 "
            "and a target for each row."
        )
    if targets.ndim == 1:
        if targets.is_floating_point() or not 0 <= int(targets.min()) <= int(targets.max()) < num_classes:
            raise ValueError(f"targets: expected int64 classes below num_classes={num_classes}.")
    elif targets.shape != (len(features), num_classes) or not bool(((targets == 0) | (targets == 1)).all()):
        raise ValueError(
            f"targets: got {tuple(targets.shape)}; expected 0 and 1, ({len(features)}, {num_classes})."
        )
    check_features(features)
