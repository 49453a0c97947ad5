"""Torch's random generators, remembered and put back, so that a module draws the same numbers again."""

import torch
from torch import Tensor


def rng_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """State of the generators that a module on ``device`` draws from: the CPU's, and the GPU's where it is one."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def set_rng_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    """Undo every draw since :func:`rng_state`."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
