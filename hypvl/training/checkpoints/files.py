"""Checkpoint files of a run: written whole or not at all, verified, found again, and removed when they are old.

A checkpoint is a ZIP archive that holds a SHA-256 of itself (:mod:`hypvl.io.zip_checksum`), so that it is verified
without a second file that could be lost or be out of date.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loguru import logger

from hypvl.checks import whole_number
from hypvl.errors import CheckpointError
from hypvl.io.files import write_atomically
from hypvl.io.tensors import write_torch
from hypvl.models.checkpoint_io import (
    LAST_NAME,
    checkpoint_damage,
    checkpoints,
    last_checkpoint,
    periodic_iteration,
)

_TRIES = 10  # of reading a folder while a run writes into it


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
        from hypvl.training.checkpoints.sharded import remove_folder

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
    that is missing or wrong. A run that is going on may write and remove checkpoints meanwhile.

    Raises:
        CheckpointError: when every one is damaged.
    """
    for _ in range(_TRIES):
        with contextlib.suppress(_RemovedError):
            return _newest_good(folder)
    raise CheckpointError(
        f"{folder}: its checkpoints are removed faster than they can be read; raise train.keep_checkpoints."
    )


class _RemovedError(Exception):
    """A checkpoint was removed while it was looked at."""


def _newest_good(folder: Path) -> Path | None:
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
        if not os.path.lexists(path):
            raise _RemovedError
        logger.warning("{}: damaged ({}); looking for the checkpoint before it", path, damage)
        damaged.append(f"{path.name} ({damage})")
    raise CheckpointError(
        f"{folder}: no checkpoint to continue from, damaged are {', '.join(damaged)}; restore one of them, or "
        "start a new run in another folder."
    )
