"""Says when a run has come to a standstill, and what it waits for."""

import threading

from loguru import logger

from hypvl import distributed
from hypvl.training.loop import Hook, StepResult, Trainer


class Stalls(Hook):
    """A warning when no step has ended for a while, after twice that time again, and so on.

    A process that is stopped, or one that waits for it in a collective, cannot say so itself: a thread does. The run
    waits on; the process group's timeout ends it.

    Args:
        seconds: Without a step, before the first warning.
    """

    def __init__(self, *, seconds: float = 60.0) -> None:
        self.seconds = seconds
        self._ended = threading.Event()
        self._step = threading.Event()

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
            logger.warning(
                "rank {}: no step has ended for {:.0f} s after iteration {}; it waits for {}",
                distributed.rank(), waited, trainer.iteration, self._reason(trainer),
            )  # fmt: skip

    def _reason(self, trainer: Trainer) -> str:
        if trainer.signals.interruptible:
            return "data: slow storage, or a data worker that is stopped"
        if distributed.world_size() > 1:
            return "this step, or for another rank: one that waits for data, is stopped or dead"
        return "this step"
