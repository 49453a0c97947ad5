"""What terms share that compare the features of several views with prototypes (DINO, ProtoCPC)."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from hypvl.checks import one_of, whole_number
from hypvl.losses.base import LossTerm, Model, PairContext, View, check_same_width, find_prototypes
from hypvl.numerics import full_precision

Prototypes: TypeAlias = Literal["own", "student"]
Views: TypeAlias = str | View | Sequence[str | View]


@full_precision
def tempered(logits: Tensor, temperature: float | Tensor) -> Tensor:
    """Logits over a temperature, moved so that the largest of a row is 0: the same softmax, without overflow.

    Example:
        >>> tempered(torch.tensor([[1.0, 0.0]]), 0.5)
        tensor([[ 0., -2.]])
    """
    moved = logits - logits.detach().amax(-1, keepdim=True)
    return (moved / temperature).clamp(min=-(torch.finfo(moved.dtype).max ** 0.75))


class PrototypeDistillation(LossTerm):
    """A term about logits of prototypes: every student view is to agree with every teacher view of another source.

    Args:
        student, teacher: A view, or several whose rows belong together. Two of the same source (``"image"`` and
            ``"image@ema"``), which show the same pixels, are not compared.
        count: Number K of prototypes.
        prototypes: ``"own"``: the teacher's views are compared with the prototypes of their own heads, as an average
            of the student has them; ``"student"``: with those of the first student view, handed over without
            gradient (ITRA).
        frozen_steps: First steps in which the prototypes of the student get no gradient, >= 0.
        detach_teacher: Whether no gradient flows to the logits of the teacher.

    Raises:
        ValueError: for views of which no two can be compared, or numbers out of range.

    Buffer: ``steps``, those that were not skipped, 0-dim int64.
    """

    steps: Tensor

    def __init__(
        self,
        *,
        student: Views,
        teacher: Views,
        count: int,
        prototypes: Prototypes,
        frozen_steps: int,
        detach_teacher: bool,
    ) -> None:
        one_of("prototypes", prototypes, Prototypes)
        super().__init__()
        self.students, self.teachers = _views("student", student), _views("teacher", teacher)
        self.declare(*self.students, *self.teachers)
        self.pairs = [
            (i, j)
            for i, one in enumerate(self.teachers)
            for j, other in enumerate(self.students)
            if _shows(one) != _shows(other)
        ]
        if not self.pairs:
            raise ValueError(
                f"student, teacher: got {', '.join(map(str, (*self.students, *self.teachers)))}, which all show the "
                "same; expected two views of different sources, such as image:crops.0 and image:crops.1@ema."
            )
        self.count = whole_number("count", count, least=2, most=2**24)
        self.prototypes = prototypes
        self.frozen_steps = whole_number("frozen_steps", frozen_steps, least=0)
        self.detach_teacher = one_of("detach_teacher", detach_teacher, (True, False))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def check(self, models: Mapping[str, Model]) -> None:
        """Refuse heads without a prototype layer, or with another number of prototypes."""
        super().check(models)
        teachers = self.teachers if self.prototypes == "own" else ()
        for view in dict.fromkeys((*self.students, *teachers)):
            found = getattr(find_prototypes(models, view), "count", None)
            if found is not None and found != self.count:
                raise ValueError(
                    f"count: got {self.count}, but the head of {view} has {found} prototypes; give both one number."
                )
        if self.prototypes == "student":
            check_same_width(models, self.students[0], *self.teachers)

    def logits(self, ctx: PairContext) -> tuple[list[Tensor], list[Tensor]]:
        """Logits of each student view and of each teacher view, (B, K)."""
        share = (self.steps >= self.frozen_steps).float() if self.frozen_steps else None
        students = [ctx.prototype_logits(view, share=share) for view in self.students]
        return students, self.teacher_logits(ctx)

    def teacher_logits(self, ctx: PairContext) -> list[Tensor]:
        """Logits of each teacher view, (B, K)."""
        layer_of = self.students[0] if self.prototypes == "student" else None
        logits = [ctx.prototype_logits(view, layer_of=layer_of) for view in self.teachers]
        return [x.detach() for x in logits] if self.detach_teacher else logits

    def step_(self) -> None:
        self.steps += 1


def _views(name: str, views: Views) -> tuple[View, ...]:
    listed = [views] if isinstance(views, (str, View)) else list(views)
    if not listed:
        raise ValueError(f"{name}: got no view; expected one, or several.")
    return tuple(View.parse(view) for view in listed)


def _shows(view: View) -> tuple[str, str, int]:
    return view.modality, view.source, view.draw
