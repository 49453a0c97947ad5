"""Barlow Twins: the columns of two views should agree, and differ from each other."""

from typing import Literal, TypeAlias

from torch import Tensor

from hypvl import distributed
from hypvl.allowlist import configurable
from hypvl.checks import number, one_of
from hypvl.geometry.sphere import normalize
from hypvl.losses.base import PairContext, View
from hypvl.losses.batch_norm import standardize
from hypvl.losses.distillation import Distillation
from hypvl.numerics import full_precision

Variant: TypeAlias = Literal["original", "itra"]


@full_precision
def barlow_twins(
    x: Tensor, y: Tensor, *, off_diagonal: float = 0.0051, variant: Variant = "original"
) -> Tensor:
    """How far the cross-correlation of columns is from the identity.

    Formula: ``sum_k (C_kk - 1)^2 + lambda sum_{k != l} C_kl^2``, ``C = X' Y / N`` with the N rows of all ranks, and
    columns of mean 0 and variance 1 (a batch norm, eps 1e-5).

    ``itra``: rows have length 1, columns are divided by their length on this rank (not centred), and C is the sum over
    ranks of ``X' Y / B``. Its diagonal is at most W / B, so the first sum never falls below ``D (1 - W / B)^2``.

    Args:
        x, y: (B, D) of this rank.
        off_diagonal: lambda >= 0.
        variant: Which.

    Returns:
        0-dim, >= 0, the same on every rank.

    Source: Zbontar et al. 2021 (arXiv 2103.03230), eq. 1 and 2; lambda: section 2.2.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> bool(barlow_twins(x, x) < barlow_twins(x, -x))
        True
    """
    one_of("variant", variant, Variant)
    if variant == "original":
        x, y = standardize(x), standardize(y)
        count = len(x) * distributed.world_size()
    else:
        x, y = (normalize(normalize(z).mT).mT for z in (x, y))
        count = len(x)
    correlations = distributed.gather((x.mT @ y)[None] / count).sum(0)  # (D, D)
    own = correlations.diagonal()
    others = correlations.square().sum() - own.square().sum()
    return (own - 1).square().sum() + off_diagonal * others


@configurable("train")
class BarlowTwins(Distillation):
    """:func:`barlow_twins` of the features of two views, with the rows of every rank.

    Args:
        student, teacher: The views, whose roles are the same.
        off_diagonal, variant: As :func:`barlow_twins`.
        detach_teacher: Whether no gradient flows to the features of the teacher; as published, it does.

    Source: Barlow Twins (arXiv 2103.03230).
    """

    rings = True

    def __init__(
        self,
        *,
        student: str | View,
        teacher: str | View,
        off_diagonal: float = 0.0051,
        variant: Variant = "original",
        detach_teacher: bool = False,
    ) -> None:
        one_of("variant", variant, Variant)
        super().__init__(student=student, teacher=teacher, detach_teacher=detach_teacher)
        self.off_diagonal = number("off_diagonal", off_diagonal, least=0)
        self.variant = variant

    def forward(self, ctx: PairContext) -> Tensor:
        student, teacher = self.features(ctx)
        return barlow_twins(student, teacher, off_diagonal=self.off_diagonal, variant=self.variant)
