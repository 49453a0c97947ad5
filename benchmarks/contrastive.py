"""Contrastive loss, forward and backward, against the dense formula as a PyTorch user writes it.

    python -m benchmarks.contrastive --batch 8192 --dim 512 --scorer lorentz_distance

Time: both implementations in turn in one process, and the matrix products of the tiled one alone. Memory: the extra
peak of each in a process of its own. Error: value and gradients (relative norm over all of them) in fp32 against the
same formula in fp64, at --error-batch. Only ours runs where the dense one would not fit into memory.
--growth 4096,8192,16384,32768 prints the extra memory of ours for each batch instead. Prints one JSON line.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common import count, counts, report
from hypvl.geometry.base import Geometry
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import Cosine, ExteriorAngle, NegativeDistance, Scorer
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import IMAGE, TEXT, PairContext
from hypvl.losses.contrastive import Contrastive
from hypvl.ops.tiled_logsumexp.autograd import TILE

SCORERS: dict[str, tuple[Callable[[], Geometry], Callable[[], Scorer]]] = {
    "lorentz_distance": (Lorentz, NegativeDistance),
    "cosine": (Sphere, Cosine),
    "angle": (Lorentz, ExteriorAngle),
}
# Score matrices that autograd keeps for the dense formula, forward and backward, of B x B fp32 each.
_MATRICES = {"lorentz_distance": 14, "cosine": 6, "angle": 30}


Implementation: TypeAlias = Literal["tiled", "dense"]


class Given(nn.Module):
    """Geometry and scorer of embeddings that are already there."""

    def __init__(self, scorer: str) -> None:
        super().__init__()
        geometry, score = SCORERS[scorer]
        self.geometry, self.scorer = geometry(), score()

    def embed(self, features: Tensor, *, modality: str) -> Tensor:
        return features


def embeddings(batch: int, dim: int, *, scorer: str, seed: int) -> Tensor:
    """Points about as far out as trained ones: radius near 1, or unit vectors."""
    x = torch.randn(batch, dim, generator=torch.Generator().manual_seed(seed)) / math.sqrt(dim)
    return F.normalize(x) if scorer == "cosine" else x


def ours(model: Given, x: Tensor, y: Tensor, *, implementation: Implementation = "tiled") -> Tensor:
    """The library's term on given embeddings."""
    return Contrastive(implementation=implementation)(PairContext({IMAGE: x, TEXT: y}, batch={}, model=model))


def dense(model: Given, x: Tensor, y: Tensor, *, scorer: str) -> Tensor:
    """The formula of the published systems: whole matrices, one for each direction, and two cross entropies."""
    scale, labels = model.scorer.log_scale.exp(), torch.arange(len(x))
    if scorer == "cosine":
        return (F.cross_entropy(scale * x @ y.T, labels) + F.cross_entropy(scale * y @ x.T, labels)) / 2
    c = model.geometry.log_curv.exp()  # type: ignore[operator]  # a parameter
    pair = _angles if scorer == "angle" else _distances
    sign = 1 if scorer == "angle" else -1
    return (
        F.cross_entropy(sign * scale * pair(x, y, c), labels)
        + F.cross_entropy(-scale * pair(y, x, c), labels)
    ) / 2


def _inner(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
    return x @ y.T - _time(x, c) @ _time(y, c).T


def _time(x: Tensor, c: Tensor) -> Tensor:
    return (1 / c + x.square().sum(-1, keepdim=True)).sqrt()


def _distances(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
    return torch.acosh((-c * _inner(x, y, c)).clamp(min=1 + 1e-8)) / c.sqrt()


def _angles(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
    q = c * _inner(x, y, c)
    above = _time(y, c).T + q * _time(x, c)
    below = x.norm(dim=-1, keepdim=True) * (q.square() - 1).clamp(min=1e-8).sqrt()
    return torch.acos((above / (below + 1e-8)).clamp(-1 + 1e-8, 1 - 1e-8))


def products(x: Tensor, y: Tensor, *, matrices: int) -> None:
    """What the tiled implementation multiplies, tile by tile: scores twice (forward, and again), and two gradients."""
    rows, columns = TILE
    out = x.new_empty(rows, columns)
    grad_x, grad_y = torch.zeros_like(x), torch.zeros_like(y)
    for _ in range(matrices):
        for r in range(0, len(x), rows):
            for k in range(0, len(y), columns):
                a, b = x[r : r + rows], y[k : k + columns]
                z = out[: len(a), : len(b)]
                torch.mm(a, b.T, out=z)
                torch.mm(a, b.T, out=z)
                grad_x[r : r + rows].addmm_(z, b)
                grad_y[k : k + columns].addmm_(z.T, a)


def gradients(value: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(value, inputs, allow_unused=True)
    return [grad for grad in found if grad is not None]


def errors(batch: int, dim: int, *, scorer: str) -> dict[str, float]:
    """Relative error of value and gradients in fp32 of both our implementations, the tiled and the dense one."""
    points = [embeddings(batch, dim, scorer=scorer, seed=seed) for seed in (0, 1)]
    found: dict[str, list[Tensor]] = {}
    implementations: tuple[tuple[str, Implementation, torch.dtype], ...] = (
        ("exact", "dense", torch.float64),
        ("", "tiled", torch.float32),
        ("dense_", "dense", torch.float32),
    )
    for name, implementation, dtype in implementations:
        model = Given(scorer).to(dtype)
        inputs = [x.to(dtype).requires_grad_() for x in points]
        value = ours(model, *inputs, implementation=implementation)
        found[name] = [value.detach(), *gradients(value, [*inputs, *model.parameters()])]
    exact = found.pop("exact")
    out = {}
    for name, (value, *grads) in found.items():
        out[f"{name}value_error"] = abs(value.item() / exact[0].item() - 1)
        difference = math.hypot(
            *(float((g.double() - e).norm()) for g, e in zip(grads, exact[1:], strict=True))
        )
        out[f"{name}grad_error"] = difference / math.hypot(*(float(e.norm()) for e in exact[1:]))
    return out


def step(implementation: str, x: Tensor, y: Tensor, model: Given, *, scorer: str) -> None:
    """Forward and backward; gradients add up, as in a training step before they are cleared."""
    value = dense(model, x, y, scorer=scorer) if implementation == "dense" else ours(model, x, y)
    value.backward()


def extra_memory(implementation: str, batch: int, dim: int, scorer: str) -> float:
    """MiB of peak memory beyond inputs and their gradients, in a process of its own."""
    code = "from benchmarks.contrastive import measure_memory as m; import sys; m(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, implementation, str(batch), str(dim), scorer],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout)


def measure_memory(implementation: str, batch: str, dim: str, scorer: str) -> None:
    """Print the extra peak of one step, after a small one that loads what torch loads at first use."""
    model = Given(scorer)
    u, v = (embeddings(64, int(dim), scorer=scorer, seed=seed).requires_grad_() for seed in (0, 1))
    step(implementation, u, v, model, scorer=scorer)
    x, y = (embeddings(int(batch), int(dim), scorer=scorer, seed=seed).requires_grad_() for seed in (0, 1))
    x.grad, y.grad = torch.ones_like(x), torch.ones_like(y)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew (Linux)
    before = resident("VmRSS")
    step(implementation, x, y, model, scorer=scorer)
    print((resident("VmHWM") - before) / 1024)


def resident(name: str) -> int:
    """A line of /proc/self/status, KiB."""
    (line,) = (text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith(name))
    return int(line.split()[1])


def seconds(function: Callable[[], Any]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def measure(args: argparse.Namespace) -> Mapping[str, Any]:
    """All figures of one batch size."""
    model = Given(args.scorer)
    x, y = (embeddings(args.batch, args.dim, scorer=args.scorer, seed=s).requires_grad_() for s in (0, 1))
    with_dense = args.batch**2 * 4 * _MATRICES[args.scorer] < 0.6 * _memory()
    matrices = 2 if args.scorer == "angle" else 1
    repeats = args.repeats if args.repeats is not None else (3 if args.batch >= 32768 else 5)
    rounds = []
    for _ in range(repeats):
        mine = seconds(lambda: step("tiled", x, y, model, scorer=args.scorer))
        theirs = seconds(lambda: step("dense", x, y, model, scorer=args.scorer)) if with_dense else math.nan
        alone = seconds(lambda: products(x.detach(), y.detach(), matrices=matrices))
        rounds.append((mine, theirs, alone))
    memory = {
        implementation: extra_memory(implementation, args.batch, args.dim, args.scorer)
        for implementation in ("tiled", "dense")
        if implementation == "tiled" or with_dense
    }
    return {
        "scorer": args.scorer, "batch": args.batch, "dim": args.dim, "repeats": repeats,
        "seconds": statistics.median(r[0] for r in rounds),
        "time_ratio": statistics.median(r[0] / r[1] for r in rounds) if with_dense else None,
        "matmul_ratio": statistics.median(r[0] / r[2] for r in rounds),
        "extra_memory_mib": memory["tiled"],
        "memory_ratio": memory["tiled"] / memory["dense"] if with_dense and memory["dense"] else None,
        **errors(args.error_batch, args.dim, scorer=args.scorer),
    }  # fmt: skip


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=count, default=4096)
    parser.add_argument("--dim", type=count, default=512)
    parser.add_argument("--scorer", choices=SCORERS, default="lorentz_distance")
    parser.add_argument("--repeats", type=count, help="default: 5, from batches of 32768 on 3")
    parser.add_argument("--error-batch", type=count, default=1024, metavar="B")
    parser.add_argument(
        "--growth",
        type=counts,
        metavar="B,...",
        help="extra memory of our implementation for these batches, nothing else",
    )
    parser.add_argument("--json", action="store_true", help="the JSON line is what is always printed")
    args = parser.parse_args()
    if args.growth is not None:
        grown = {size: extra_memory("tiled", size, args.dim, args.scorer) for size in args.growth}
        report("contrastive_growth", {"scorer": args.scorer, "dim": args.dim, "extra_memory_mib": grown})
    else:
        report("contrastive", dict(measure(args)))


if __name__ == "__main__":
    main()
