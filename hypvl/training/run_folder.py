"""The folder of a run: who may write into it, and whether a run starts or continues there."""

import contextlib
import re
import shutil
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

from loguru import logger

from hypvl.errors import ConfigError
from hypvl.io.files import exclusive_lock
from hypvl.models.checkpoint_io import BEST_NAME, last_checkpoint
from hypvl.training.checkpoints.files import newest_good

LOCK_NAME = ".lock"
METRICS_NAME = "metrics.jsonl"
_PART = re.compile(r"\..+\.\d+\.part")


@dataclass
class RunFolder:
    """A run's folder: used by one run at a time, and never by a new run over an old one. A context of rank 0."""

    folder: Path  # it need not exist
    _: KW_ONLY
    resume: bool  # continue the run in it
    attempt: str = ""  # names this start of the run, the same on every rank
    ours: bool = False  # whether rank 0 is known to have locked the folder
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, init=False)
    locked: bool = field(default=False, init=False)  # by this process, on rank 0

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self) -> Path | None:
        """The checkpoint to continue from; None starts at iteration 0. A folder that does not exist is not made.

        Raises:
            ConfigError: when another run is in the folder, or it holds one and ``resume`` is False.
            CheckpointError: when every checkpoint is damaged.
        """
        if self.folder.is_dir():
            self._lock()
        if self.resume:
            path = newest_good(self.folder)
            if path is None:
                logger.warning("--resume: no checkpoint in {}; starting at iteration 0", self.folder)
            return path
        self._check_empty()
        return None

    def make(self) -> None:
        """Make the folder. Raises ConfigError when it cannot, or another run has made it since :meth:`start`."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"--output-dir: {self.folder} cannot be made ({error.strerror}); name another folder."
            ) from error
        if not self.locked:
            self._lock()
            self._check_empty()

    def _lock(self) -> None:
        """Lock the folder against other runs, and remove half-written files of killed ones."""
        try:
            self._stack.enter_context(exclusive_lock(self.folder / LOCK_NAME, wait=False))
        except BlockingIOError as error:
            raise ConfigError(
                f"--output-dir: another run is writing into {self.folder}; wait for its end, or name another folder."
            ) from error
        except OSError as error:  # a file system without locks
            logger.warning("{}: cannot be locked against a second run ({})", self.folder, error.strerror)
        self.locked = True
        for part in self.folder.iterdir():
            if _PART.fullmatch(part.name):
                logger.info("removing {}, which an interrupted run left", part)
                shutil.rmtree(part) if part.is_dir() else part.unlink()

    def _check_empty(self) -> None:
        last = last_checkpoint(self.folder)
        metrics = self.folder / METRICS_NAME
        if last is not None:
            content = last.name
        elif metrics.is_file() and metrics.stat().st_size:
            content = f"{METRICS_NAME}, without a checkpoint"
        elif (self.folder / BEST_NAME).is_file():
            content = BEST_NAME
        else:
            return
        raise ConfigError(
            f"--output-dir: {self.folder} already holds a run ({content}); add --resume to continue it, "
            "or name another folder."
        )
