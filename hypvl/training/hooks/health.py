"""Watching over a run: a warning is logged when no step ends any more."""

import contextlib
import threading
from dataclasses import dataclass, field

from loguru import logger
from torch.distributed import DistError

from hypvl import distributed, rank_notes
from hypvl.training.loop import Hook, StepResult, Trainer


@dataclass
class Stalls(Hook):
    """Logs a warning when no step has ended for a while, again after twice that time, and so on.

    A thread logs it, because the main one may be blocked in a collective. The run keeps waiting until the timeout of
    the process group ends it.
    """

    seconds: float = 60.0  # time without a step before the first warning
    _ended: threading.Event = field(default_factory=threading.Event, init=False)
    _step: threading.Event = field(default_factory=threading.Event, init=False)

    def before_train(self, trainer: Trainer) -> None:
        threading.Thread(target=self._watch, args=(trainer,), daemon=True, name="stalls").start()

    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        self._step.set()

    def close(self, trainer: Trainer) -> None:
        self._ended.set()
        self._step.set()

    def _watch(self, trainer: Trainer) -> None:
        waited = 0.0
        while not self._ended.is_set():
            if self._step.wait(max(self.seconds, waited)):
                self._step.clear()
                waited = 0.0
                continue
            waited += max(self.seconds, waited)
            logger.log(
                "WARNING" if trainer.between_steps is None else "INFO",
                "rank {}: no step has ended for {:.0f} s after iteration {}; it waits for {}",
                distributed.rank(), waited, trainer.iteration, waits_for(trainer),
            )  # fmt: skip


@dataclass
class TellOthers(Hook):
    """Lets the other ranks know what this one does, for the message when a collective fails."""

    def before_train(self, trainer: Trainer) -> None:
        if (notes := rank_notes.current()) is not None:
            notes.describe = lambda: f"after iteration {trainer.iteration} it waits for {waits_for(trainer)}"

    def close(self, trainer: Trainer) -> None:
        if (notes := rank_notes.current()) is not None:
            notes.describe = f"after iteration {trainer.iteration}".__str__
            with contextlib.suppress(DistError):
                notes.tell()


def waits_for(trainer: Trainer) -> str:
    """What a rank waits for when no step ends."""
    if trainer.between_steps is not None:
        return trainer.between_steps
    if trainer.signals.interruptible:
        return "data: slow storage, or a data worker that is stopped"
    if distributed.world_size() > 1:
        return "this step, or for another rank: one that waits for data, is stopped or dead"
    return "this step"
