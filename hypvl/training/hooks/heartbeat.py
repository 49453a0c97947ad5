"""A small file in the run's folder that says, every few seconds, what the run is doing: for whoever watches it."""

import contextlib
import json
import os
import socket
import threading
import time
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loguru import logger

from hypvl import distributed
from hypvl.io.files import open_new
from hypvl.training.loop import CHECKPOINT, EVALUATION, Hook, StepResult, Trainer

HEARTBEAT_NAME = "heartbeat.json"
# What `trainer.between_steps` begins with -> the state
_STATES = {EVALUATION: "evaluating", CHECKPOINT: "writing a checkpoint"}


@dataclass
class Heartbeat(Hook):
    """Writes ``heartbeat.json`` every ``seconds``, at the first step and at the end; on rank 0 only.

    A thread writes it, so that it goes on while a step, the data or a checkpoint take long, and no step waits for a
    disk. It is replaced whole, not brought to disk. A file that cannot be written is a warning, once.
    """

    folder: Path  # of the run; it exists
    _: KW_ONLY
    seconds: float = 5.0  # between two times
    _started: str = field(default="", init=False)
    _step_at: float | None = field(
        default=None, init=False
    )  # when the last step ended, by a clock that nobody sets
    _wake: threading.Event = field(default_factory=threading.Event, init=False)
    _over: bool = field(default=False, init=False)
    _warned: bool = field(default=False, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def before_train(self, trainer: Trainer) -> None:
        self._started = _now()
        self._write(trainer, "starting")
        self._thread = threading.Thread(target=self._beat, args=(trainer,), daemon=True, name="heartbeat")
        self._thread.start()

    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        first, self._step_at = self._step_at is None, time.monotonic()
        if first:
            self._wake.set()

    def close(self, trainer: Trainer) -> None:
        self._over = True
        self._wake.set()
        if self._thread is None:  # training failed before it began
            return
        self._thread.join()
        self._write(trainer, _end(trainer))

    def _beat(self, trainer: Trainer) -> None:
        while not self._over:
            self._wake.wait(self.seconds)
            self._wake.clear()
            if not self._over:
                self._write(trainer, self._state(trainer))

    def _state(self, trainer: Trainer) -> str:
        doing = trainer.between_steps or ""
        for beginning, state in _STATES.items():
            if doing.startswith(beginning):
                return state
        if trainer.signals.interruptible:
            return "waiting for data"
        return "starting" if self._step_at is None else "training"

    def _write(self, trainer: Trainer, state: str) -> None:
        content: dict[str, Any] = {
            "time": _now(),
            "state": state,
            "doing": trainer.between_steps,
            "iteration": trainer.iteration,
            "num_iterations": trainer.num_iterations,
            "seconds_since_step": None
            if self._step_at is None
            else round(time.monotonic() - self._step_at, 1),
            "started": self._started,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "world_size": distributed.world_size(),
            "every_seconds": self.seconds,
        }
        part = self.folder / f".{HEARTBEAT_NAME}.{os.getpid()}.part"  # which the next run removes
        try:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()
            with open_new(part) as file:
                file.write((json.dumps(content) + "\n").encode())
            part.replace(self.folder / HEARTBEAT_NAME)
        except OSError as error:
            if not self._warned:
                logger.warning("{}: cannot be written ({})", self.folder / HEARTBEAT_NAME, error.strerror)
            self._warned = True


def _end(trainer: Trainer) -> str:
    """How training ended; a run whose last checkpoint could not be written has failed, whatever ended its steps."""
    if not trainer.failed and trainer.complete:
        return "finished"
    return "failed" if trainer.failed or trainer.signals.stop is None else "stopped"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
