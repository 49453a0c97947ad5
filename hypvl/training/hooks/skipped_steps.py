"""Ends a run whose steps do not happen any more."""

import torch
from torch import Tensor

from hypvl.errors import ConfigError, UserError
from hypvl.training.loop import Hook, StepResult, Trainer


class SkippedSteps(Hook):
    """Ends the run when steps in a row were skipped, because loss or gradients were not finite.

    Without a GPU it ends with the step that makes them ``limit``; with one, which is asked every ``limit`` steps only,
    up to ``limit`` - 1 steps later.

    Args:
        limit: How many in a row are too many, at least 1.

    Raises:
        ConfigError: for such a limit.
        UserError: in ``after_step``, when there are so many.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ConfigError(f"train.max_skipped_steps: got {limit}; expected at least 1.")
        self.limit = limit
        self._in_a_row: int | Tensor = 0

    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        self._in_a_row = torch.where(step.stepped, 0, self._in_a_row + 1)
        asked = step.stepped.device.type == "cpu" or trainer.iteration % self.limit == 0
        if asked and self._in_a_row >= self.limit:
            raise UserError(
                f"training: {int(self._in_a_row)} steps in a row up to iteration {trainer.iteration} had a loss or "
                f"gradients that are not finite and were skipped (train.max_skipped_steps={self.limit}); resume from "
                "the last checkpoint with a lower optim.optimizer.lr, train.grad_clip_norm=1.0 or train.amp=fp32."
            )
