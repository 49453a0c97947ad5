"""Repeated timing of two sides in turn, and what machine it was."""

import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

import hypvl


def paired(ours: Callable[[], Any], theirs: Callable[[], Any], *, repeats: int) -> dict[str, float]:
    """Median seconds of both, run in turn, and the median of their ratios (theirs / ours)."""
    pairs = []
    for _ in range(repeats):
        pairs.append((_seconds(ours), _seconds(theirs)))
    return {
        "ours_seconds": statistics.median(a for a, _ in pairs),
        "theirs_seconds": statistics.median(b for _, b in pairs),
        "throughput_ratio": statistics.median(b / a for a, b in pairs),
        "repeats": repeats,
    }


def report(name: str, figures: dict[str, Any]) -> None:
    """Print the one JSON line."""
    machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "hypvl": hypvl.__version__,
    }
    print(json.dumps({"benchmark": name, **figures, "machine": machine}))


def _seconds(function: Callable[[], Any]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started
