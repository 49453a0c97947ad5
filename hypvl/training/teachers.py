"""Teachers: the other encoders of a run, by name, which no gradient trains.

A loss term names one in its views (``"text@teacher"``); `train.teachers` of a config builds them.
"""

import copy
import math
from abc import ABC
from pathlib import Path

import torch
from torch import Tensor, nn

from hypvl.allowlist import configurable
from hypvl.checks import number, one_of, whole_number
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.weights import load_weights
from hypvl.training.parallel import local


class Teacher(nn.Module, ABC):
    """A frozen encoder: always in eval mode, without a graph, and in no optimizer."""

    encoder: nn.Module  # a DualEncoder, or what encodes like one
    saved: bool  # whether checkpoints hold it

    def start_(self, student: DualEncoder) -> None:
        """Called once, when the student has its first weights."""

    def check_data(self, fingerprint: str) -> None:
        """DataError where the teacher is of other data than the dataset with this fingerprint."""

    def update_(self, student: DualEncoder, stepped: Tensor) -> None:
        """Called after each optimizer step; ``stepped`` is 0-dim, on the device, and false for a skipped step."""

    def train(self, mode: bool = True) -> "Teacher":
        """Stays in eval mode, whatever is asked."""
        super().train(False)
        return self


@configurable("train")
class FrozenTeacher(Teacher):
    """A second model that stays as it is.

    Args:
        model: A :class:`~hypvl.models.dual_encoder.DualEncoder`; it may lack the tower that no view asks for.
        checkpoint: Its weights: a file or folder that ``train.init_checkpoint`` could name, too; None = those that its
            encoders were built with.
        saved: Whether checkpoints hold its weights. If not, a resumed run builds it anew from the same config.

    Raises:
        CheckpointError: for weights that are missing or do not fit.
    """

    encoder: DualEncoder

    def __init__(
        self, model: DualEncoder, *, checkpoint: str | Path | None = None, saved: bool = False
    ) -> None:
        super().__init__()
        self.saved = one_of("saved", saved, (True, False))
        if checkpoint is not None:
            load_weights(model, str(checkpoint))
        self.encoder = model
        self.requires_grad_(False)
        self.train(False)


@configurable("train")
class EMATeacher(Teacher):
    """A moving average of the student's weights: ``w <- m w + (1 - m) w_student`` after each step.

    Floating buffers are averaged as well, others copied. It starts as a copy of the student. Checkpoints hold it.

    Args:
        momentum: m, in [0, 1].
        final_momentum: Where m ends; in between it rises by half a cosine. None = m stays.
        total_steps: Steps until then, >= 1; only with ``final_momentum``.
        warmup: Whether m is at most ``(1 + n) / (10 + n)`` after n steps, so that the first weights are soon forgotten.

    Raises:
        ValueError: for numbers out of range, or only one of ``final_momentum`` and ``total_steps``.

    Source: DINO (Caron et al. 2021, arXiv 2104.14294), section 3.1: 0.996 to 1 over the training.
    """

    updates: Tensor  # steps so far, 0-dim int64
    encoder: DualEncoder

    def __init__(
        self,
        *,
        momentum: float = 0.996,
        final_momentum: float | None = None,
        total_steps: int | None = None,
        warmup: bool = False,
    ) -> None:
        super().__init__()
        self.saved = True
        self.momentum = number("momentum", momentum, least=0, most=1)
        if (final_momentum is None) != (total_steps is None):
            raise ValueError(
                f"final_momentum: got {final_momentum} with total_steps={total_steps}; expected both, or neither."
            )
        self.final_momentum = self.momentum
        self.total_steps = 1
        if final_momentum is not None:
            self.final_momentum = number("final_momentum", final_momentum, least=0, most=1)
            self.total_steps = whole_number("total_steps", total_steps, least=1)
        self.warmup = one_of("warmup", warmup, (True, False))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def start_(self, student: DualEncoder) -> None:
        """Copy the student."""
        self.encoder = copy.deepcopy(student).requires_grad_(False)
        self.train(False)

    @torch.no_grad()
    def update_(self, student: DualEncoder, stepped: Tensor) -> None:
        """Move towards the student, without waiting for the device."""
        share = (1 - self._momentum()) * stepped  # 0-dim fp32 on the device
        self.updates += stepped
        mine, theirs = (
            [*model.named_parameters(), *model.named_buffers()] for model in (self.encoder, student)
        )
        for (_, whole_old), (_, whole_new) in zip(mine, theirs, strict=True):
            old, new = local(whole_old), local(whole_new)  # both are sharded alike
            if old.is_floating_point():
                old.lerp_(new, share.to(old.dtype))
            else:
                old.copy_(new)

    def _momentum(self) -> Tensor:
        steps = self.updates.float()
        progress = (steps / self.total_steps).clamp(max=1)
        gap = self.final_momentum - self.momentum
        momentum = self.final_momentum - gap * (torch.cos(math.pi * progress) + 1) / 2
        return torch.minimum(momentum, (1 + steps) / (10 + steps)) if self.warmup else momentum
