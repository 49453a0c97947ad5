"""Runs a function in several gloo processes and returns what each rank gave."""

import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

# Ranks are forked from a process that has read the library once, and has never computed anything.
multiprocessing.set_forkserver_preload(["tests.training.tiny"])


def _entry(rank: int, folder: str, world: int, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    try:
        torch.save(function(*args), Path(folder) / f"rank{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


def run_ranks(world: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """``function(*args)`` on ``world`` gloo processes (picklable, importable); results in rank order."""
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(
            _entry, args=(folder, world, function, args), nprocs=world, join=True, start_method="forkserver"
        )
        return [torch.load(Path(folder) / f"rank{r}.pt", weights_only=False) for r in range(world)]
