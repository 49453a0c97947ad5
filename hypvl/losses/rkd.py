"""Relational knowledge distillation (RKD): distances of pairs and angles of triples agree with the teacher's."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from hypvl import distributed
from hypvl.allowlist import configurable
from hypvl.checks import one_of, whole_number_or_none
from hypvl.geometry.sphere import normalize
from hypvl.losses.base import LossTerm, Model, PairContext, View
from hypvl.losses.distillation import Distillation, reduction
from hypvl.numerics import full_precision, inner_products, straight_distances

Variant: TypeAlias = Literal["original", "itra"]

_CLOSEST = 1e-6  # distances below count as this one
_NOWHERE = 1e-12  # a row so near has no direction
_CHUNK = 2**20  # entries of the angles of a chunk of anchors, unless one anchor has more


@full_precision
def distance_loss(student: Tensor, teacher: Tensor, all_student: Tensor, all_teacher: Tensor) -> Tensor:
    """Distances of pairs, in units of their mean, against the teacher's.

    Formula: ``mean_ij SmoothL1(d_ij / mean d - d'_ij / mean d')``, d those of the student, d' of the teacher. Means of
    d are over the pairs i != j, the outer one over all N^2. Distances below 1e-6 count as 1e-6.

    Args:
        student, teacher: (B, D) and (B, E), this rank's rows: the i.
        all_student, all_teacher: (N, D) and (N, E), the rows of every rank: the j.

    Returns:
        0-dim, >= 0. The mean over ranks is that of one process; one row alone gives 0.

    Source: Park et al. 2019 (arXiv 1904.05068), eq. 6 to 8.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 0.0]])
        >>> distance_loss(2 * x, x, 2 * x, x)  # the scale does not count
        tensor(0.)
    """
    parts = [_relative_distances(student, all_student), _relative_distances(teacher, all_teacher)]  # (B, N)
    return F.smooth_l1_loss(*_same_dtype(*parts))


def _relative_distances(x: Tensor, every: Tensor) -> Tensor:
    scale = reduction(every)
    x, every = x / scale, every / scale
    distances = straight_distances(x, every).clamp(min=_CLOSEST)  # (B, N)
    first = distributed.rank() * len(x)
    own = torch.arange(first, first + len(x), device=x.device)
    distances = distances.scatter(1, own[:, None], 0.0)
    total = distributed.gather(distances.sum()[None]).sum()
    mean = total / max(1, len(every) * (len(every) - 1))
    return distances / torch.where(mean > 0, mean, 1.0)


@full_precision
def angle_loss(
    student: Tensor,
    teacher: Tensor,
    all_student: Tensor,
    all_teacher: Tensor,
    *,
    anchors_at_once: int | None = None,
) -> Tensor:
    """Angles of triples against the teacher's.

    Formula: ``mean_ijk SmoothL1(u_ij.u_ik - u'_ij.u'_ik)`` over all N^3, u_ij the unit vector from row i to row j and 0
    from a row to an equal one. Value and gradients are computed for some anchors i at a time: memory grows with N^2,
    not with its cube.

    Args:
        student, teacher, all_student, all_teacher: As :func:`distance_loss`; the i are the anchors.
        anchors_at_once: Whose (n, N, N) angles are held; None = as many as give 2^20 entries.

    Returns:
        0-dim, >= 0. The mean over ranks is that of one process.

    Source: Park et al. 2019 (arXiv 1904.05068), eq. 9 to 11.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 0.0]])
        >>> angle_loss(2 * x, x, 2 * x, x)
        tensor(0.)
    """
    count = len(all_student)
    rows = anchors_at_once if anchors_at_once is not None else max(1, _CHUNK // count**2)
    scale_x, scale_y = reduction(all_student), reduction(all_teacher)
    x, all_x = student / scale_x, all_student / scale_x
    y, all_y = teacher / scale_y, all_teacher / scale_y
    total: Tensor = _AngleSum.apply(x, all_x, y, all_y, rows)
    return total / (len(x) * count**2)


class _AngleSum(torch.autograd.Function):
    """Sum over anchors and all j, k, with its gradients: the angles of a chunk are not needed a second time."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, all_x: Tensor, y: Tensor, all_y: Tensor, rows: int
    ) -> Tensor:  # (B, D), (N, D), (B, E), (N, E)
        dtype = torch.promote_types(x.dtype, y.dtype)
        needed: Sequence[bool] = ctx.needs_input_grad
        gradients = [torch.zeros_like(z) for z in (x, all_x, y, all_y)]
        total = x.new_zeros((), dtype=dtype)
        for start in range(0, len(x), rows):
            part = slice(start, start + rows)
            sides = (_Directions(x[part], all_x), _Directions(y[part], all_y))
            gap = sides[0].cosines().to(dtype) - sides[1].cosines().to(dtype)  # (b, N, N)
            slope = gap.clamp(-1, 1)
            total += (slope * (gap - slope / 2)).sum()  # SmoothL1
            for side, anchors, every, sign in zip(
                sides, gradients[::2], gradients[1::2], (1, -1), strict=True
            ):
                if needed[0 if sign > 0 else 2] or needed[1 if sign > 0 else 3]:
                    moved = side.backward(sign * slope)  # (b, N, D)
                    anchors[part] = -moved.sum(1)
                    every += moved.sum(0)
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        found = zip(ctx.saved_tensors, ctx.needs_input_grad, strict=False)
        return *(grad.to(z.dtype) * z if needed else None for z, needed in found), None


class _Directions:
    """Unit vectors from some anchors (b, D) to all rows (N, D)."""

    def __init__(self, anchors: Tensor, every: Tensor) -> None:
        directions = every - anchors[:, None]  # (b, N, D)
        length = torch.linalg.vector_norm(directions, dim=-1, keepdim=True)
        apart = ~(length <= _NOWHERE)  # so that NaN stays NaN
        self.factor = torch.where(apart, 1 / torch.where(apart, length, 1.0), 0.0)
        self.units = directions * self.factor

    def cosines(self) -> Tensor:
        """Of the angles at each anchor, (b, N, N)."""
        return inner_products(self.units, self.units)

    def backward(self, slope: Tensor) -> Tensor:
        """Gradient of the rows from the (symmetric) one of the cosines: (b, N, N) -> (b, N, D)."""
        moved = 2 * inner_products(slope.to(self.units.dtype), self.units.mT)
        along = (moved * self.units).sum(-1, keepdim=True) * self.units
        return (moved - along) * self.factor


def _same_dtype(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(a.dtype, b.dtype)
    return a.to(dtype), b.to(dtype)


class _Relations(Distillation):
    """A term about the relations of the rows of every rank; rows of this rank are the first of each tuple."""

    def __init__(
        self,
        *,
        student: str | View,
        teacher: str | View,
        variant: Variant = "original",
        detach_teacher: bool = True,
    ) -> None:
        one_of("variant", variant, Variant)
        super().__init__(student=student, teacher=teacher, detach_teacher=detach_teacher)
        self.variant = variant

    def check(self, models: Mapping[str, Model]) -> None:
        """Features of any sizes have relations, so that only unknown encoders are refused."""
        LossTerm.check(self, models)

    def relations(self, ctx: PairContext) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows of student and teacher, of this rank and of all."""
        rows = (*self.features(ctx), *self.features(ctx, gathered=True))
        return tuple(normalize(x) for x in rows) if self.variant == "itra" else rows  # type: ignore[return-value]  # four of them


@configurable("train")
class RKDDistance(_Relations):
    """:func:`distance_loss` of the features of two views.

    Args:
        student, teacher, detach_teacher: As :class:`~hypvl.losses.distillation.Distillation`; features may have other
            sizes.
        variant: ``"itra"`` makes the rows of length 1 first.

    Source: RKD (arXiv 1904.05068); there its weight is 1, in ITRA 0.5.
    """

    def forward(self, ctx: PairContext) -> Tensor:
        return distance_loss(*self.relations(ctx))


@configurable("train")
class RKDAngle(_Relations):
    """:func:`angle_loss` of the features of two views.

    Args:
        student, teacher, detach_teacher, variant: As :class:`RKDDistance`.
        anchors_at_once: As :func:`angle_loss`.

    Source: RKD (arXiv 1904.05068); there its weight is 2, in ITRA 1.
    """

    def __init__(
        self,
        *,
        student: str | View,
        teacher: str | View,
        variant: Variant = "original",
        anchors_at_once: int | None = None,
        detach_teacher: bool = True,
    ) -> None:
        super().__init__(student=student, teacher=teacher, variant=variant, detach_teacher=detach_teacher)
        self.anchors_at_once = whole_number_or_none("anchors_at_once", anchors_at_once, least=1)

    def forward(self, ctx: PairContext) -> Tensor:
        return angle_loss(*self.relations(ctx), anchors_at_once=self.anchors_at_once)
