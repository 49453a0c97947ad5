"""Repeated timing of two sides in turn, and what machine it was."""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import hypvl


def count(text: str) -> int:
    """A whole number of at least 1, as argparse takes it."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a whole number of at least 1")
    return int(text)


def counts(text: str) -> list[int]:
    """Such numbers, with commas."""
    return [count(part) for part in text.split(",")]


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
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "hypvl": hypvl.__version__,
    }
    print(json.dumps({"benchmark": name, **figures, "machine": machine}))


def _processor() -> str:
    """Its model, where Linux says it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _seconds(function: Callable[[], Any]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started
