"""The global random generators of a process: seeded, saved in checkpoints, restored, held still."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from loguru import logger

from hypvl import distributed


def seed_everything(seed: int) -> None:
    """Seed every global generator of this process: torch's, NumPy's and Python's."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  # the global state others may use
    random.seed(seed)


def random_state() -> list[dict[str, Any]]:
    """State of this process's generators, of every rank in rank order (a collective)."""
    return distributed.gather_objects(_own())


def restore_random_state(states: Sequence[Mapping[str, Any]]) -> None:
    """Restore the generators of this process; with another number of processes, only warn."""
    if len(states) != distributed.world_size():
        logger.warning(
            "random state: saved by {} processes, running {}; dropout draws anew, the data order is unchanged",
            len(states),
            distributed.world_size(),
        )
        return
    _restore(states[distributed.rank()])


@contextmanager
def unchanged_random_state() -> Iterator[None]:
    """Afterwards every global generator of this process is as it was before, whatever was drawn inside."""
    before = _own()
    try:
        yield
    finally:
        _restore(before)


def _own() -> dict[str, Any]:
    state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    kind, keys, pos, has_gauss, cached = np.random.get_state()  # noqa: NPY002  # the global state others may use
    state["numpy"] = [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), pos, has_gauss, cached]
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _restore(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, pos, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), pos, has_gauss, cached))  # noqa: NPY002
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
