"""Checkpoints of a run: written whole or not at all, found again, and restored exactly."""

import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger

from hypvl import distributed
from hypvl.io.files import write_atomically
from hypvl.models.checkpoint_io import FORMAT_VERSION
from hypvl.models.run_folder import LAST_NAME

_PERIODIC = re.compile(r"checkpoint_(\d{8})\.pth")


def checkpoint_name(iteration: int) -> str:
    """File name of a periodic checkpoint."""
    return f"checkpoint_{iteration:08d}.pth"


def save_checkpoint(folder: Path, state: Mapping[str, Any], *, name: str, keep: int | None = None) -> Path:
    """Write ``state`` to ``folder/name`` and point ``last_checkpoint.txt`` at it (call on rank 0).

    The file gets its name only when it is complete and on disk; older periodic checkpoints beyond ``keep``
    are removed afterwards.

    Args:
        folder: The run's folder.
        state: What to save; ``format_version`` is added.
        name: File name.
        keep: How many periodic checkpoints stay; None = all.

    Returns:
        The path written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    write_atomically(path, lambda file: torch.save({"format_version": FORMAT_VERSION, **state}, file))
    write_atomically(folder / LAST_NAME, name + "\n")
    if keep is not None:
        periodic = sorted(p for p in folder.iterdir() if _PERIODIC.fullmatch(p.name))
        for old in periodic[: max(0, len(periodic) - keep)]:
            old.unlink()
    return path


def random_state() -> list[dict[str, Any]]:
    """State of this process's generators, of every rank in rank order (a collective)."""
    state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    kind, keys, pos, has_gauss, cached = np.random.get_state()  # noqa: NPY002  # the global state others may use
    state["numpy"] = [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), pos, has_gauss, cached]
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return distributed.gather_objects(state)


def restore_random_state(states: list[dict[str, Any]]) -> None:
    """Give this process the generators' state it had; with another number of processes, say so and go on."""
    if len(states) != distributed.world_size():
        logger.warning(
            "random state: saved by {} processes, running {}; dropout draws anew, the data order is unchanged",
            len(states),
            distributed.world_size(),
        )
        return
    state = states[distributed.rank()]
    torch.set_rng_state(state["torch"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, pos, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), pos, has_gauss, cached))  # noqa: NPY002
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
