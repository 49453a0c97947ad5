"""Cross entropy of a student's distribution over keys with a teacher's, as self-distillation with queues has it."""

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from hypvl.checks import number, one_of
from hypvl.losses import pairwise
from hypvl.losses.info_nce import Implementation
from hypvl.numerics import full_precision

#: ``cross_entropy`` H(P, Q), or ``kl`` KL(P || Q) = H(P, Q) - H(P); with a teacher without gradient they differ by a
#: number that moves nothing.
Divergence: TypeAlias = Literal["cross_entropy", "kl"]


@full_precision
def soft_cross_entropy(
    student: Tensor, teacher: Tensor, *, divergence: Divergence = "cross_entropy"
) -> Tensor:
    """Divergence of the softmax of a student's scores from that of a teacher's, mean over queries.

    Formula: ``-mean_i sum_k p_ik log q_ik``, q = softmax(student), p = softmax(teacher); ``kl`` also adds
    ``mean_i sum_k p_ik log p_ik``.

    Args:
        student, teacher: (B, K) scaled scores of the same keys.
        divergence: Which.

    Returns:
        0-dim, >= 0.

    Source: Hinton et al. 2015 (arXiv 1503.02531), section 2.

    Example:
        >>> soft_cross_entropy(torch.zeros(1, 2), torch.zeros(1, 2))  # log 2
        tensor(0.6931)
    """
    one_of("divergence", divergence, Divergence)
    if divergence == "cross_entropy":
        return F.cross_entropy(student, teacher.softmax(-1))
    return F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="batchmean")


@full_precision
def distribution_cross_entropy(
    student: Tensor,
    teacher: Tensor,
    student_keys: Tensor,
    teacher_keys: Tensor,
    *,
    student_temperature: float,
    teacher_temperature: float,
    student_own: Tensor | None = None,
    teacher_own: Tensor | None = None,
    divergence: Divergence = "cross_entropy",
    implementation: Implementation = "auto",
) -> Tensor:
    """:func:`soft_cross_entropy` of inner products with keys (a queue, a memory, gathered rows), dense or tiled.

    Formula: student scores ``[o_i, s_i.k_1, ..., s_i.k_K] / T_s``, teacher scores
    ``[u_i, t_i.m_1, ..., t_i.m_K] / T_t``. Tiled, the memory grows with B + K. Gradients flow to every tensor that asks
    for one.

    Args:
        student, teacher: s (B, D) and t (B, E); normalise them before if they should be.
        student_keys, teacher_keys: k (K, D) and m (K, E), row for row the same key; on all ranks the same.
        student_temperature, teacher_temperature: T_s, T_t > 0.
        student_own, teacher_own: o, u (B,), inner products with a key of each query's own, in front; None = none.
        divergence: As for :func:`soft_cross_entropy`.
        implementation: As for :func:`~hypvl.losses.info_nce.info_nce`.

    Returns:
        0-dim. The mean over ranks is that of one process on the joined batch.

    Raises:
        ValueError: for tensors that do not fit together, a temperature that is not above 0, another divergence or
            implementation.

    Source: SEED (Fang et al. 2021, arXiv 2101.04731), eq. 5: with an own key; CompRess (Koohpayegani et al. 2020,
        arXiv 2010.14713), section 3: ``kl`` without, with one memory or two.

    Example:
        >>> x, keys = torch.zeros(1, 2), torch.eye(2)
        >>> distribution_cross_entropy(x, x, keys, keys, student_temperature=1.0, teacher_temperature=1.0)  # log 2
        tensor(0.6931)
    """
    one_of("divergence", divergence, Divergence)
    one_of("implementation", implementation, Implementation)
    number("student_temperature", student_temperature, above=0)
    number("teacher_temperature", teacher_temperature, above=0)
    if len(student) != len(teacher) or len(student_keys) != len(teacher_keys):
        raise ValueError(
            f"student, teacher: got {len(student)} and {len(teacher)} rows with {len(student_keys)} and "
            f"{len(teacher_keys)} keys; expected as many of both, row for row the same sample and the same key."
        )
    if (student_own is None) != (teacher_own is None):
        raise ValueError("student_own, teacher_own: got one; expected both or neither.")
    own = [] if student_own is None or teacher_own is None else [student_own, teacher_own]
    if any(o.shape != (len(student),) for o in own):
        shapes = " and ".join(str(tuple(o.shape)) for o in own)
        raise ValueError(f"student_own, teacher_own: got shapes {shapes}; expected ({len(student)},) each.")
    temperatures = (student_temperature, teacher_temperature)

    def value(a: Tensor, b: Tensor, *own: Tensor) -> Tensor:
        if own:
            fronts = (o[:, None] / t for o, t in zip(own, temperatures, strict=True))
            a, b = (torch.cat([front, z], dim=1) for front, z in zip(fronts, (a, b), strict=True))
        return soft_cross_entropy(a, b, divergence=divergence)

    return pairwise.mean_over_queries(
        value,
        pairwise.products(student / student_temperature, student_keys),
        pairwise.products(teacher / teacher_temperature, teacher_keys),
        rows=own,
        implementation=implementation,
    )
