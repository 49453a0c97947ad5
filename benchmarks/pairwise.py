"""Losses over all pairs of a batch, forward and backward: our tiled implementation against our dense one.

    python -m benchmarks.pairwise --loss siglip --batch 8192 --dim 512 --scorer cosine

CPU time: both in turn in one process. Memory: the extra peak of each in a process of its own. Error: value and
gradients of the first rows (relative norm) in fp32 against the dense formula in fp64, at --error-batch. Prints one JSON
line. ``soft_targets`` are --batch rows of a student and a teacher against a queue of 65,536 keys.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from benchmarks.common import count, report
from benchmarks.contrastive import SCORERS, Given, embeddings, gradients, resident
from hypvl.losses.base import IMAGE, TEXT, LossTerm, PairContext
from hypvl.losses.cloob import CLOOB
from hypvl.losses.cyclip import CrossModalCyclic, InModalCyclic
from hypvl.losses.sigmoid import Sigmoid
from hypvl.losses.soft_targets import distribution_cross_entropy
from hypvl.losses.uniformity import CrossUniform, Uniform

Implementation: TypeAlias = Literal["tiled", "dense"]
QUEUE = 65_536
LOSSES: dict[str, Callable[[Implementation], LossTerm]] = {
    "siglip": lambda way: Sigmoid(bias_init=-10.0, implementation=way),
    "cyclip_in_modal": lambda way: InModalCyclic(implementation=way),
    "cyclip_cross_modal": lambda way: CrossModalCyclic(implementation=way),
    "cloob": lambda way: CLOOB(implementation=way),
    "uniform": lambda way: Uniform("image", implementation=way),
    "cross_uniform": lambda way: CrossUniform(implementation=way),
}


class Step:
    """Value of a loss on two sets of rows, and its gradients: of rows first, then of parameters."""

    def __init__(
        self, loss: str, scorer: str, *, batch: int, dim: int, dtype: torch.dtype = torch.float32
    ) -> None:
        self.loss, self.model = loss, Given(scorer).to(dtype)
        self.rows = [
            embeddings(batch, dim, scorer=scorer, seed=seed).to(dtype).requires_grad_() for seed in (0, 1)
        ]
        if loss == "soft_targets":
            self.rows[1].requires_grad_(False)
            self.queue = embeddings(QUEUE, dim, scorer=scorer, seed=2).to(dtype)

    def value(self, way: Implementation) -> tuple[Tensor, list[nn.Parameter]]:
        if self.loss == "soft_targets":
            student, teacher = self.rows
            value = distribution_cross_entropy(
                student, teacher, self.queue, self.queue,
                student_temperature=0.07, teacher_temperature=0.04, implementation=way,
            )  # fmt: skip
            return value, []
        term = LOSSES[self.loss](way).to(self.rows[0].dtype)
        ctx = PairContext({IMAGE: self.rows[0], TEXT: self.rows[1]}, batch={}, model=self.model)
        return term(ctx), [p for p in (*self.model.parameters(), *term.parameters()) if p.requires_grad]

    def __call__(self, way: Implementation) -> list[Tensor]:
        value, parameters = self.value(way)
        rows = [x for x in self.rows if x.requires_grad]
        return [value.detach(), *gradients(value, [*rows, *parameters])]


def errors(loss: str, scorer: str, *, batch: int, dim: int) -> dict[str, float]:
    """Relative error of the value and of the gradients of rows, in fp32, of both implementations."""
    exact = Step(loss, scorer, batch=batch, dim=dim, dtype=torch.float64)("dense")[:2]
    ways: tuple[Implementation, ...] = ("tiled", "dense")
    out = {}
    for way in ways:
        found = Step(loss, scorer, batch=batch, dim=dim)(way)
        for what, a, b in zip(("value", "grad"), found, exact, strict=False):
            out[f"{way}_{what}_error"] = float((a.double() - b).norm() / b.norm())
    return out


def extra_memory(way: str, loss: str, scorer: str, *, batch: int, dim: int) -> float:
    """MiB of peak memory beyond the rows and the gradients that come out, in a process of its own."""
    code = "from benchmarks.pairwise import measure_memory as m; import sys; m(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, way, loss, scorer, str(batch), str(dim)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout)


def measure_memory(way: Implementation, loss: str, scorer: str, batch: str, dim: str) -> None:
    """Print the extra peak of one step, after a small one that loads what torch loads at first use."""
    Step(loss, scorer, batch=32, dim=int(dim))(way)
    step = Step(loss, scorer, batch=int(batch), dim=int(dim))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew (Linux)
    before = resident("VmRSS")
    grads = step(way)
    print((resident("VmHWM") - before) / 1024 - sum(g.nbytes for g in grads) / 2**20)


def cpu_seconds(step: Step, *, repeats: int) -> list[tuple[float, float]]:
    """Of the tiled and of the dense implementation, in turn."""

    def seconds(way: Implementation) -> float:
        started = time.process_time()
        step(way)
        return time.process_time() - started

    return [(seconds("tiled"), seconds("dense")) for _ in range(repeats)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loss", choices=[*LOSSES, "soft_targets"], default="siglip")
    parser.add_argument("--batch", type=count, default=8192)
    parser.add_argument("--dim", type=count, default=512)
    parser.add_argument("--scorer", choices=SCORERS, default="cosine")
    parser.add_argument("--repeats", type=count, default=3)
    parser.add_argument("--error-batch", type=count, default=1024, metavar="B")
    args = parser.parse_args()
    sizes = {"batch": args.batch, "dim": args.dim}
    pairs = cpu_seconds(Step(args.loss, args.scorer, **sizes), repeats=args.repeats)
    memory = {way: extra_memory(way, args.loss, args.scorer, **sizes) for way in ("tiled", "dense")}
    report(
        "pairwise",
        {
            "loss": args.loss, "scorer": args.scorer, **sizes, "repeats": args.repeats,
            "cpu_seconds": statistics.median(a for a, _ in pairs),
            "time_ratio": statistics.median(a / b for a, b in pairs),
            "extra_memory_mib": memory["tiled"], "dense_extra_memory_mib": memory["dense"],
            "memory_ratio": memory["tiled"] / memory["dense"],
            **errors(args.loss, args.scorer, batch=args.error_batch, dim=args.dim),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
