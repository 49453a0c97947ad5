"""Memory in log records, and pages given back to the system."""

import ctypes
import mmap

import pytest

from hypvl.training.hooks import memory
from hypvl.training.hooks.memory import ReleaseMemory, memory_gb, peak_memory_gb
from tests.training.test_loop import trainer
from tests.training.tiny import tiny_learner


def test_the_current_size_falls_again_and_the_peak_does_not() -> None:
    with mmap.mmap(-1, 200_000_000) as block:
        block.write(b"1" * 200_000_000)
        held = memory_gb()
    after, peak = memory_gb(), peak_memory_gb()
    assert held - after == pytest.approx(0.2, abs=0.02)
    assert peak >= held - 0.01


@pytest.mark.skipif(memory._malloc_trim() is None, reason="the library of C is not glibc")
def test_freed_blocks_go_back_to_the_system_every_100_steps() -> None:
    """Of 2,000 blocks of 100 kB every tenth stays, the last one too: the heap cannot shrink from its end."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    blocks = [libc.malloc(100_000) for _ in range(2000)]
    for block in blocks:
        ctypes.memset(block, 1, 100_000)
    for block in set(blocks) - set(blocks[9::10]):
        libc.free(block)
    held = memory_gb()
    hook, run = ReleaseMemory(), trainer(tiny_learner("clip"), hooks=())
    run.iteration = 99
    hook.after_step(run, None)  # type: ignore[arg-type]
    assert memory_gb() > held - 0.05
    run.iteration = 100
    hook.after_step(run, None)  # type: ignore[arg-type]
    assert memory_gb() < held - 0.15
    for block in blocks[9::10]:
        libc.free(block)


def test_a_period_below_a_step_is_refused() -> None:
    with pytest.raises(ValueError, match="every: got 0; expected a whole number of at least 1"):
        ReleaseMemory(every=0)
