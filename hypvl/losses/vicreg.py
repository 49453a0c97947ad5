"""VICReg: two views agree (invariance), every column varies (variance), and no two do alike (covariance)."""

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import number, one_of
from hypvl.geometry.sphere import normalize
from hypvl.losses.base import PairContext, View
from hypvl.losses.distillation import Distillation
from hypvl.numerics import full_precision

Variant: TypeAlias = Literal["original", "itra"]


@full_precision
def invariance(x: Tensor, y: Tensor) -> Tensor:
    """Mean over all entries of ``(x - y)^2``; (B, D) each.

    Example:
        >>> invariance(torch.ones(2, 2), torch.zeros(2, 2))
        tensor(1.)
    """
    return (x - y).square().mean()


@full_precision
def variance_hinge(x: Tensor, *, eps: float = 1e-4) -> Tensor:
    """``mean_d relu(1 - sqrt(var_d + eps))`` of the columns of (N, D); var over N - 1, 0 for one row.

    Example:
        >>> variance_hinge(torch.zeros(4, 2), eps=0.0001)  # 1 - sqrt(eps)
        tensor(0.9900)
    """
    variance = (x - x.mean(0)).square().sum(0) / max(1, len(x) - 1)  # (D,)
    return (1 - (variance + eps).sqrt()).relu().mean()


@full_precision
def covariance_penalty(x: Tensor) -> Tensor:
    """``1/D sum_{k != l} C_kl^2``, C the covariance of the columns of (N, D) over N - 1.

    Example:
        >>> covariance_penalty(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
        tensor(4.)
    """
    centred = x - x.mean(0)
    covariance = centred.mT @ centred / max(1, len(x) - 1)  # (D, D)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / x.shape[1]


@configurable("train")
class VICReg(Distillation):
    """The weighted sum of the three.

    Formula: ``l invariance(x, y) + m [hinge(x) + hinge(y)] / 2 + n [penalty(x) + penalty(y)]``. Hinge and penalty take
    the rows of every rank. ``itra`` makes the rows of length 1 and takes those of one rank: a column's deviation is
    then at most about 1 / sqrt(D), and no hinge is ever satisfied.

    Args:
        student, teacher: The views, whose roles are the same.
        invariance_weight, variance_weight, covariance_weight: l, m, n >= 0.
        eps: Added to the variances, >= 0.
        variant: Which.
        detach_teacher: Whether no gradient flows to the features of the teacher; as published, it does.

    Raises:
        ValueError: on a CPU, for finite features whose fourth powers sum to infinity. On a device, which would have to
            be waited for, the value is infinite, and training skips and counts the step.

    Source: Bardes et al. 2022 (arXiv 2105.04906), section 4.
    """

    def __init__(
        self,
        *,
        student: str | View,
        teacher: str | View,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
        eps: float = 1e-4,
        variant: Variant = "original",
        detach_teacher: bool = False,
    ) -> None:
        one_of("variant", variant, Variant)
        super().__init__(student=student, teacher=teacher, detach_teacher=detach_teacher)
        self.invariance_weight = number("invariance_weight", invariance_weight, least=0)
        self.variance_weight = number("variance_weight", variance_weight, least=0)
        self.covariance_weight = number("covariance_weight", covariance_weight, least=0)
        self.eps = number("eps", eps, least=0)
        self.variant = variant

    def forward(self, ctx: PairContext) -> Tensor:
        local, every = self.features(ctx), self.features(ctx, gathered=self.variant == "original")
        if self.variant == "itra":
            local = every = (normalize(every[0]), normalize(every[1]))
        hinges = torch.stack([variance_hinge(z, eps=self.eps) for z in every])
        penalties = torch.stack([covariance_penalty(z) for z in every])
        value = (
            self.invariance_weight * invariance(*local)
            + self.variance_weight * hinges.mean()
            + self.covariance_weight * penalties.sum()
        )
        _refuse_overflow(value, every)
        return value


def _refuse_overflow(value: Tensor, features: tuple[Tensor, Tensor]) -> None:
    if value.device.type != "cpu" or torch.compiler.is_compiling() or bool(value.detach().isfinite()):
        return
    largest = float(torch.stack([x.detach().abs().amax() for x in features]).amax())
    if math.isfinite(largest):
        raise ValueError(
            f"features: got numbers up to {largest:.3g}; the sum of their squared covariances does not fit into "
            f"{value.dtype}; expected smaller ones: features of that size have diverged."
        )
