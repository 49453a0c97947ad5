"""A real Ray cluster of two processes on this machine."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypvl.units.engines import import_ray

ROOT = Path(__file__).resolve().parents[2]
_ATTEMPTS = 3  # a machine that is busy otherwise takes longer than the 30 s that Ray waits for its own start


@contextlib.contextmanager
def ray_of_two() -> Iterator[None]:
    """Start it while the block runs; without Ray the test is skipped."""
    pytest.importorskip("ray")
    ray = import_ray()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        for attempt in range(_ATTEMPTS):
            try:
                ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
                break
            except Exception:
                ray.shutdown()
                if attempt == _ATTEMPTS - 1:
                    raise
        try:
            yield
        finally:
            ray.shutdown()
