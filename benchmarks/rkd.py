"""The angle term of RKD: memory against the tensor of all triples, time, and gradients against it.

    python -m benchmarks.rkd --batch 1024 --dim 256

Forward and backward in fp32, the gradient of the student's features only, once, in a process of its own. Memory: the
extra peak beside the features; `memory_ratio` = that over the B^3 tensor of angles in fp32, of which the usual code
holds several. Time: `time_per_product` = seconds over those of B products of B x D x B; the term needs three times as
many (student, teacher, and the student's gradient). `grad_error`: relative
norm of the difference to the usual code in fp64 at --check-batch. Prints one JSON line.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common import count, report
from hypvl.losses.rkd import angle_loss

_PRODUCTS = 64  # that are timed


def features(batch: int, dim: int) -> tuple[Tensor, Tensor]:
    """Student and teacher, (B, D)."""
    generator = torch.Generator().manual_seed(batch)
    student, teacher = (torch.randn(batch, dim, generator=generator) for _ in range(2))
    return student.requires_grad_(), teacher


def step(student: Tensor, teacher: Tensor) -> None:
    """Forward and backward."""
    angle_loss(student, teacher, student, teacher).backward()


def usual(student: Tensor, teacher: Tensor) -> Tensor:
    """The term from the tensors of all triples."""
    angles = []
    for x in (student, teacher):
        units = F.normalize(x[None] - x[:, None], dim=-1)  # (B, B, D)
        angles.append(units @ units.mT)  # (B, B, B)
    return F.smooth_l1_loss(angles[0], angles[1])


def gradient_error(batch: int, dim: int) -> float:
    """Norm of the difference of the gradients over their norm."""
    student, teacher = features(batch, dim)
    step(student, teacher)
    exact = student.detach().double().requires_grad_()
    usual(exact, teacher.double()).backward()
    assert student.grad is not None and exact.grad is not None
    return float((student.grad - exact.grad).norm() / exact.grad.norm())


def memory_and_seconds(batch: int, dim: int) -> tuple[float, float]:
    """MiB of peak memory of one step beyond what is there before it, and how long it takes."""
    code = "from benchmarks.rkd import measure_step as m; import sys; m(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(batch), str(dim)], capture_output=True, text=True, check=True
    )
    memory, seconds = map(float, done.stdout.split()[-2:])
    return memory, seconds


def measure_step(batch: str, dim: str) -> None:
    """Print the extra peak and the time of one step, after a small one that loads what torch loads at first use."""
    step(*features(4, int(dim)))
    rows = features(int(batch), int(dim))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew (Linux)
    before = _status("VmRSS")
    started = time.perf_counter()
    step(*rows)
    seconds = time.perf_counter() - started
    print((_status("VmHWM") - before) / 1024, seconds)


def _status(name: str) -> int:
    """A line of /proc/self/status, KiB."""
    (line,) = (text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith(name))
    return int(line.split()[1])


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    batch, dim = args.batch, args.dim
    triples = batch**3 * 4 / 2**20
    memory, seconds = memory_and_seconds(batch, dim)
    rows, out = torch.randn(batch, dim), torch.empty(batch, batch)
    started = time.perf_counter()
    for _ in range(_PRODUCTS):
        torch.mm(rows, rows.mT, out=out)
    products = (time.perf_counter() - started) / _PRODUCTS * batch
    return {
        "batch": batch, "dim": dim, "extra_memory_mib": memory, "triples_mib": triples,
        "memory_ratio": memory / triples, "seconds": seconds, "time_per_product": seconds / products,
        "grad_error": gradient_error(args.check_batch, dim),
    }  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--batch", type=count, default=1024)
    flags.add_argument("--dim", type=count, default=256)
    flags.add_argument("--check-batch", type=count, default=128, help="where the usual code is run, in fp64")
    flags.add_argument("--json", action="store_true", help="the JSON line is what is always printed")
    return flags


if __name__ == "__main__":
    report("rkd", measure(parser().parse_args()))
