"""Watching over a run: a warning is logged when no step ends any more."""

import threading
from dataclasses import dataclass, field

from loguru import logger

from hypvl import distributed
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
                distributed.rank(), waited, trainer.iteration, self._reason(trainer),
            )  # fmt: skip

    def _reason(self, trainer: Trainer) -> str:
        if trainer.between_steps is not None:
            return trainer.between_steps
        if trainer.signals.interruptible:
            return "data: slow storage, or a data worker that is stopped"
        if distributed.world_size() > 1:
            return "this step, or for another rank: one that waits for data, is stopped or dead"
        return "this step"
