"""Checkpoints written by a thread against checkpoints written between two steps: how long they hold up training.

    python -m benchmarks.async_checkpoints --batch 4 --steps 16 --period 8

Ours is `configs/train_clip_vit_s.py` in the training loop of `benchmarks.step`, with the hook that saves runs; a
checkpoint has the weights and AdamW's moments. Three ways in turn in one process: without checkpoints, written at once,
and with `train.async_checkpoints`. `held_ratio`: the median time for which a checkpoint holds up the next step, written
by a thread / written at once. `cost_ratio`: the same of the whole run, the wait for the thread at its end included:
(seconds with the thread - without checkpoints) / (seconds of writing at once - without checkpoints); the thread needs
a processor, too, so that on few cores it is the larger one. The files lie in --folder. Prints one JSON line.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import count, report
from benchmarks.step import OURS, Ours, batch_of
from hypvl.training.hooks.checkpoints import Checkpoints
from hypvl.training.loop import StepResult, Trainer

#: Way -> whether a thread writes; None = no checkpoints.
WAYS = {"none": None, "at_once": False, "thread": True}


class _Held(Checkpoints):
    """The hook, with the seconds for which each of its checkpoints holds up the next step."""

    seconds: list[float]

    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        started, before = time.perf_counter(), self._saved_at
        super().after_step(trainer, step)
        if self._saved_at != before:
            self.seconds.append(time.perf_counter() - started)


def state_of(trainer: Trainer) -> dict[str, Any]:
    """What a checkpoint of the benchmark holds."""
    return {
        "model": trainer.learner.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "iteration": trainer.iteration,
    }


def run(ours: Ours, batch: dict[str, Any], folder: Path, way: str, *, steps: int, period: int) -> Any:
    """Seconds of a run of so many steps, seconds for which its checkpoints held it up, and bytes of a checkpoint."""
    trainer, hook = ours.trainer, None
    trainer.hooks = ()
    if (background := WAYS[way]) is not None:
        hook = _Held(folder, collect=state_of, period=period, keep=1, background=background)
        hook.seconds = []
        trainer.hooks = (hook,)
    trainer.iteration, trainer.stop_requested = 0, False
    started = time.perf_counter()
    # The step after the last one of the run is never taken, so that no final checkpoint counts.
    trainer.loader, trainer.num_iterations = _stopping(trainer, batch, steps), steps + 1
    trainer.run()
    seconds = time.perf_counter() - started
    sizes = [path.stat().st_size for path in folder.glob("*.pth")]
    shutil.rmtree(folder)
    folder.mkdir()
    return seconds, [] if hook is None else hook.seconds, max(sizes, default=0)


def _stopping(trainer: Trainer, batch: dict[str, Any], steps: int) -> Any:
    for step in range(steps):
        trainer.stop_requested = step + 1 == steps
        yield batch


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    if args.steps % args.period:
        raise SystemExit("--steps: expected a multiple of --period, so that a run ends with a checkpoint.")
    ours = Ours(tuple(args.ours), torch.device("cpu"))
    batch = batch_of(args.batch, 12.0, size=ours.image_size)
    whole: dict[str, list[float]] = {way: [] for way in WAYS}
    held: dict[str, list[float]] = {way: [] for way in WAYS}
    size = 0
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        run(ours, batch, Path(name), "at_once", steps=args.period, period=args.period)  # first use
        for _ in range(args.repeats):
            for way in WAYS:
                seconds, stops, written = run(
                    ours, batch, Path(name), way, steps=args.steps, period=args.period
                )
                whole[way].append(seconds)
                held[way] += stops
                size = max(size, written)
    median = {way: statistics.median(values) for way, values in whole.items()}
    holds = {way: statistics.median(values) for way, values in held.items() if values}
    return {
        "steps": args.steps, "period": args.period, "repeats": args.repeats, "mb": size / 1e6,
        "step_seconds": median["none"] / args.steps, "held_seconds_at_once": holds["at_once"],
        "held_seconds_thread": holds["thread"], "held_ratio": holds["thread"] / holds["at_once"],
        "cost_ratio": (median["thread"] - median["none"]) / (median["at_once"] - median["none"]),
    }  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--batch", type=count, default=4)
    made.add_argument("--steps", type=count, default=16, help="of a run, a multiple of --period")
    made.add_argument("--period", type=count, default=8, help="steps between checkpoints")
    made.add_argument("--repeats", type=count, default=3)
    made.add_argument("--folder", type=Path, help="where a folder for the files is made (the system's)")
    made.add_argument("--ours", nargs="*", default=list(OURS), metavar="OVERRIDE", help="of the recipe")
    made.add_argument("--json", action="store_true", help="the JSON line is what is always printed")
    return made


def main() -> None:
    report("async_checkpoints", measure(parser().parse_args()))


if __name__ == "__main__":
    main()
