"""Checkpoint files of a run: written whole or not at all, verified, found again, and removed when they are old.

A checkpoint is a ZIP archive that holds a SHA-256 of itself (:mod:`hypvl.io.zip_checksum`), so that it is verified
without a second file that could be lost or be out of date.
"""

import contextlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from loguru import logger

from hypvl.checks import whole_number
from hypvl.errors import CheckpointError, ConfigError
from hypvl.io.files import exclusive_lock, write_atomically
from hypvl.io.tensors import write_torch
from hypvl.models.checkpoint_io import (
    BEST_NAME,
    LAST_NAME,
    checkpoint_damage,
    checkpoints,
    last_checkpoint,
    periodic_iteration,
)

LOCK_NAME = ".lock"
METRICS_NAME = "metrics.jsonl"
_PART = re.compile(r"\..+\.\d+\.part")


def checkpoint_name(iteration: int) -> str:
    """File name of a periodic checkpoint."""
    return f"checkpoint_{iteration:08d}.pth"


def save_checkpoint(folder: Path, state: Mapping[str, Any], *, name: str, keep: int | None = None) -> Path:
    """Write ``state`` to ``folder/name``, point ``last_checkpoint.txt`` at it and return the path (call on rank 0).

    The file gets its name only when it is complete and on disk; older periodic checkpoints beyond ``keep``
    are removed afterwards (None: none are). Those of a later iteration stay and do not count: they belong to another
    continuation, from before the pointer was set back.

    Raises:
        ValueError: for ``keep`` below 1; nothing was written.
        OSError: when it cannot be written (a full disk); the files that were there are unchanged.
    """
    if keep is not None:
        whole_number("keep", keep, least=1)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    write_torch(path, dict(state))
    point_at(path, keep=keep)
    return path


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, a file or a folder, if it is there. Raises OSError."""
    if path.is_dir():
        from hypvl.training.sharded_checkpoint import remove_folder

        remove_folder(path)
    else:
        path.unlink(missing_ok=True)


def point_at(path: Path, *, keep: int | None) -> None:
    """Name a checkpoint in ``last_checkpoint.txt``, and remove older periodic ones beyond ``keep``. Raises OSError."""
    folder, name = path.parent, path.name
    write_atomically(folder / LAST_NAME, name + "\n")
    if keep is not None:
        upto = periodic_iteration(path)
        dated = [(periodic_iteration(file), file) for file in folder.iterdir()]
        periodic = sorted((n, file) for n, file in dated if n is not None and (upto is None or n <= upto))
        for _, old in periodic[:-keep]:
            remove_checkpoint(old)


def newest_good(folder: Path) -> Path | None:
    """The newest checkpoint that is not damaged, None for a folder without any.

    It is the one ``last_checkpoint.txt`` names; if that is damaged, the one before it, with a warning. So is a pointer
    that is missing or wrong.

    Raises:
        CheckpointError: when every one is damaged.
    """
    last = last_checkpoint(folder)
    if last is None:
        return None
    if not (folder / LAST_NAME).exists():
        logger.warning("{}: has no {}; taking {}, the newest", folder, LAST_NAME, last.name)
    every = checkpoints(folder)
    older = every[every.index(last) + 1 :] if last in every else every
    damaged = []
    for path in (last, *older):
        try:
            damage = checkpoint_damage(path)
        except OSError as error:
            damage = f"cannot be read: {error.strerror or error}"
        if damage is None:
            return path
        logger.warning("{}: damaged ({}); looking for the checkpoint before it", path, damage)
        damaged.append(f"{path.name} ({damage})")
    raise CheckpointError(
        f"{folder}: no checkpoint to continue from, damaged are {', '.join(damaged)}; restore one of them, or "
        "start a new run in another folder."
    )


@dataclass
class RunFolder:
    """A run's folder: used by one run at a time, and never by a new run over an old one. A context of rank 0."""

    folder: Path  # it need not exist
    _: KW_ONLY
    resume: bool  # continue the run in it
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, init=False)
    _locked: bool = field(default=False, init=False)

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
        if not self._locked:
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
        self._locked = True
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
