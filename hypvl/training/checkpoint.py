"""Checkpoint files of a run: written whole or not at all, verified, found again, and removed when they are old.

A checkpoint is a ZIP archive with a CRC-32 of every member (:mod:`hypvl.io.archives`): what is verified lies in the
file itself, so that no file beside it can be lost, be older than it, or be missing for a run of an earlier version.
"""

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loguru import logger

from hypvl.errors import CheckpointError, ConfigError
from hypvl.io.archives import zip_damage
from hypvl.io.files import exclusive_lock, write_atomically
from hypvl.io.tensors import write_torch
from hypvl.models.checkpoint_io import LAST_NAME, checkpoints, last_checkpoint, periodic_iteration

LOCK_NAME = ".lock"
METRICS_NAME = "metrics.jsonl"
_PART = re.compile(r"\..+\.\d+\.part")


def checkpoint_name(iteration: int) -> str:
    """File name of a periodic checkpoint."""
    return f"checkpoint_{iteration:08d}.pth"


def save_checkpoint(folder: Path, state: Mapping[str, Any], *, name: str, keep: int | None = None) -> Path:
    """Write ``state`` to ``folder/name`` and point ``last_checkpoint.txt`` at it (call on rank 0).

    The file gets its name only when it is complete and on disk; older periodic checkpoints beyond ``keep``
    are removed afterwards. Those of a later iteration stay and do not count: after the pointer was set back, they
    belong to another continuation.

    Args:
        folder: The run's folder.
        state: What to save.
        name: File name.
        keep: How many periodic checkpoints stay, at least 1; None = all.

    Returns:
        The path written.

    Raises:
        ValueError: for ``keep`` below 1; nothing was written.
        OSError: when it cannot be written (a full disk); what was there is still there.
    """
    if keep is not None and keep < 1:
        raise ValueError(f"keep: got {keep}; expected at least 1, or None for all.")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    write_torch(path, dict(state))
    write_atomically(folder / LAST_NAME, name + "\n")
    if keep is not None:
        _retain(folder, keep, upto=periodic_iteration(path))
    return path


def newest_good(folder: Path) -> Path | None:
    """The newest checkpoint whose content is whole, None for a folder without any.

    It is that of ``last_checkpoint.txt``; where it is damaged, the one before it, with a warning.

    Raises:
        CheckpointError: when every one is damaged.
    """
    last = last_checkpoint(folder)
    if last is None:
        return None
    found = checkpoints(folder)
    older = found[found.index(last) + 1 :] if last in found else found
    damaged = []
    for path in (last, *older):
        damage = zip_damage(path)
        if damage is None:
            return path
        logger.warning("{}: damaged ({}); looking for the checkpoint before it", path, damage)
        damaged.append(f"{path.name} ({damage})")
    raise CheckpointError(
        f"{folder}: no checkpoint to continue from, damaged are {', '.join(damaged)}; restore one of them, or "
        "start a new run in another folder."
    )


class RunFolder:
    """A run's folder: by one run at a time, and never a new run over an old one. Used by rank 0, as a context.

    Args:
        folder: Where; it need not exist.
        resume: Continue the run in it.
    """

    def __init__(self, folder: Path, *, resume: bool) -> None:
        self.folder = folder
        self.resume = resume
        self._held = contextlib.ExitStack()
        self._locked = False

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def start(self) -> Path | None:
        """The checkpoint to continue from; None starts at iteration 0. Nothing is made where there is no folder.

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
        self._refuse_a_run()
        return None

    def make(self) -> None:
        """Make the folder if it is not there.

        Raises:
            ConfigError: when that is not possible, or another run has made it since :meth:`start`.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"--output-dir: {self.folder} cannot be made ({error.strerror}); name another folder."
            ) from error
        if not self._locked:
            self._lock()
            self._refuse_a_run()

    def _lock(self) -> None:
        """Keep others out, and remove what killed runs left half written."""
        try:
            self._held.enter_context(exclusive_lock(self.folder / LOCK_NAME, wait=False))
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
                part.unlink()

    def _refuse_a_run(self) -> None:
        last = last_checkpoint(self.folder)
        metrics = self.folder / METRICS_NAME
        if last is not None:
            held = last.name
        elif metrics.is_file() and metrics.stat().st_size:
            held = f"{METRICS_NAME}, without a checkpoint"
        else:
            return
        raise ConfigError(
            f"--output-dir: {self.folder} already holds a run ({held}); add --resume to continue it, "
            "or name another folder."
        )


def _retain(folder: Path, keep: int, *, upto: int | None) -> None:
    """Remove all but the ``keep`` newest periodic checkpoints up to an iteration (None: all of them)."""
    dated = [(periodic_iteration(path), path) for path in folder.iterdir()]
    periodic = sorted((n, path) for n, path in dated if n is not None and (upto is None or n <= upto))
    for _, old in periodic[:-keep]:
        old.unlink()
