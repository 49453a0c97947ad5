"""Keys that travel in a ring against keys that are gathered: memory and time of a contrastive loss on several ranks.

    python -m benchmarks.ring --ranks 4 --batch 1024 --dim 1024

Forward and backward of the tiled contrastive loss between images and texts on the hyperboloid, in fp32 on gloo, once,
each way in processes of its own. Memory: the extra peak of a rank beside its own features, the largest over ranks;
`memory_ratio` = that of the ring over that of gathering, `blocks_*` = in blocks of --batch rows. `time_ratio`: seconds
of the ring over those of gathering. `grad_difference`: relative norm of the difference of the gradients of the
features. Prints one JSON line.
"""

import argparse
import socket
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from benchmarks.common import count, report
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import NegativeDistance
from hypvl.losses.base import IMAGE, TEXT, PairContext
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.ring import Gather

_TILE = (256, 256)  # small beside the blocks


class _Space(torch.nn.Module):
    """A model whose features are given."""

    def __init__(self) -> None:
        super().__init__()
        self.geometry, self.scorer = Lorentz(), NegativeDistance()

    def embed(self, features: Tensor, *, modality: str) -> Tensor:
        return features  # any vector is a point of the hyperboloid


def features(batch: int, dim: int, *, rank: int) -> dict[Any, Tensor]:
    """A rank's rows of both views, (B, D)."""
    generator = torch.Generator().manual_seed(rank)
    return {
        view: (torch.randn(batch, dim, generator=generator) / dim**0.5).requires_grad_()
        for view in (IMAGE, TEXT)
    }


def step(rows: dict[Any, Tensor], gather: Gather) -> None:
    """Forward and backward."""
    Contrastive(implementation="tiled", tile=_TILE)(
        PairContext(rows, batch={}, model=_Space(), gather=gather)
    ).backward()


def _rank(rank: int, world: int, port: int, batch: int, dim: int, gather: Gather, results: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    step(features(4, dim, rank=rank), gather)  # loads what torch loads at first use
    rows = features(batch, dim, rank=rank)
    dist.barrier()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew (Linux)
    before, started = _status("VmRSS"), time.perf_counter()
    step(rows, gather)
    seconds = time.perf_counter() - started
    memory = (_status("VmHWM") - before) / 1024
    results.put((rank, memory, seconds, [x.grad.tolist() for x in rows.values()] if rank == 0 else None))  # type: ignore[union-attr]
    dist.barrier()
    dist.destroy_process_group()


def _status(name: str) -> int:
    """A line of /proc/self/status, KiB."""
    (line,) = (text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith(name))
    return int(line.split()[1])


def measure_way(args: argparse.Namespace, gather: Gather) -> tuple[float, float, Tensor]:
    """MiB of extra peak memory and seconds, the largest over ranks, and the gradients of rank 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("spawn")
    queue = context.SimpleQueue()
    given = (args.ranks, port, args.batch, args.dim, gather, queue)
    started = mp.start_processes(_rank, args=given, nprocs=args.ranks, join=False, start_method="spawn")  # type: ignore[no-untyped-call]
    found = [queue.get() for _ in range(args.ranks)]
    while not started.join():
        pass
    gradients = next(result[3] for result in found if result[0] == 0)
    return max(r[1] for r in found), max(r[2] for r in found), torch.tensor(gradients)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    block = args.batch * args.dim * 4 / 2**20
    memory_all, seconds_all, gradients = measure_way(args, "all")
    memory, seconds, others = measure_way(args, "ring")
    return {
        "ranks": args.ranks, "batch": args.batch, "dim": args.dim, "block_mib": block,
        "extra_mib_all": memory_all, "extra_mib_ring": memory, "blocks_all": memory_all / block,
        "blocks_ring": memory / block, "memory_ratio": memory / memory_all, "time_ratio": seconds / seconds_all,
        "grad_difference": float((others - gradients).norm() / gradients.norm()),
    }  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--ranks", type=count, default=4)
    flags.add_argument("--batch", type=count, default=1024, help="rows of a rank")
    flags.add_argument("--dim", type=count, default=1024)
    flags.add_argument("--json", action="store_true", help="the JSON line is what is always printed")
    return flags


if __name__ == "__main__":
    report("ring", measure(parser().parse_args()))
