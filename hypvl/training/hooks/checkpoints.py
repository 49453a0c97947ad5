"""Saves the run: periodically, at the end, and when it is asked to stop."""

import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from loguru import logger

from hypvl import distributed
from hypvl.errors import ConfigError
from hypvl.models.run_folder import FINAL_NAME
from hypvl.training.checkpoint import checkpoint_name, save_checkpoint
from hypvl.training.loop import Hook, StepResult, Trainer


class Checkpoints(Hook):
    """Periodic and final checkpoints.

    Args:
        folder: The run's folder.
        collect: Gives the state to save (a collective: called on every rank).
        period: Steps between checkpoints.
        keep: Periodic checkpoints that stay, at least 1; None = all.
        final_extra: Entries added to the final checkpoint only (a collective), e.g. ``root``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        collect: Callable[[Trainer], dict[str, Any]],
        period: int,
        keep: int | None,
        final_extra: Callable[[Trainer], dict[str, Any]] | None = None,
    ) -> None:
        if period < 1:
            raise ConfigError(f"train.checkpoint_period: got {period}; expected at least 1.")
        if keep is not None and keep < 1:
            raise ConfigError(f"train.keep_checkpoints: got {keep}; expected at least 1, or null for all.")
        self.folder = folder
        self.collect = collect
        self.period = period
        self.keep = keep
        self.final_extra = final_extra
        self._saved_at = -1

    def before_train(self, trainer: Trainer) -> None:
        self._saved_at = trainer.iteration

    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        if trainer.iteration % self.period == 0 and trainer.iteration < trainer.num_iterations:
            self._save(trainer, checkpoint_name(trainer.iteration), {})

    def after_train(self, trainer: Trainer) -> None:
        if trainer.iteration >= trainer.num_iterations:
            if self._saved_at == trainer.iteration and (self.folder / FINAL_NAME).is_file():
                return
            extra = self.final_extra(trainer) if self.final_extra is not None else {}
            self._save(trainer, FINAL_NAME, extra)
        elif self._saved_at != trainer.iteration:
            self._save(trainer, checkpoint_name(trainer.iteration), {})

    def _save(self, trainer: Trainer, name: str, extra: dict[str, Any]) -> None:
        state = {**self.collect(trainer), **extra}
        if distributed.is_main():
            path = save_checkpoint(self.folder, state, name=name, keep=self.keep)
            logger.info("iteration {}: saved {}", trainer.iteration, path)
        distributed.barrier()
        self._saved_at = trainer.iteration


class OrderlyStop(Hook):
    """On SIGTERM (a scheduler ends the job): finish the step, agree over ranks, save, stop.

    Args:
        period: Steps between the ranks' agreement (one small all-reduce).
    """

    def __init__(self, *, period: int = 10) -> None:
        self.period = period
        self._asked = False
        self._previous: Any = None

    def before_train(self, trainer: Trainer) -> None:
        self._previous = signal.signal(signal.SIGTERM, self._note)

    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        if trainer.iteration % self.period == 0 and distributed.world_size() > 1:
            asked = distributed.all_reduce_sum(torch.tensor(float(self._asked), device=distributed.device()))
            trainer.stop_requested = trainer.stop_requested or bool(asked > 0)
        elif distributed.world_size() == 1:
            trainer.stop_requested = trainer.stop_requested or self._asked
        if trainer.stop_requested:
            logger.warning("iteration {}: asked to stop (SIGTERM); saving and leaving", trainer.iteration)

    def close(self, trainer: Trainer) -> None:
        signal.signal(signal.SIGTERM, self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
