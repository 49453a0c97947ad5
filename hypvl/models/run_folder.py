"""Which checkpoint a training run's folder stands for."""

import re
from pathlib import Path

from loguru import logger

from hypvl.errors import CheckpointError

FINAL_NAME = "checkpoint_final.pth"
LAST_NAME = "last_checkpoint.txt"
_PERIODIC = re.compile(r"checkpoint_(\d+)\.pth")
_UNREADABLE = (
    1 << 62
)  # a final checkpoint that cannot be read counts as the newest: it is not passed over silently


def periodic_iteration(path: Path) -> int | None:
    """The iteration in the name of a periodic checkpoint; None for another file."""
    match = _PERIODIC.fullmatch(path.name)
    return None if match is None else int(match.group(1))


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a run's folder, newest first: by iteration, the final one before a periodic one."""
    if not folder.is_dir():
        return []
    dated = []
    for path in folder.iterdir():
        iteration = _final_iteration(path) if path.name == FINAL_NAME else periodic_iteration(path)
        if iteration is not None and path.is_file():
            dated.append((iteration, path.name == FINAL_NAME, path))
    return [path for *_, path in sorted(dated, reverse=True)]


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that ``last_checkpoint.txt`` names, else the newest one that is there; None without any.

    Raises:
        CheckpointError: when the file it names is gone and there is no other.
    """
    pointer = folder / LAST_NAME
    named = folder / Path(pointer.read_text(errors="replace").strip()).name if pointer.is_file() else None
    if named is not None and named.is_file():
        return named
    newest = next(iter(checkpoints(folder)), None)
    if named is not None:
        if newest is None:
            raise CheckpointError(
                f"{pointer}: names {named.name}, which is not in {folder}; "
                "put it back, or write the name of a checkpoint that is there."
            )
        logger.warning("{}: names {}, which is not there; taking {}", pointer, named.name, newest.name)
    return newest


def checkpoint_file(path: str | Path) -> Path:
    """A checkpoint's path as it is; for a folder of a run, the last one it wrote.

    That is the one ``last_checkpoint.txt`` names; a ``checkpoint_final.pth`` from before the run was made longer is
    not taken for it.

    Raises:
        CheckpointError: for a folder that is no run, or whose last checkpoint is gone.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    last = last_checkpoint(path)
    if last is None:
        raise CheckpointError(
            f"{path}: a folder with neither {FINAL_NAME} nor {LAST_NAME}; expected a checkpoint file (.pth or "
            ".safetensors) or the folder of a training run."
        )
    return last


def _final_iteration(path: Path) -> int:
    """The iteration in a checkpoint, without reading its tensors."""
    import pickle

    import torch

    try:
        return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["iteration"])
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, TypeError, LookupError):
        return _UNREADABLE  # whoever loads it says what is wrong
