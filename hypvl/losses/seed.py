"""SEED: a student is as similar to the rows of a queue as its teacher."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hypvl import distributed
from hypvl.allowlist import configurable
from hypvl.checks import number
from hypvl.geometry.sphere import normalize
from hypvl.losses.base import Changed, Model, PairContext, View, check_width
from hypvl.losses.distillation import Distillation
from hypvl.losses.info_nce import Implementation, check_implementation
from hypvl.losses.queue import FeatureQueue
from hypvl.losses.soft_targets import distribution_cross_entropy
from hypvl.numerics import full_precision


@full_precision
def seed_loss(
    student: Tensor,
    teacher: Tensor,
    queue: Tensor,
    *,
    student_temperature: float,
    teacher_temperature: float,
    implementation: Implementation = "auto",
) -> Tensor:
    """Cross entropy of the student's similarities with the teacher's: to the own teacher row, then to the queue.

    Formula: ``a_i = [s_i.t_i, s_i.q_1, ..., s_i.q_K] / T_s``, ``b_i = [t_i.t_i, t_i.q_1, ..., t_i.q_K] / T_t``,
    ``-mean_i sum_k softmax(b_i)_k log softmax(a_i)_k``; s and t are normalised.

    Args:
        student, teacher: (B, D).
        queue: (K, D) teacher rows of earlier batches.
        student_temperature, teacher_temperature: T_s, T_t > 0. With T_t = 1e-4 the target is the own row alone.
        implementation: As for :func:`~hypvl.losses.info_nce.info_nce`.

    Returns:
        0-dim, >= 0.

    Source: Fang et al. 2021 (arXiv 2101.04731), eq. 3 to 5.

    Example:
        >>> x = torch.eye(2)
        >>> bool(seed_loss(x, x, x, student_temperature=0.1, teacher_temperature=0.1) > 0)
        True
    """
    check_implementation(implementation, None)
    student, teacher = normalize(student), normalize(teacher)
    return distribution_cross_entropy(
        student,
        teacher,
        queue.to(student.dtype),
        queue.to(teacher.dtype),
        student_temperature=student_temperature,
        teacher_temperature=teacher_temperature,
        student_own=(student * teacher).sum(-1),
        teacher_own=teacher.square().sum(-1),
        implementation=implementation,
    )


@configurable("train")
class SEED(Distillation):
    """:func:`seed_loss`; afterwards the teacher's rows of every rank enter the queue.

    The order in which the rows of a batch enter is that of the batch.

    Args:
        student, teacher, detach_teacher: As :class:`~hypvl.losses.distillation.Distillation`.
        dim: Size of the features.
        queue_size: K, a multiple of the samples of a step over all ranks.
        student_temperature, teacher_temperature, implementation: As :func:`seed_loss`.

    Raises:
        ValueError: for a queue that a batch does not divide: in :meth:`check_batch`, else in the first step.

    Source: SEED (arXiv 2101.04731): temperatures 0.2 and 0.01, K = 65536. ITRA: 0.07 and 1e-4.
    """

    def __init__(
        self,
        *,
        student: str | View,
        teacher: str | View,
        dim: int,
        queue_size: int = 65536,
        student_temperature: float = 0.2,
        teacher_temperature: float = 0.01,
        detach_teacher: bool = True,
        implementation: Implementation = "auto",
    ) -> None:
        check_implementation(implementation, None)
        super().__init__(student=student, teacher=teacher, detach_teacher=detach_teacher)
        self.student_temperature = number("student_temperature", student_temperature, above=0)
        self.teacher_temperature = number("teacher_temperature", teacher_temperature, above=0)
        self.implementation: Implementation = implementation
        self.queue = FeatureQueue(queue_size, dim)

    def check(self, models: Mapping[str, Model]) -> None:
        """Refuse features of different sizes, or of another size than the queue."""
        super().check(models)
        check_width(models, self.teacher, self.queue.rows.shape[1])

    def check_batch(self, samples: int) -> None:
        """Refuse a batch that does not divide the queue."""
        size = len(self.queue.rows)
        if size % samples:
            raise ValueError(
                f"queue_size: got {size}, which batches of {samples} samples do not divide; expected a multiple of "
                f"{samples}, such as {max(1, size // samples) * samples}."
            )

    def forward(self, ctx: PairContext) -> Tensor:
        student, teacher = self.features(ctx)
        self.check_batch(len(teacher) * distributed.world_size())
        return seed_loss(
            student,
            teacher,
            self.queue.rows,
            student_temperature=self.student_temperature,
            teacher_temperature=self.teacher_temperature,
            implementation=self.implementation,
        )

    @torch.no_grad()
    def update_(self, ctx: PairContext) -> None:
        self.queue.enqueue_(normalize(ctx.features(self.teacher)))

    def changes(self, contexts: Sequence[PairContext]) -> list[Changed]:
        """The rows of the queue that are overwritten."""
        return self.queue.changes([len(ctx.features(self.teacher)) for ctx in contexts])
