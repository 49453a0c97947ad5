"""DINO: views of a sample agree with a centred, sharpened teacher on the prototypes they belong to."""

import torch
from torch import Tensor

from hypvl import distributed
from hypvl.allowlist import configurable
from hypvl.checks import number, whole_number
from hypvl.losses.base import PairContext
from hypvl.losses.prototypes import PrototypeDistillation, Prototypes, Views, tempered
from hypvl.numerics import full_precision


@full_precision
def dino_target(teacher: Tensor, center: Tensor, *, temperature: float | Tensor) -> Tensor:
    """The teacher's distribution over prototypes, centred and sharpened: ``softmax((t_i - c) / T)``.

    Args:
        teacher: t, (B, K) logits.
        center: c, (K,).
        temperature: T > 0.

    Returns:
        (B, K), rows with sum 1.

    Source: Caron et al. 2021 (arXiv 2104.14294), eq. 1 and section 3.1.

    Example:
        >>> dino_target(torch.tensor([[0.0, 0.0]]), torch.zeros(2), temperature=0.04)
        tensor([[0.5000, 0.5000]])
    """
    return tempered(teacher - center.to(teacher.dtype), temperature).softmax(-1)


@full_precision
def dino_loss(student: Tensor, target: Tensor, *, temperature: float) -> Tensor:
    """Cross entropy ``-mean_i sum_k q_ik log softmax(s_i / T)_k``.

    Args:
        student: s, (B, K) logits.
        target: q, (B, K), of :func:`dino_target`.
        temperature: T > 0.

    Returns:
        0-dim, >= 0.

    Source: Caron et al. 2021 (arXiv 2104.14294), eq. 2 and 3.

    Example:
        >>> dino_loss(torch.zeros(1, 2), torch.tensor([[0.5, 0.5]]), temperature=0.1)  # log 2
        tensor(0.6931)
    """
    return -(target * tempered(student, temperature).log_softmax(-1)).sum(-1).mean()


@configurable("train")
class DINO(PrototypeDistillation):
    """Mean of :func:`dino_loss` over pairs of a teacher view and a student view of another source.

    With crops: ``student=["image:crops.0", ...]``, ``teacher=["image:crops.0@ema", "image:crops.1@ema"]``. A single
    pair works as well: ``student="image", teacher="text"``.

    Afterwards the centre moves to the mean logits of the teacher's views on all ranks:
    ``c <- m c + (1 - m) mean t``.

    Args:
        student, teacher, count, prototypes, frozen_steps, detach_teacher: As
            :class:`~hypvl.losses.prototypes.PrototypeDistillation`.
        student_temperature: T_s > 0.
        teacher_temperature: T_t > 0, once warm.
        start_temperature: T_t of the first step, > 0.
        warmup_steps: Steps in which T_t rises linearly; 0 = it is warm from the start.
        center_momentum: m in [0, 1].

    Buffers: ``center`` (K,) and ``steps``.

    Source: DINO (arXiv 2104.14294), section 3.1 and appendix: the last layer is frozen in the first epoch, T_t rises
        from 0.04 to 0.07 over 30 epochs.
    """

    rings = True

    center: Tensor

    def __init__(
        self,
        *,
        student: Views,
        teacher: Views,
        count: int = 65536,
        prototypes: Prototypes = "own",
        frozen_steps: int = 0,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        start_temperature: float = 0.04,
        warmup_steps: int = 0,
        center_momentum: float = 0.9,
        detach_teacher: bool = True,
    ) -> None:
        super().__init__(
            student=student,
            teacher=teacher,
            count=count,
            prototypes=prototypes,
            frozen_steps=frozen_steps,
            detach_teacher=detach_teacher,
        )
        self.student_temperature = number("student_temperature", student_temperature, above=0)
        self._temperature = number("teacher_temperature", teacher_temperature, above=0)
        self.start_temperature = number("start_temperature", start_temperature, above=0)
        self.warmup_steps = whole_number("warmup_steps", warmup_steps, least=0)
        self.center_momentum = number("center_momentum", center_momentum, least=0, most=1)
        self.register_buffer("center", torch.zeros(self.count))

    def teacher_temperature(self) -> float | Tensor:
        """T_t of the coming step."""
        if not self.warmup_steps:
            return self._temperature
        progress = (self.steps.double() / self.warmup_steps).clamp(max=1)
        return self.start_temperature + (self._temperature - self.start_temperature) * progress

    def forward(self, ctx: PairContext) -> Tensor:
        students, teachers = self.logits(ctx)
        temperature = self.teacher_temperature()
        targets = [dino_target(x, self.center, temperature=temperature) for x in teachers]
        losses = [
            dino_loss(students[j], targets[i], temperature=self.student_temperature) for i, j in self.pairs
        ]
        return torch.stack(losses).mean()

    @torch.no_grad()
    def update_(self, ctx: PairContext) -> None:
        logits = torch.cat(self.teacher_logits(ctx)).to(self.center.dtype)
        mean = distributed.all_reduce_mean(logits.mean(0))
        self.center.mul_(self.center_momentum).add_((1 - self.center_momentum) * mean)
