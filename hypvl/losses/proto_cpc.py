"""ProtoCPC: contrastive coding of prototypes, with a running prior of how many samples each one has."""

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from hypvl import distributed
from hypvl.allowlist import configurable
from hypvl.checks import number, one_of, whole_number
from hypvl.losses.base import PairContext
from hypvl.losses.prototypes import PrototypeDistillation, Prototypes, Views, tempered
from hypvl.numerics import full_precision

Assignment: TypeAlias = Literal["softmax", "sinkhorn"]


@full_precision
def proto_cpc_loss(student: Tensor, target: Tensor, prior: Tensor, *, temperature: float) -> Tensor:
    """Contrastive loss of assignments to prototypes, in which the prior counts the negatives.

    Formula: ``mean_i ( logsumexp_k(s_ik / T + log prior_k) - sum_k q_ik s_ik / T )``.

    Args:
        student: s, (B, K) logits.
        target: q, (B, K), rows that sum to 1.
        prior: (K,) >= 0, with sum K.
        temperature: T > 0.

    Returns:
        0-dim.

    Source: ProtoCPC (Lee 2022, "Prototypical contrastive predictive coding", ICLR), as in ITRA.

    Example:
        >>> x = torch.zeros(1, 2)
        >>> proto_cpc_loss(x, torch.full((1, 2), 0.5), torch.ones(2), temperature=0.1)  # log 2
        tensor(0.6931)
    """
    logits = tempered(student, temperature)
    return ((logits + prior.to(logits.dtype).log()).logsumexp(-1) - (target * logits).sum(-1)).mean()


@torch.no_grad()
@full_precision
def sinkhorn(logits: Tensor, *, temperature: float, iterations: int = 3) -> Tensor:
    """Assignments that use all prototypes alike: rows sum to 1, columns of all ranks about to N / K.

    Formula: ``exp(t / T)``, ``iterations`` times: columns divided by their sums, then rows by theirs.

    Args:
        logits: t, (B, K) of this rank. Without gradient.
        temperature: T > 0.
        iterations: >= 1.

    Returns:
        (B, K), rows with sum 1; of the N rows of all ranks together.

    Source: SwAV (Caron et al. 2020, arXiv 2006.09882), appendix A; Cuturi 2013 (arXiv 1306.0895).

    Example:
        >>> sinkhorn(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), temperature=1.0)  # both prototypes alike
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])
    """
    largest = distributed.gather(logits.amax()[None]).amax()
    log_q = ((logits - largest) / temperature).clamp(min=-(torch.finfo(logits.dtype).max ** 0.75))
    for _ in range(iterations):
        columns = distributed.gather(log_q.logsumexp(0)[None]).logsumexp(0)  # (K,)
        log_q = log_q - columns
        log_q = log_q - log_q.logsumexp(1, keepdim=True)
    return log_q.exp()


@configurable("train")
class ProtoCPC(PrototypeDistillation):
    """Mean of :func:`proto_cpc_loss` over pairs of a teacher view and a student view of another source.

    Afterwards the prior moves to the share of samples of each prototype on all ranks, b, with sum K:
    ``prior <- m prior + (1 - m) b``.

    Args:
        student, teacher, count, prototypes, frozen_steps, detach_teacher: As
            :class:`~hypvl.losses.prototypes.PrototypeDistillation`.
        student_temperature, teacher_temperature: T_s, T_t > 0.
        assignment: The teacher's: ``"softmax"`` of its logits over T_t, or their :func:`sinkhorn`, which has no
            gradient.
        iterations: Of Sinkhorn, >= 1.
        prior_momentum: m in [0, 1].

    Buffers: ``prior`` (K,), ones at first, and ``steps``.

    Source: ProtoCPC (Lee 2022), as in ITRA.
    """

    prior: Tensor

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
        assignment: Assignment = "softmax",
        iterations: int = 3,
        prior_momentum: float = 0.9,
        detach_teacher: bool = True,
    ) -> None:
        one_of("assignment", assignment, Assignment)
        super().__init__(
            student=student,
            teacher=teacher,
            count=count,
            prototypes=prototypes,
            frozen_steps=frozen_steps,
            detach_teacher=detach_teacher,
        )
        self.student_temperature = number("student_temperature", student_temperature, above=0)
        self.teacher_temperature = number("teacher_temperature", teacher_temperature, above=0)
        self.assignment = assignment
        self.iterations = whole_number("iterations", iterations, least=1, most=1000)
        self.prior_momentum = number("prior_momentum", prior_momentum, least=0, most=1)
        self.register_buffer("prior", torch.ones(self.count))

    def _targets(self, logits: list[Tensor]) -> list[Tensor]:
        """Assignments of each teacher view, (B, K)."""
        if self.assignment == "softmax":
            return [tempered(x, self.teacher_temperature).softmax(-1) for x in logits]
        return [sinkhorn(x, temperature=self.teacher_temperature, iterations=self.iterations) for x in logits]

    def forward(self, ctx: PairContext) -> Tensor:
        students, teachers = self.logits(ctx)
        targets = self._targets(teachers)
        losses = [
            proto_cpc_loss(students[j], targets[i], self.prior, temperature=self.student_temperature)
            for i, j in self.pairs
        ]
        return torch.stack(losses).mean()

    @torch.no_grad()
    def update_(self, ctx: PairContext) -> None:
        targets = torch.cat(self._targets(self.teacher_logits(ctx))).to(self.prior.dtype)
        share = distributed.all_reduce_mean(targets.mean(0))  # (K,)
        share = self.count * share / share.sum()
        self.prior.mul_(self.prior_momentum).add_((1 - self.prior_momentum) * share)
