"""L2-regularised logistic regression along a path of costs, with scikit-learn's optimum."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from hypvl.checks import one_of
from hypvl.errors import UserError
from hypvl.evaluation.probes.lbfgs import Point, minimise

#: What the work is done in: ``"mixed"`` is fp32 as far as that goes, then fp64.
Precision: TypeAlias = Literal["mixed", "fp64", "fp32"]

# Logits of a block of rows that stay in the processor's cache; and at least so many rows, for the matrix products.
_BLOCK_ELEMENTS, _BLOCK_ROWS = 1 << 19, 512
_PREPARE_ROWS = 1 << 14
# What rounding leaves of a gradient: relative to the value, with which it vanishes where classes are apart, and
# relative to what tolerances are relative to (fp32 goes no further where fp64 can follow); of a mean of losses.
_FLOORS = {"mixed": 1e-13, "fp64": 1e-13, "fp32": 1e-7}
_FINEST = {torch.float64: 0.0, torch.float32: 2e-5}
_NOISE = {torch.float64: 8 * torch.finfo(torch.float64).eps, torch.float32: torch.finfo(torch.float32).eps}
_PASSES: dict[str, tuple[torch.dtype, ...]] = {
    "mixed": (torch.float32, torch.float64),
    "fp64": (torch.float64,),
    "fp32": (torch.float32,),
}


@dataclass(frozen=True)
class LogisticModels:
    """One classifier per cost.

    Attributes:
        costs: K inverse strengths of the penalty.
        weight: (K, C, D) fp64. A class without training items has 0 here and a bias of minus infinity.
        bias: (K, C) fp64.
        independent: Whether each class is a yes or no of its own (several labels an item).
        converged: Per cost, whether the gradient got within the tolerance.
        gradient_norm: Per cost, as :class:`LogisticPath` measures it.
        iterations: Per cost.
        evaluations: Passes over the data, all costs together.
    """

    costs: tuple[float, ...]
    weight: Tensor
    bias: Tensor
    independent: bool
    converged: tuple[bool, ...]
    gradient_norm: tuple[float, ...]
    iterations: tuple[int, ...]
    evaluations: int

    def probabilities(self, features: Tensor, which: int) -> Tensor:
        """Of classifier ``which``: (N, D) -> (N, C); rows add up to 1 unless the classes are independent."""
        weight, bias = self.weight[which], self.bias[which]
        blocks = []
        for rows in features.split(max(_BLOCK_ROWS, _BLOCK_ELEMENTS // max(1, len(bias)))):
            logits = torch.addmm(bias, rows.to(weight.device, weight.dtype), weight.T)  # (n, C)
            blocks.append((logits.sigmoid() if self.independent else logits.softmax(dim=1)).cpu())
        return torch.cat(blocks)


class LogisticPath:
    """Linear classifiers of the same data for any number of costs, each begun where its neighbours point to.

    For a cost c: minimise c * sum of losses + |W|^2 / 2, the intercept free. The loss is the cross entropy of the
    softmax; with two classes W is the difference of their rows, as in scikit-learn's binary case, so that the optimum
    is that of ``LogisticRegression(C=c)`` for any number of classes. With targets (N, C) it is the binary cross
    entropy of each class, which gives the optimum of one binary ``LogisticRegression`` per class.

    The variables are changed first, which does not change the optimum: features are centred and rotated into their
    principal axes (also: into the at most N - 1 that there are), and axis j is scaled by sqrt(h var_j + 1 / (c N)),
    the curvature of loss and penalty at W = 0 (h = 1/C, for independent classes 1/4). Badly scaled and correlated
    features cost no extra iterations then.

    Along the logarithm of c the optimum moves in a nearly straight line. A cost between two that are known begins at
    the line through them, one beyond them at its continuation, where that is better than the nearest.

    Args:
        features: (N, D), finite; where they are is where the work is done.
        targets: (N,) int64 below ``num_classes``, or (N, C) of 0 and 1.
        num_classes: C.
        tolerance: A cost has converged when the gradient of the objective divided by c N, in the variables above, has
            at most this Euclidean norm; less, in proportion, where that value is below 1 (where classes are apart
            and the penalty is weak, both go to 0 long before the optimum), and where the gradient by the weights
            begins below 1 (where the penalty is strong, all weights are small, but their order counts). The value
            is then above the optimum's by about its part of 4 tolerance^2.
        max_iterations: Of L-BFGS, for each cost.
        precision: What the work is done in.

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
        if tolerance <= 0:
            raise ValueError(f"tolerance: got {tolerance}; expected a positive number.")
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.precision: Precision = precision
        self.num_classes = num_classes
        self._data = _Data(features, targets, num_classes, dtype=_PASSES[precision][0])
        self._known: dict[float, Tensor] = {}  # cost -> parameters (R + 1, C') fp64, not scaled

    def begin_at(self, models: LogisticModels) -> None:
        """Take classifiers of other data with the same classes for those of these costs, to begin from."""
        for cost, weight, bias in zip(models.costs, models.weight, models.bias, strict=True):
            self._known[cost] = self._data.entering(weight, bias)

    def fit(self, costs: Sequence[float]) -> LogisticModels:
        """Classifiers for some costs, in their order; a cost that is known is only checked again.

        Raises:
            ValueError: for costs that are no positive numbers.
        """
        costs = tuple(float(cost) for cost in costs)
        if not costs or not all(0 < c < math.inf for c in costs):
            raise ValueError(f"costs: got {list(costs)}; expected positive numbers, at least one.")
        found = {cost: self._solve(cost) for cost in sorted(set(costs))}
        whole = [self._whole(self._known[cost]) for cost in costs]
        return LogisticModels(
            costs=costs,
            weight=torch.stack([weight for weight, _ in whole]),
            bias=torch.stack([bias for _, bias in whole]),
            independent=self._data.independent,
            converged=tuple(found[cost].converged for cost in costs),
            gradient_norm=tuple(found[cost].gradient_norm for cost in costs),
            iterations=tuple(found[cost].iterations for cost in costs),
            evaluations=sum(one.evaluations for one in found.values()),
        )

    def _solve(self, cost: float) -> "_Solved":
        problem = _Problem(self._data, cost)
        pull = min(1.0, problem.pull())
        evaluations, iterations = 0, 0
        starts = [start * problem.scale for start in self._starts(cost)] or [problem.zeros()]
        floor = min(_FLOORS[self.precision], self.tolerance)

        def done(value: float, norm: float, tolerance: float = self.tolerance) -> bool:
            return norm <= max(tolerance * min(pull, value), floor * min(1.0, value))

        for dtype in _PASSES[self.precision]:
            finest = max(self.tolerance, _FINEST[dtype] if self.precision == "mixed" else 0.0)

            def evaluate(x: Tensor, dtype: torch.dtype = dtype) -> tuple[float, Tensor]:
                return problem.evaluate(x, dtype)

            points = [Point(x.flatten(), *evaluate(x.flatten())) for x in starts]
            start = min(points, key=lambda p: p.value if math.isfinite(p.value) else math.inf)
            end = minimise(
                evaluate,
                start,
                done=partial(done, tolerance=finest),
                max_iterations=self.max_iterations - iterations,
                noise=_NOISE[dtype],
            )
            evaluations += len(points) + end.evaluations
            iterations += end.iterations
            starts = [end.point.x]
            norm = float(end.point.gradient.norm())
            converged = done(end.point.value, norm)
            if converged or iterations >= self.max_iterations:
                break
        self._known[cost] = end.point.x.view(problem.scale.shape[0], -1) / problem.scale
        return _Solved(converged, norm, iterations, evaluations)

    def _starts(self, cost: float) -> list[Tensor]:
        """Where to begin, not scaled: parameters of this cost, or what those of its neighbours point to."""
        known = self._known
        if cost in known or not known:
            return [known[cost]] if known else []
        below = sorted(c for c in known if c < cost)
        above = sorted(c for c in known if c > cost)
        if below and above:
            share = math.log(cost / below[-1]) / math.log(above[0] / below[-1])
            return [torch.lerp(known[below[-1]], known[above[0]], share)]
        near = (below or above)[-1 if below else 0]
        starts = [known[near]]
        if len(below) > 1:
            before = below[-2]
            ahead = math.log(cost / before) / math.log(near / before)
            starts.append(torch.lerp(known[before], known[near], ahead))
        return starts

    def _whole(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (C, D) and intercepts (C,) of all classes, for the features as they came."""
        data = self._data
        weight, bias = data.leaving(parameters)
        full_weight = weight.new_zeros(self.num_classes, weight.shape[1])
        full_bias = bias.new_full((self.num_classes,), -math.inf)
        full_bias[data.always] = math.inf
        full_weight[data.present], full_bias[data.present] = weight, bias
        return full_weight, full_bias


def fit_logistic(
    features: Tensor,
    targets: Tensor,
    *,
    costs: Sequence[float],
    num_classes: int,
    tolerance: float = 5e-4,
    max_iterations: int = 1000,
    precision: Precision = "mixed",
) -> LogisticModels:
    """Linear classifiers for some costs, fitted at once; see :class:`LogisticPath` for all of it."""
    one_of("precision", precision, Precision)
    path = LogisticPath(
        features,
        targets,
        num_classes=num_classes,
        tolerance=tolerance,
        max_iterations=max_iterations,
        precision=precision,
    )
    return path.fit(costs)


@dataclass(frozen=True)
class _Solved:
    converged: bool
    gradient_norm: float
    iterations: int
    evaluations: int


class _Data:
    """Features along their principal axes with a column of ones, (N, R + 1), and what the targets are there.

    Attributes:
        present: Classes that have something to learn, ascending (C',).
        always: Classes that every item has, with several labels an item.
        spread: Mean squares of the columns, (R + 1,).
    """

    def __init__(self, features: Tensor, targets: Tensor, num_classes: int, *, dtype: torch.dtype) -> None:
        targets = targets.to(features.device)
        self.dtype = dtype  # what is worked in first
        self.independent = targets.ndim == 2
        self.count = len(features)
        counts = targets.sum(0) if self.independent else targets.bincount(minlength=num_classes)
        some = (counts > 0) & (counts < self.count) if self.independent else counts > 0
        self.present = some.nonzero()[:, 0]
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
        self.spread = self.mean.new_zeros(self.axes.shape[1] + 1)
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

    def entering(self, weight: Tensor, bias: Tensor) -> Tensor:
        """Weights (C, D) and intercepts (C,) along these axes; classes that were not known begin at 0."""
        weight, bias = weight[self.present].to(self.mean), bias[self.present].to(self.mean)
        bias = torch.where(bias.isfinite(), bias, 0.0) + weight @ self.mean
        return torch.cat([weight @ self.axes, bias[:, None]], dim=1).T

    def leaving(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters (R + 1, C') as weights (C', D) and intercepts (C',) for the features as they came."""
        weight = (self.axes @ parameters[:-1]).T
        return weight, parameters[-1] - weight @ self.mean


class _Problem:
    """The objective of one cost divided by c N, in changed variables (R + 1, C'): see :class:`LogisticPath`."""

    def __init__(self, data: _Data, cost: float) -> None:
        self.data = data
        classes = len(data.present)
        # scikit-learn's binary case penalises the difference of the two rows, w = 2 W_1: |w|^2 = 2 |W|^2.
        doubled = 2.0 if classes == 2 and not data.independent else 1.0
        self.penalty = torch.full_like(data.spread, doubled / (cost * data.count))[:, None]  # (R + 1, 1)
        self.penalty[-1] = 0.0
        bend = 0.25 if data.independent else 1.0 / max(1, classes)
        # An axis without spread and a cost without end: nothing may be divided by 0.
        tiny = torch.finfo(torch.float32).tiny
        self.scale = (bend * data.spread[:, None] + self.penalty).clamp_min(tiny).sqrt()  # (R + 1, 1)

    def zeros(self) -> Tensor:
        return self.scale.new_zeros(len(self.scale), len(self.data.present))

    def pull(self) -> float:
        """Norm of the gradient by the weights where they are 0, whatever the intercepts."""
        rows, targets = self.data.rows(self.data.dtype), self.data.targets
        if not self.data.independent:
            targets = nn.functional.one_hot(targets, len(self.data.present))
        pulled = (rows.T @ targets.to(rows)).double() / self.data.count  # (R + 1, C')
        return float((pulled / self.scale)[:-1].norm())

    def evaluate(self, x: Tensor, dtype: torch.dtype) -> tuple[float, Tensor]:
        """Value and gradient (P,) fp64 at x (P,) fp64; what grows with N is done in ``dtype``."""
        data = self.data
        parameters = x.view(len(self.scale), -1) / self.scale
        factors = parameters.to(dtype)
        rows = data.rows(dtype)
        total = x.new_zeros(())
        pulled = torch.zeros_like(factors)
        size = max(_BLOCK_ROWS, _BLOCK_ELEMENTS // max(1, factors.shape[1]))
        for at in range(0, data.count, size):
            block = rows[at : at + size]  # (n, R + 1)
            logits = block @ factors  # (n, C')
            if data.independent:
                losses, residual = _binary(logits, data.signs(dtype)[at : at + size])
            else:
                losses, residual = _softmax(logits, data.targets[at : at + size, None])
            total += losses.sum(dtype=torch.float64)
            pulled.addmm_(block.T, residual)
        value = total / data.count + (self.penalty * parameters.square()).sum() / 2
        gradient = pulled.double() / data.count + self.penalty * parameters
        return float(value), (gradient / self.scale).flatten()


def _softmax(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropies (n, 1) and derivatives (n, C), with all their digits where losses are small."""
    chances = logits.softmax(dim=1)
    own = chances.gather(1, targets)
    residual = chances.scatter_(1, targets, 0.0)
    others = residual.sum(dim=1, keepdim=True)  # 1 - own, without its rounding
    residual.scatter_(1, targets, -others)
    losses = torch.where(others < 0.5, -torch.log1p(-others), -own.log())
    lost = losses.isinf()[:, 0]
    if bool(lost.any()):  # a chance too small for its format
        losses[lost] = -logits[lost].log_softmax(dim=1).gather(1, targets[lost])
    return losses, residual


def _binary(logits: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross entropies and their derivatives, (n, C) each."""
    wrong = signs * logits
    return nn.functional.softplus(wrong), signs * wrong.sigmoid()


def _principal_axes(features: Tensor, mean: Tensor) -> Tensor:
    """Orthonormal axes (D, R) fp64 that hold all rows less their mean."""
    count, dim = features.shape
    if count <= dim:
        _, sizes, axes = torch.linalg.svd(features.double() - mean, full_matrices=False)
        kept = sizes > sizes.max() * dim * torch.finfo(torch.float64).eps
        kept[0] = True  # all rows the same: one axis, along which they are 0
        return axes[kept].T
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


def check_features(features: Tensor) -> None:
    """Refuse features of a model that has diverged.

    Raises:
        UserError: naming the share of NaN and infinite ones.
    """
    bad = int((~features.isfinite()).sum())
    if bad:
        raise UserError(
            f"the model's features: {bad} of {features.numel()} are NaN or infinite; expected numbers. "
            "Its weights have probably diverged: evaluate an earlier checkpoint."
        )
