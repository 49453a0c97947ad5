"""L2-regularised logistic regression for all costs of a sweep together, with scikit-learn's optimum."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hypvl.errors import UserError
from hypvl.evaluation.learning.lbfgs import minimise

# Logits of a block of rows, all costs and classes: 2 x 128 MiB in fp64.
_BLOCK_ELEMENTS = 1 << 24
# Mean losses below this are those of classes that are apart.
_SMALL = 1e-2
# What rounding leaves of a gradient.
_FLOORS = {"fp64": 1e-12, "fp32": 1e-6}
_DTYPES = {"fp64": torch.float64, "fp32": torch.float32}


@dataclass(frozen=True)
class LogisticModels:
    """One classifier per cost.

    Attributes:
        costs: K inverse strengths of the penalty.
        weight: (K, C, D). A class without training items has 0 here and a bias of minus infinity.
        bias: (K, C).
        independent: Whether each class is a yes or no of its own (several labels an item).
        converged: Per cost, whether the gradient got within the tolerance.
        gradient_norm: Per cost, as :func:`fit_logistic` measures it.
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
        for rows in features.split(max(1, _BLOCK_ELEMENTS // max(1, len(bias)))):
            logits = torch.addmm(bias, rows.to(weight.device, weight.dtype), weight.T)  # (n, C)
            blocks.append((logits.sigmoid() if self.independent else logits.softmax(dim=1)).cpu())
        return torch.cat(blocks)


def fit_logistic(
    features: Tensor,
    targets: Tensor,
    *,
    costs: Sequence[float],
    num_classes: int,
    start: LogisticModels | None = None,
    tolerance: float = 1e-5,
    max_iterations: int = 1000,
    precision: Literal["fp64", "fp32"] = "fp64",
) -> LogisticModels:
    """Fit a linear classifier for every cost c: minimise c * sum of losses + |W|^2 / 2, the intercept free.

    The loss is the cross entropy of the softmax; with two classes W is the difference of their rows, as in
    scikit-learn's binary case, so that the optimum is that of ``LogisticRegression(C=c)`` for any number of
    classes. With targets (N, C) it is the binary cross entropy of each class, which gives the optimum of one
    binary ``LogisticRegression`` per class.

    The variables are changed first, which does not change the optimum: features are centred and rotated into their
    principal axes (also: into the at most N - 1 that there are), and axis j is scaled by sqrt(h var_j + 1 / (c N)),
    the curvature of loss and penalty at W = 0 (h = 1/C, for independent classes 1/4). Badly scaled and correlated
    features cost no extra iterations then. All costs share each pass over the data.

    Args:
        features: (N, D), finite; where they are is where the work is done.
        targets: (N,) int64 below ``num_classes``, or (N, C) of 0 and 1.
        costs: Inverse strengths of the penalty, > 0 (scikit-learn's C).
        num_classes: C.
        start: Earlier classifiers of the same classes to start from, the nearest cost for each.
        tolerance: A cost has converged when the gradient of the objective divided by c N, in the variables above, has
            at most this Euclidean norm; less, in proportion, where that value is below 0.01 (where classes are apart
            and the penalty is weak, both go to 0 long before the optimum), and where the gradient by the weights
            begins below 1 (where the penalty is strong, all weights are small, but their order counts).
        max_iterations: Of L-BFGS, for each cost.
        precision: What the work is done in. ``"fp32"`` halves the memory and reaches about 1e-6.

    Raises:
        ValueError: for targets or costs that do not fit.
        UserError: when features are NaN or infinite.

    Source: Pedregosa et al. 2011 (scikit-learn's objective); Boehning 1992, Multinomial logistic regression
        algorithm (the curvature at 0 and its bound).
    """
    _check(features, targets, costs, num_classes)
    dtype = _DTYPES[precision]
    independent = targets.ndim == 2
    present = _present_classes(targets, num_classes)
    problem = _Problem(features.to(dtype), targets.to(features.device), present, independent, costs)
    begin = problem.zeros() if start is None else problem.entering(start)
    limits = (tolerance * problem.pull().clamp_max(1.0)).clamp_min(min(tolerance, _FLOORS[precision]))
    found = minimise(
        problem.evaluate, begin, tolerance=limits, max_iterations=max_iterations, small_value=_SMALL
    )
    weight, bias = problem.leaving(found.x)
    full_weight = weight.new_zeros(len(costs), num_classes, features.shape[1])
    full_bias = bias.new_full((len(costs), num_classes), -math.inf)
    if independent:
        always = (targets.sum(dim=0) == len(targets)).to(bias.device)
        full_bias[:, always] = math.inf
    full_weight[:, present], full_bias[:, present] = weight, bias
    return LogisticModels(
        costs=tuple(float(c) for c in costs),
        weight=full_weight,
        bias=full_bias,
        independent=independent,
        converged=tuple(found.converged.tolist()),
        gradient_norm=tuple(found.gradient_norm.tolist()),
        iterations=tuple(found.iterations.tolist()),
        evaluations=found.evaluations,
    )


class _Problem:
    """The objective divided by c N in changed variables (K, (R + 1) * C): see :func:`fit_logistic`."""

    def __init__(
        self, features: Tensor, targets: Tensor, present: Tensor, independent: bool, costs: Sequence[float]
    ) -> None:
        self.independent = independent
        self.present = present
        self.count = len(features)
        self.classes = len(present)
        self.mean = features.mean(dim=0)
        self.axes, self.rotated = _principal_axes(features - self.mean)  # (D, R), (N, R)
        if independent:
            self.targets = targets[:, present].to(features.dtype)
        else:
            place = torch.full((int(present.max()) + 1,), -1, device=features.device)
            place[present] = torch.arange(self.classes, device=features.device)
            self.targets = place[targets]
        # scikit-learn's binary case penalises the difference of the two rows, w = 2 W_1: |w|^2 = 2 |W|^2.
        doubled = 2.0 if self.classes == 2 and not independent else 1.0
        self.penalty = doubled / (
            torch.tensor(list(costs), dtype=features.dtype, device=features.device) * self.count
        )  # (K,)
        self.log_costs = torch.tensor([math.log(c) for c in costs])
        bend = 0.25 if independent else 1.0 / self.classes
        spread = bend * self.rotated.square().mean(dim=0)  # (R,)
        # An axis without spread and a cost without end: the penalty is then all there is, and it may be 0 in fp32.
        tiny = torch.finfo(features.dtype).tiny
        scale = (spread + self.penalty[:, None]).clamp_min(tiny).sqrt()  # (K, R)
        edge = scale.new_full((len(scale), 1), math.sqrt(bend))
        self.scale = torch.cat([scale, edge], dim=1)[:, :, None]  # (K, R + 1, 1)

    def pull(self) -> Tensor:
        """Norm of the gradient by the weights where they are 0, whatever the intercepts: (K,)."""
        targets = self.targets if self.independent else nn.functional.one_hot(self.targets, self.classes)
        pulled = self.rotated.T @ targets.to(self.rotated) / self.count  # (R, C)
        return (pulled / self.scale[:, :-1]).flatten(1).norm(dim=1)

    def zeros(self) -> Tensor:
        return self.scale.new_zeros(len(self.scale), self.scale.shape[1] * self.classes)

    def entering(self, models: LogisticModels) -> Tensor:
        """Earlier classifiers in these variables; classes they did not know begin at 0."""
        log_costs = torch.tensor([math.log(c) for c in models.costs])
        nearest = (self.log_costs[:, None] - log_costs[None]).abs().argmin(dim=1).to(models.weight.device)
        weight = models.weight[nearest][:, self.present].to(self.scale)  # (K, C, D)
        bias = models.bias[nearest][:, self.present].to(self.scale)
        bias = torch.where(bias.isfinite(), bias, 0.0)
        bias = bias + weight @ self.mean
        stacked = torch.cat([weight @ self.axes, bias[..., None]], dim=2)  # (K, C, R + 1)
        return (stacked.transpose(1, 2) * self.scale).flatten(1)

    def leaving(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """These variables as weights (K, C, D) and intercepts (K, C) for the features as they came."""
        stacked = (x.view(len(x), -1, self.classes) / self.scale).transpose(1, 2)  # (K, C, R + 1)
        weight = stacked[..., :-1] @ self.axes.T
        return weight, stacked[..., -1] - weight @ self.mean

    def evaluate(self, x: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """(A, P) -> values (A,), gradients (A, P)."""
        scale, penalty = self.scale[which], self.penalty[which]
        parameters = x.view(len(x), -1, self.classes) / scale  # (A, R + 1, C)
        weight, bias = parameters[:, :-1], parameters[:, -1]
        flat = weight.transpose(0, 1).flatten(1)  # (R, A C)
        value = (penalty / 2 * weight.square().sum(dim=(1, 2))).double()
        gradient = torch.cat([penalty[:, None, None] * weight, torch.zeros_like(bias)[:, None]], dim=1)
        rows = max(1, _BLOCK_ELEMENTS // max(1, flat.shape[1]))
        for begin in range(0, self.count, rows):
            block = self.rotated[begin : begin + rows]  # (n, R)
            targets = self.targets[begin : begin + rows]
            logits = (block @ flat).view(len(block), len(x), self.classes) + bias  # (n, A, C)
            losses, residual = self._loss(logits, targets)
            value = value + losses / self.count
            pulled = block.T @ residual.flatten(1) / self.count  # (R, A C)
            gradient[:, :-1] += pulled.view(-1, len(x), self.classes).transpose(0, 1)
            gradient[:, -1] += residual.sum(dim=0) / self.count
        return value, (gradient / scale).flatten(1)

    def _loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of losses (A,) in fp64, and their derivatives by the logits (n, A, C)."""
        if self.independent:
            wanted = targets[:, None]  # (n, 1, C)
            losses = nn.functional.softplus(logits) - wanted * logits
            return losses.sum(dim=(0, 2), dtype=torch.float64), logits.sigmoid() - wanted
        logs = logits.log_softmax(dim=2)
        index = targets[:, None, None].expand(-1, logits.shape[1], 1)
        total = -logs.gather(2, index)[..., 0].sum(dim=0, dtype=torch.float64)
        residual = logs.exp_()
        residual.scatter_add_(2, index, residual.new_full((1, 1, 1), -1.0).expand(index.shape))
        return total, residual


def _principal_axes(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal axes (D, R) that hold all rows, and the rows along them (N, R)."""
    count, dim = centred.shape
    if count <= dim:
        _, sizes, axes = torch.linalg.svd(centred, full_matrices=False)
        kept = sizes > sizes.max() * dim * torch.finfo(centred.dtype).eps
        kept[0] = True  # all rows the same: one axis, along which they are 0
        axes = axes[kept].T
    else:
        # In fp64 also for fp32 features; only how fast the solver gets on depends on it, never the optimum.
        product = centred.new_zeros(dim, dim, dtype=torch.float64)
        for rows in centred.split(1 << 16):
            product += rows.T.double() @ rows.double()
        axes = torch.linalg.eigh(product).eigenvectors.to(centred.dtype)
    return axes, centred @ axes


def _present_classes(targets: Tensor, num_classes: int) -> Tensor:
    """Classes that have something to learn, ascending (int64)."""
    if targets.ndim == 1:
        return targets.unique()
    count = targets.sum(dim=0)
    return ((count > 0) & (count < len(targets))).nonzero()[:, 0]


def _check(features: Tensor, targets: Tensor, costs: Sequence[float], num_classes: int) -> None:
    if features.ndim != 2 or len(features) == 0 or len(targets) != len(features):
        raise ValueError(
            f"features, targets: got {tuple(features.shape)}, {tuple(targets.shape)}; expected (N, D) with N >= 1 "
            "and a target for each row."
        )
    if not costs or not all(0 < c < math.inf for c in costs):
        raise ValueError(f"costs: got {list(costs)}; expected positive numbers, at least one.")
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
