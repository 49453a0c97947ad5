"""Training steps (forward, backward, optimizer) against open_clip's, in images per second.

    python -m benchmarks.step --batch 16 --tokens 12

Ours is `configs/train_clip_vit_s.py` with the 6 heads of ViT-S/16, run by the training loop: bytes of pixels and padded
tokens with their lengths in, 12 text layers of width 512, AdamW as the recipe has it (fused). Theirs is open_clip's
ViT-S-16 (12 text layers of width 384) on pixels that are normalised already and texts padded to 77 tokens, with its
ClipLoss and the AdamW of its training script (not fused: `throughput_ratio_fused` gives it the fused one). Both start
from random weights and see the same images and captions, in turn in one process. `throughput_ratio_padded` is ours
with texts of 77 tokens. bf16 is compared where the CPU computes in it (`cpu_bf16`), and on a GPU. On a GPU: images per
second, the share of --peak-tflops that the model's operations come to (`mfu`), and of the time spent waiting for
pinned batches from two workers (`data_wait`). Prints one JSON line.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import count, report
from hypvl.config import LazyConfig, instantiate
from hypvl.data.batch import row_lengths
from hypvl.encoders.image_base import normalize_pixels
from hypvl.training.loop import Trainer
from hypvl.training.step import Learner, Precision, to_device

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "train_clip_vit_s.py"
START, END, CONTEXT = 49406, 49407, 77
OURS = ("model.visual.arch=vit_small_patch16_224",)
THEIRS = "ViT-S-16"


def captions(rows: int, tokens: float, *, seed: int = 0) -> Tensor:
    """Random captions of about that many tokens, start and end included: (rows, longest)."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(np.rint(rng.normal(tokens, tokens / 4, rows)).astype(int), 3, CONTEXT)
    out = torch.zeros(rows, int(lengths.max()), dtype=torch.int64)
    for row, length in zip(out, lengths, strict=True):
        row[:length] = torch.from_numpy(np.minimum(rng.zipf(1.3, length), START - 1))
        row[0], row[length - 1] = START, END
    return out


def batch_of(rows: int, tokens: float, *, size: int = 224, seed: int = 0) -> dict[str, Any]:
    """What our loader gives."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (rows, 3, size, size), dtype=torch.uint8, generator=generator)
    text = captions(rows, tokens, seed=seed)
    return {"image": image, "text": text, "text_lengths": row_lengths(text)}


class Ours:
    """Our training loop, a step at a time.

    Args:
        overrides: Of the recipe.
        device: Where it trains.
        amp: Precision, as ``train.amp``.
    """

    def __init__(self, overrides: tuple[str, ...], device: torch.device, *, amp: Any = "fp32") -> None:
        cfg = LazyConfig.apply_overrides(LazyConfig.load(CONFIG), list(overrides))
        torch.manual_seed(0)
        learner = Learner(instantiate(cfg.model), instantiate(cfg.train.objective)).to(device)
        optimizer = instantiate(cfg.optim.optimizer)(instantiate(cfg.optim.parameters)(learner))
        precision = Precision.choose(amp, device)
        self.trainer = Trainer(
            learner=learner, module=learner, optimizer=optimizer,
            scheduler=instantiate(cfg.optim.lr_scheduler)(optimizer), loader=[], precision=precision,
            scaler=precision.make_scaler(), num_iterations=0, global_batch_size=1, epoch_size=2**40,
        )  # fmt: skip

    def run(self, batches: Any, steps: int) -> None:
        """That many steps of the loop."""
        self.trainer.loader = batches
        self.trainer.num_iterations = self.trainer.iteration + steps
        self.trainer.run()

    @property
    def image_size(self) -> int:
        return self.trainer.learner.model.image_size

    def constants(self, name: str) -> Tensor:
        """A buffer of the image encoder."""
        return self.trainer.learner.model.visual.get_buffer(name)

    def loss(self, batch: dict[str, Any]) -> Tensor:
        return self.trainer.learner(to_device(batch, self.trainer.precision.device))[0].total


class Theirs:
    """open_clip's model, loss and optimizer, stepped as its training script does.

    Args:
        model: Name of an open_clip model.
        device: Where it trains.
        amp: Precision.
    """

    def __init__(self, model: str, device: torch.device, *, amp: Any = "fp32") -> None:
        import open_clip
        from open_clip.loss import ClipLoss

        torch.manual_seed(0)
        self.model = open_clip.create_model(model).to(device).train()
        self.loss_of, self.precision = ClipLoss(), Precision.choose(amp, device)
        decayed = [p for n, p in self.model.named_parameters() if not self._is_gain(n, p)]
        gains = [p for n, p in self.model.named_parameters() if self._is_gain(n, p)]
        self.groups = [{"params": gains, "weight_decay": 0.0}, {"params": decayed, "weight_decay": 0.2}]
        self.optimizer = self.adamw(fused=None)

    @staticmethod
    def _is_gain(name: str, parameter: Tensor) -> bool:
        return parameter.ndim < 2 or any(part in name for part in ("bn", "ln", "bias", "logit_scale"))

    def adamw(self, *, fused: bool | None) -> torch.optim.AdamW:
        """The optimizer of the training script, or the fused one."""
        return torch.optim.AdamW(
            [dict(group) for group in self.groups], lr=5e-4, betas=(0.9, 0.98), eps=1e-6, fused=fused
        )

    def loss(self, image: Tensor, text: Tensor) -> Tensor:
        with self.precision.autocast():
            return self.loss_of(*self.model(image, text))

    def run(self, image: Tensor, text: Tensor) -> None:
        """One step."""
        self.optimizer.zero_grad()
        self.loss(image, text).backward()
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(100))


def seconds(function: Callable[[], Any], device: torch.device) -> float:
    started = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def in_turn(
    sides: dict[str, Callable[[], Any]], device: torch.device, *, repeats: int
) -> dict[str, list[float]]:
    """Seconds of each side, round by round, after a round that is not counted."""
    rounds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, side in sides.items():
            taken = seconds(side, device)
            if turn:
                rounds[name].append(taken)
    return rounds


def ratio(rounds: dict[str, list[float]], theirs: str, ours: str) -> float:
    return statistics.median(b / a for a, b in zip(rounds[ours], rounds[theirs], strict=True))


def padded(batch: dict[str, Any]) -> dict[str, Any]:
    """The same with texts of 77 tokens, all of them computed."""
    text = F.pad(batch["text"], (0, CONTEXT - batch["text"].shape[1]))
    return batch | {"text": text, "text_lengths": np.full(len(text), CONTEXT)}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cpu_bf16 = device.type == "cpu" and Precision.choose("auto", device).dtype == torch.bfloat16
    ours = Ours(tuple(args.ours), device)
    batch = batch_of(args.batch, args.tokens, size=ours.image_size)
    theirs = Theirs(args.theirs, device)
    image = normalize_pixels(
        batch["image"].to(device), *(ours.constants(n) for n in ("pixel_mean", "pixel_std"))
    )
    text = padded(batch)["text"].to(device)
    fused = theirs.adamw(fused=True)

    def with_fused() -> None:
        usual, theirs.optimizer = theirs.optimizer, fused
        theirs.run(image, text)
        theirs.optimizer = usual

    sides = {
        "ours": lambda: ours.run([batch], 1),
        "theirs": lambda: theirs.run(image, text),
        "padded": lambda: ours.run([padded(batch)], 1),
        "theirs_fused": with_fused,
    }
    rounds = in_turn(sides, device, repeats=args.repeats)
    figures: dict[str, Any] = {
        "batch": args.batch, "tokens": float(np.mean(batch["text_lengths"])), "repeats": args.repeats,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu", "cpu_bf16": cpu_bf16,
        "images_per_second": args.batch / statistics.median(rounds["ours"]),
        "theirs_images_per_second": args.batch / statistics.median(rounds["theirs"]),
        "throughput_ratio": ratio(rounds, "theirs", "ours"),
        "throughput_ratio_padded": ratio(rounds, "theirs", "padded"),
        "throughput_ratio_fused": ratio(rounds, "theirs_fused", "ours"),
    }  # fmt: skip
    if cpu_bf16 or device.type == "cuda" or args.bf16:
        figures |= in_bf16(args, batch, image, text, device)
    if device.type == "cuda":
        figures |= on_gpu(args, device)
    return figures


def in_bf16(
    args: argparse.Namespace, batch: dict[str, Any], image: Tensor, text: Tensor, device: torch.device
) -> dict[str, Any]:
    """Both in bf16 autocast, in turn, against theirs in fp32 and in bf16."""
    ours, theirs = Ours(tuple(args.ours), device, amp="bf16"), Theirs(args.theirs, device, amp="bf16")
    full = Theirs(args.theirs, device)
    rounds = in_turn(
        {
            "ours": lambda: ours.run([batch], 1),
            "theirs": lambda: theirs.run(image, text),
            "full": lambda: full.run(image, text),
        },
        device,
        repeats=args.repeats,
    )
    return {
        "throughput_ratio_bf16": ratio(rounds, "full", "ours"),
        "throughput_ratio_both_bf16": ratio(rounds, "theirs", "ours"),
    }


class Made(IterableDataset[dict[str, Any]]):
    """Batches for ever, made in workers as the loader's are."""

    def __init__(self, rows: int, tokens: float, *, size: int) -> None:
        self.made = [batch_of(rows, tokens, size=size, seed=seed) for seed in range(4)]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            yield from (
                {k: v.clone() if isinstance(v, Tensor) else v for k, v in b.items()} for b in self.made
            )


def on_gpu(args: argparse.Namespace, device: torch.device, *, steps: int = 20) -> dict[str, Any]:
    """Steps of the loop with workers that hand over pinned batches, in the precision that ``auto`` chooses."""
    ours = Ours(tuple(args.ours), device, amp="auto")
    loader = DataLoader(
        Made(args.batch, args.tokens, size=ours.image_size),
        batch_size=None,
        num_workers=2,
        pin_memory=device.type == "cuda",
    )
    batches = iter(loader)
    waited = 0.0

    def waiting() -> Iterator[dict[str, Any]]:
        nonlocal waited
        while True:
            started = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - started
            yield batch

    ours.run(waiting(), 3)
    waited = 0.0
    taken = seconds(lambda: ours.run(waiting(), steps), device)
    operations = flops(ours, batch_of(args.batch, args.tokens, size=ours.image_size))
    peak = args.peak_tflops
    return {
        "gpu_images_per_second": steps * args.batch / taken,
        "tflops_per_second": operations * steps / taken / 1e12,
        "mfu": None if peak is None else operations * steps / taken / 1e12 / peak,
        "data_wait": waited / taken,
    }


def flops(ours: Ours, batch: dict[str, Any]) -> int:
    """Operations of the matrix products of a step, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        ours.loss(batch).backward()
    ours.trainer.optimizer.zero_grad()
    return int(counter.get_total_flops())


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--batch", type=count, default=16)
    made.add_argument(
        "--tokens", type=float, default=12, help="mean length of a caption, start and end included"
    )
    made.add_argument("--repeats", type=count, default=5)
    made.add_argument(
        "--bf16", action="store_true", help="compare in bf16 also where the CPU does not compute in it"
    )
    made.add_argument("--peak-tflops", type=float, help="of the GPU in bf16, for mfu (H100 SXM: 989)")
    made.add_argument("--ours", nargs="*", default=list(OURS), metavar="OVERRIDE", help="of the recipe")
    made.add_argument("--theirs", default=THEIRS, help="an open_clip model")
    made.add_argument("--json", action="store_true", help="the JSON line is what is always printed")
    return made


def main() -> None:
    report("step", measure(parser().parse_args()))


if __name__ == "__main__":
    main()
