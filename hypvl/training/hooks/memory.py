"""Memory of the process: how much it is, for log records, and unused pages given back to the system."""

import ctypes
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from functools import cache
from pathlib import Path

import torch

from hypvl.checks import whole_number
from hypvl.training.loop import Hook, StepResult, Trainer

_STATUS = Path("/proc/self/statm")


def memory_gb() -> float:
    """Memory that the process holds now, in GB (1e9 bytes).

    On a GPU: what PyTorch's allocator has reserved there. Else resident memory of this process, without its data
    workers; where the system does not tell it (macOS), the peak.
    """
    if torch.cuda.is_available():
        return torch.cuda.memory_reserved() / 1e9
    try:
        return int(_STATUS.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9
    except OSError:
        return peak_memory_gb()


def peak_memory_gb() -> float:
    """The most memory so far, in GB (1e9 bytes): of tensors on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, others KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


@dataclass
class ReleaseMemory(Hook):
    """Every ``every`` steps gives pages that hold nothing any more back to the system.

    Of blocks up to 32 MiB, such as the gradients of a table of tokens, glibc keeps the pages, and the next step may not
    fit in where the last one was: resident memory grows, although nothing is held (docs/log.md). Other libraries of C
    have no such call, and nothing is done there.
    """

    _: KW_ONLY
    every: int = 100  # steps, at least 1
    _trim: Callable[[int], int] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        whole_number("every", self.every, least=1)
        self._trim = _malloc_trim()

    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        if self._trim is not None and trainer.iteration % self.every == 0:
            self._trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
