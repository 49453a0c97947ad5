"""Training in processes of their own, which are killed in the middle of a step, and what such a run left behind."""

import json
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from loguru import logger
from omegaconf import DictConfig

from hypvl.models.checkpoint_io import load_checkpoint
from hypvl.report.difference import record_differences
from hypvl.training.checkpoints.same_state import state_differences
from hypvl.training.config import EvaluateConfig
from hypvl.training.hooks.evaluation import Suite
from hypvl.training.loop import Trainer
from hypvl.training.run import RunOptions, run_training

# The processes are forked from one that has read the library once, and has never computed anything.
multiprocessing.set_forkserver_preload(["tests.training.killed"])


def train(
    cfg: DictConfig,
    folder: Path,
    *,
    ranks: int = 1,
    resume: bool = False,
    killed_after: int | None = None,
    who: Collection[int] | None = None,
    make_suite: Callable[[EvaluateConfig], Suite] | None = None,
) -> None:
    """Train a config into ``folder`` on gloo processes.

    Args:
        killed_after: In the step after this iteration the ranks ``who`` (None = all) end by SIGKILL; the others are
            ended by their launcher, as with hypvl train.
    """
    with tempfile.TemporaryDirectory() as meeting:
        context = mp.start_processes(
            _train, args=(cfg, folder, meeting, ranks, resume, killed_after, who, make_suite), nprocs=ranks, join=False,
            start_method="forkserver",
        )  # fmt: skip
        try:
            while not context.join(grace_period=5):
                pass
        except (
            mp.ProcessExitedException,
            mp.ProcessRaisedException,
        ):  # the second: one that waited for a dead one
            if killed_after is None:
                raise
        ends = [process.exitcode for process in context.processes]
    assert killed_after is None or -signal.SIGKILL in ends, f"it was to be killed, but ended with {ends}"


def _train(
    rank: int,
    cfg: DictConfig,
    folder: Path,
    meeting: str,
    ranks: int,
    resume: bool,
    killed_after: int | None,
    who: Collection[int] | None,
    make_suite: Callable[[EvaluateConfig], Suite] | None,
) -> None:
    torch.set_num_threads(1)
    multiprocessing.set_start_method(
        "fork", force=True
    )  # of data workers: as in a program that a user starts
    os.environ["HYPVL_DEVICE"] = "cpu"
    dies_here = killed_after is not None and (who is None or rank in who)
    step = Trainer._step

    def noted(self: Trainer, parts: Any) -> Any:
        if dies_here and self.iteration == killed_after:
            os.kill(os.getpid(), signal.SIGKILL)
        seen = [self.iteration, resume, rank, [key for part in parts for key in part["key"]]]
        with (folder / f"samples-rank{rank}.jsonl").open("a") as file:
            file.write(json.dumps(seen) + "\n")
        return step(self, parts)

    Trainer._step = noted  # type: ignore[method-assign]
    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}/ranks", rank=rank, world_size=ranks)
    try:
        run_training(cfg, RunOptions(output_dir=folder, resume=resume, make_suite=make_suite))
    finally:
        logger.remove()
        if ranks > 1:
            dist.destroy_process_group()


def records(folder: Path) -> list[dict[str, Any]]:
    """The records of a run."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def differences(first: Path, second: Path) -> list[str]:
    """Where two finished runs differ: final checkpoint (weights, moments, generators, ...) and records."""
    states = [load_checkpoint(folder / "checkpoint_final.pth") for folder in (first, second)]
    return [
        *state_differences(*states),
        *(f"metrics.jsonl: {found.key}" for found in record_differences(records(first), records(second))),
    ]


def samples(folder: Path, *, resumed: bool) -> dict[int, list[str]]:
    """Keys of the global batch of each iteration, before or after the run was resumed."""
    lines = [json.loads(line) for p in folder.glob("samples-rank*") for line in p.read_text().splitlines()]
    batches: dict[int, list[str]] = {}
    for iteration, of_resumed, _, keys in sorted(lines):
        if of_resumed == resumed:
            batches.setdefault(iteration, []).extend(keys)
    return batches


def largest_difference(first: Path, second: Path) -> float:
    """Between the final weights of two runs, but for shifts of attention's keys, whose gradient is rounding alone."""
    one, two = (load_checkpoint(folder / "checkpoint_final.pth")["model"] for folder in (first, second))
    gaps = []
    for name, value in one.items():
        gap = (two[name] - value).abs()
        if name.endswith("in_proj_bias"):
            gap[len(gap) // 3 : 2 * len(gap) // 3] = 0
        gaps.append(float(gap.max()))
    return max(gaps)
