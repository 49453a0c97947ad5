"""CompRess: a student is as similar to a memory of anchors as its teacher."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import MOST_FEATURES, number, one_of, whole_number
from hypvl.geometry.sphere import normalize
from hypvl.losses.base import Changed, LossTerm, Model, PairContext, View, check_width
from hypvl.losses.distillation import Distillation
from hypvl.losses.info_nce import Implementation, check_implementation
from hypvl.losses.queue import FeatureQueue
from hypvl.losses.soft_targets import distribution_cross_entropy
from hypvl.numerics import full_precision

Variant: TypeAlias = Literal["original", "itra"]


@full_precision
def compress_loss(
    student: Tensor,
    teacher: Tensor,
    student_memory: Tensor,
    teacher_memory: Tensor,
    *,
    temperature: float,
    implementation: Implementation = "auto",
) -> Tensor:
    """Divergence of the student's similarities to a memory from the teacher's.

    Formula: ``mean_i KL(P_i || Q_i)``, ``P_i = softmax(t_i M_t' / T)``, ``Q_i = softmax(s_i M_s' / T)``; s and t are
    normalised, memories not.

    Args:
        student, teacher: (B, D) and (B, E).
        student_memory, teacher_memory: (K, D) and (K, E), row for row of the same sample; with one memory the same.
        temperature: T > 0.
        implementation: As for :func:`~hypvl.losses.info_nce.info_nce`.

    Returns:
        0-dim, >= 0.

    Source: Koohpayegani et al. 2020 (arXiv 2010.14713), section 3.

    Example:
        >>> x = torch.eye(2)
        >>> compress_loss(x, x, x, x, temperature=0.1)  # the same similarities
        tensor(0.)
    """
    check_implementation(implementation, None)
    student, teacher = normalize(student), normalize(teacher)
    return distribution_cross_entropy(
        student,
        teacher,
        student_memory.to(student.dtype),
        teacher_memory.to(teacher.dtype),
        student_temperature=temperature,
        teacher_temperature=temperature,
        divergence="kl",
        implementation=implementation,
    )


class _CompRess(Distillation):
    """What both forms share."""

    teacher_memory: FeatureQueue

    def __init__(
        self,
        *,
        student: str | View,
        teacher: str | View,
        temperature: float,
        variant: Variant,
        detach_teacher: bool,
        implementation: Implementation,
    ) -> None:
        one_of("variant", variant, Variant)
        check_implementation(implementation, None)
        super().__init__(student=student, teacher=teacher, detach_teacher=detach_teacher)
        self.temperature = number("temperature", temperature, above=0)
        self.variant = variant
        self.implementation: Implementation = implementation

    def loss(self, ctx: PairContext, student_memory: FeatureQueue) -> Tensor:
        student, teacher = self.features(ctx)
        return compress_loss(
            student,
            teacher,
            student_memory.rows,
            self.teacher_memory.rows,
            temperature=self.temperature,
            implementation=self.implementation,
        )

    def remember_(self, memory: FeatureQueue, features: Tensor) -> None:
        memory.enqueue_(normalize(features), gathered=self.variant == "original")

    def overwritten(self, memory: FeatureQueue, contexts: Sequence[PairContext], view: View) -> list[Changed]:
        """What :meth:`remember_` changes, once for each context."""
        counts = [len(ctx.features(view)) for ctx in contexts]
        return memory.changes(counts, gathered=self.variant == "original")


@configurable("train")
class CompRess1q(_CompRess):
    """:func:`compress_loss` with one memory, of teacher features, for both.

    The order in which the rows of a batch enter the memory is that of the batch. ``variant="itra"`` puts only the rows
    of its own rank into the memory of each rank: memories then differ, and a checkpoint holds that of rank 0.

    Args:
        student, teacher, detach_teacher: As :class:`~hypvl.losses.distillation.Distillation`.
        dim: Size of the features.
        queue_size: K; a batch that does not divide it wraps around.
        temperature, implementation: As :func:`compress_loss`.
        variant: Which rows enter.

    Source: CompRess (arXiv 2010.14713): T = 0.04, K = 128000; ITRA: K = 65536.
    """

    def __init__(
        self,
        *,
        student: str | View,
        teacher: str | View,
        dim: int,
        queue_size: int = 128000,
        temperature: float = 0.04,
        variant: Variant = "original",
        detach_teacher: bool = True,
        implementation: Implementation = "auto",
    ) -> None:
        super().__init__(
            student=student,
            teacher=teacher,
            temperature=temperature,
            variant=variant,
            detach_teacher=detach_teacher,
            implementation=implementation,
        )
        self.teacher_memory = FeatureQueue(queue_size, dim, start="uniform")

    def check(self, models: Mapping[str, Model]) -> None:
        """Refuse features of different sizes, or of another size than the memory."""
        super().check(models)
        check_width(models, self.teacher, self.teacher_memory.rows.shape[1])

    def forward(self, ctx: PairContext) -> Tensor:
        return self.loss(ctx, self.teacher_memory)

    @torch.no_grad()
    def update_(self, ctx: PairContext) -> None:
        self.remember_(self.teacher_memory, ctx.features(self.teacher))

    def changes(self, contexts: Sequence[PairContext]) -> list[Changed]:
        """The rows of the memory that are overwritten."""
        return self.overwritten(self.teacher_memory, contexts, self.teacher)


@configurable("train")
class CompRess2q(_CompRess):
    """:func:`compress_loss` with a memory of each: features may have different sizes.

    The order of the rows, and ``variant``, as for :class:`CompRess1q`.

    Args:
        student, teacher, detach_teacher: As :class:`~hypvl.losses.distillation.Distillation`.
        student_dim, teacher_dim: Sizes of the features.
        queue_size, temperature, variant, implementation: As :class:`CompRess1q`.

    Source: CompRess (arXiv 2010.14713).
    """

    def __init__(
        self,
        *,
        student: str | View,
        teacher: str | View,
        student_dim: int,
        teacher_dim: int,
        queue_size: int = 128000,
        temperature: float = 0.04,
        variant: Variant = "original",
        detach_teacher: bool = True,
        implementation: Implementation = "auto",
    ) -> None:
        super().__init__(
            student=student,
            teacher=teacher,
            temperature=temperature,
            variant=variant,
            detach_teacher=detach_teacher,
            implementation=implementation,
        )
        whole_number("student_dim", student_dim, least=1, most=MOST_FEATURES)
        whole_number("teacher_dim", teacher_dim, least=1, most=MOST_FEATURES)
        self.teacher_memory = FeatureQueue(queue_size, teacher_dim, start="uniform")
        self.student_memory = FeatureQueue(queue_size, student_dim, start="uniform")

    def check(self, models: Mapping[str, Model]) -> None:
        """Refuse features of other sizes than the memories."""
        LossTerm.check(self, models)
        check_width(models, self.student, self.student_memory.rows.shape[1], name="student_dim")
        check_width(models, self.teacher, self.teacher_memory.rows.shape[1], name="teacher_dim")

    def forward(self, ctx: PairContext) -> Tensor:
        return self.loss(ctx, self.student_memory)

    @torch.no_grad()
    def update_(self, ctx: PairContext) -> None:
        self.remember_(self.teacher_memory, ctx.features(self.teacher))
        self.remember_(self.student_memory, ctx.features(self.student))

    def changes(self, contexts: Sequence[PairContext]) -> list[Changed]:
        """The rows of the memories that are overwritten."""
        teacher = self.overwritten(self.teacher_memory, contexts, self.teacher)
        return [*teacher, *self.overwritten(self.student_memory, contexts, self.student)]
