"""A training step with gradient caching against the plain one: memory for several batches, time, gradients.

    python -m benchmarks.grad_cache --batches 32,128 --micro-batch 8 --image-size 112

The model of `configs/train_meru_vit_s.py` (ViT-S/16, 12 text layers of width 512) on random images of --image-size
pixels and texts of 12 tokens, forward and backward in fp32. Memory: the extra peak of one step of each way and batch
in a process of its own, beside weights, gradients and the batch; `memory_ratio` (cached / plain) is that of the largest
batch, `memory_per_sample_mib` what each further sample costs. Time: both in turn in one process at --time-batch,
`time_ratio` = cached / plain (one more forward pass: 4/3 of the operations). `grad_error`: relative norm of the
difference of all gradients there. Prints one JSON line.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import count, counts, report
from hypvl.config import LazyConfig, instantiate
from hypvl.training.accumulation import GradCache
from hypvl.training.step import Learner, Precision, forward_backward

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "train_meru_vit_s.py"
START, END, TOKENS = 49406, 49407, 12
FULL = Precision.choose("fp32", torch.device("cpu"))


def learner_of(arch: str, text_arch: str, image_size: int) -> Learner:
    """The recipe's model and objective."""
    cfg = LazyConfig.load(CONFIG)
    cfg.model.visual.arch, cfg.model.visual.image_size, cfg.model.textual.arch = arch, image_size, text_arch
    torch.manual_seed(0)
    return Learner(instantiate(cfg.model), instantiate(cfg.train.objective)).train()


def batch_of(rows: int, image_size: int) -> dict[str, Tensor]:
    """Images and texts."""
    generator = torch.Generator().manual_seed(rows)
    text = torch.randint(1, START, (rows, TOKENS), generator=generator)
    text[:, 0], text[:, -1] = START, END
    image = torch.randint(0, 256, (rows, 3, image_size, image_size), generator=generator, dtype=torch.uint8)
    return {"image": image, "text": text}


def step(learner: Learner, batch: dict[str, Tensor], cache: GradCache | None) -> None:
    """Forward and backward; gradients add up."""
    forward_backward(learner, batch, precision=FULL, scaler=FULL.make_scaler(), cache=cache)


def gradients(learner: Learner, batch: dict[str, Tensor], cache: GradCache | None) -> list[Tensor]:
    """Of every trained parameter."""
    learner.zero_grad(set_to_none=True)
    step(learner, batch, cache)
    return [p.grad for p in learner.parameters() if p.grad is not None]


def relative_error(found: list[Tensor], expected: list[Tensor]) -> float:
    """Norm of the difference over all tensors together."""
    pairs = list(zip(found, expected, strict=True))
    difference = sum(float((f - e).double().square().sum()) for f, e in pairs)
    return (difference / sum(float(e.double().square().sum()) for e in expected)) ** 0.5


def extra_memory(micro_batch: int, rows: int, args: argparse.Namespace) -> float:
    """MiB of peak memory of one step beyond what is there before it; a micro-batch of 0 is the plain step."""
    code = "from benchmarks.grad_cache import measure_memory as m; import sys; m(*sys.argv[1:])"
    given = (micro_batch, rows, args.image_size, args.arch, args.text_arch)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, given)], capture_output=True, text=True, check=True
    )
    return float(done.stdout.splitlines()[-1])


def measure_memory(micro_batch: str, rows: str, image_size: str, arch: str, text_arch: str) -> None:
    """Print the extra peak of one step, after one of two rows that loads what torch loads at first use."""
    learner, size = learner_of(arch, text_arch, int(image_size)), int(image_size)
    cache = GradCache(int(micro_batch)) if int(micro_batch) else None
    step(learner, batch_of(2, size), cache)  # gradients of the weights are there from now on
    batch = batch_of(int(rows), size)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew (Linux)
    before = _status("VmRSS")
    step(learner, batch, cache)
    print((_status("VmHWM") - before) / 1024)


def _status(name: str) -> int:
    """A line of /proc/self/status, KiB."""
    (line,) = (text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith(name))
    return int(line.split()[1])


def _seconds(learner: Learner, batch: dict[str, Tensor], cache: GradCache | None) -> float:
    started = time.perf_counter()
    step(learner, batch, cache)
    return time.perf_counter() - started


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    batches = args.batches
    memory = {
        name: {rows: extra_memory(micro, rows, args) for rows in batches}
        for name, micro in (("cached", args.micro_batch), ("plain", 0))
    }
    least, most = min(batches), max(batches)
    learner, cache = learner_of(args.arch, args.text_arch, args.image_size), GradCache(args.micro_batch)
    batch = batch_of(args.time_batch, args.image_size)
    plain, cached = (gradients(learner, batch, way) for way in (None, cache))
    error = relative_error(cached, plain)
    rounds = [(_seconds(learner, batch, cache), _seconds(learner, batch, None)) for _ in range(args.repeats)]
    return {
        "micro_batch": args.micro_batch, "image_size": args.image_size, "arch": args.arch,
        "text_arch": args.text_arch, "repeats": args.repeats, "time_batch": args.time_batch,
        "extra_memory_mib": memory,
        "memory_per_sample_mib": {
            name: (found[most] - found[least]) / max(1, most - least) for name, found in memory.items()
        },
        "memory_ratio": memory["cached"][most] / memory["plain"][most],
        "cached_seconds": statistics.median(c for c, _ in rounds),
        "plain_seconds": statistics.median(p for _, p in rounds),
        "time_ratio": statistics.median(c / p for c, p in rounds),
        "grad_error": error,
    }  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument(
        "--batches", type=counts, default="32,128", metavar="B,...", help="whose memory is measured"
    )
    flags.add_argument("--micro-batch", type=count, default=8)
    flags.add_argument("--image-size", type=count, default=112, help="224 takes four times as long")
    flags.add_argument("--arch", default="vit_small_patch16_224")
    flags.add_argument("--text-arch", default="L12_W512")
    flags.add_argument("--time-batch", type=count, default=32, metavar="B", help="whose time is measured")
    flags.add_argument("--repeats", type=count, default=5)
    flags.add_argument("--json", action="store_true", help="the JSON line is what is always printed")
    return flags


if __name__ == "__main__":
    report("grad_cache", measure(parser().parse_args()))
