"""What terms share in which one encoder, the teacher, shows another one, the student, what its features should be."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hypvl import distributed
from hypvl.checks import one_of
from hypvl.losses.base import LossTerm, Model, PairContext, View, check_same_width

# Features beyond this are brought to it by a common factor before their squares are summed.
_LARGE = 1e6


class Distillation(LossTerm):
    """A term about the features of two views, whose rows belong together.

    Which of two towers teaches is said by which view is which: ``student="image", teacher="text"`` or the reverse. The
    teacher may be another encoder: ``teacher="image@ema"``.

    Args:
        student, teacher: The views.
        detach_teacher: Whether no gradient flows to the features of the teacher. It matters only where the teacher's
            view is one of the student model's own.
    """

    def __init__(self, *, student: str | View, teacher: str | View, detach_teacher: bool = True) -> None:
        super().__init__()
        self.student, self.teacher = self.declare(student, teacher)
        self.detach_teacher = one_of("detach_teacher", detach_teacher, (True, False))

    def check(self, models: Mapping[str, Model]) -> None:
        """Also refuse features of different sizes."""
        super().check(models)
        check_same_width(models, self.student, self.teacher)

    def features(self, ctx: PairContext, *, gathered: bool = False) -> tuple[Tensor, Tensor]:
        """Features of the student and of the teacher, (B, D) each, or (N, D) of all ranks."""
        teacher = ctx.features(self.teacher, gathered)
        return ctx.features(self.student, gathered), teacher.detach() if self.detach_teacher else teacher


def reduction(*features: Tensor) -> Tensor:
    """A number to divide features by so that their squares do not overflow: 1 unless some are beyond 1e6.

    0-dim, without gradient, the same on every rank (a collective).

    Example:
        >>> reduction(torch.ones(2, 3))
        tensor(1.)
    """
    largest = torch.stack([x.detach().abs().amax() for x in features]).amax()
    return (distributed.gather(largest[None]).amax() / _LARGE).clamp(min=1)
