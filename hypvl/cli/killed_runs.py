"""Runs whose processes are killed at chosen moments, for ``hypvl chaos``: their start, their death, what is left."""

import contextlib
import multiprocessing
import os
import random
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from hypvl.checks import one_of
from hypvl.errors import UserError
from hypvl.io.json_text import parse_json
from hypvl.io.processes import process_stat

if TYPE_CHECKING:
    from omegaconf import DictConfig

Moment: TypeAlias = Literal["start", "step", "write"]
#: When a kill hits, in words.
MOMENTS: dict[Moment, str] = {
    "start": "before the first step",
    "step": "in a step, or between two",
    "write": "while a checkpoint is written",
}
# Seconds: for the ranks that are left when one was killed, as `hypvl train` gives them; for those that have finished;
# for data workers.
_GRACE, _END, _WORKERS = 5.0, 60.0, 10.0
_POLL = 0.002


@dataclass(frozen=True)
class Kill:
    """One SIGKILL that a run got."""

    moment: Moment  # as it was when the processes were stopped for it
    ranks: tuple[int, ...]  # that got it, at once; the others were left to notice
    iteration: int  # of the last record before
    seconds: float  # since the start of the processes
    left: tuple[str, ...]  # half-written files in the folder
    hanging: tuple[int, ...]  # ranks that had not ended by themselves when their time was up

    def __post_init__(self) -> None:
        one_of("moment", self.moment, Moment)


@dataclass(frozen=True)
class Plan:
    """When to kill which ranks."""

    moment: Moment
    ranks: tuple[int, ...]
    iteration: float = 0.0  # "step", "write": not before this one is recorded, or should be by now
    share: float = 0.0  # "start": of the time that a start takes

    def __post_init__(self) -> None:
        one_of("moment", self.moment, Moment)


@dataclass(frozen=True)
class Pace:
    """How long a run takes, in seconds."""

    start: float  # until the first step has ended
    step: float


class Run:
    """A run in a folder: ``ranks`` CPU processes (gloo) that are started, killed and started again.

    They are forked from a server that has read the library once, so that a start takes a second.

    Args:
        cfg: Of the training.
        folder: Of the run.
        ranks: Processes.
        log: File that gets what the processes print.
    """

    def __init__(self, cfg: "DictConfig", folder: Path, *, ranks: int, log: Path) -> None:
        self._cfg, self.folder, self._ranks, self._log = cfg, folder, ranks, log
        self.starts = 0
        self._processes: list[BaseProcess] = []
        self._begun = 0.0
        self._context: Any = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["hypvl.training.run", "hypvl.cli.suites"])
        first = self._context.Process(target=os.getpid)  # what is timed later finds the server there
        first.start()
        first.join()

    def finish(self) -> Pace:
        """Train to the end. Raises UserError when a process ends with another code than 0."""
        self._start()
        try:
            first = None
            while self._running():
                if first is None and self._has_stepped():
                    first = time.monotonic()
                time.sleep(_POLL)
            self._check()
        finally:
            self._kill_all()
        end = time.monotonic()
        first = end if first is None else first
        return Pace(first - self._begun, (end - first) / max(1, int(self._cfg.train.num_iterations)))

    def die(self, plan: Plan, pace: Pace) -> Kill | None:
        """Train until the plan's moment and kill; None when training was over before it.

        Raises:
            UserError: when a process ends by itself with another code than 0.
        """
        self._start()
        resumed_at = self.iteration()
        try:
            while self._running():
                if self._is_due(plan, pace, resumed_at) and (kill := self._kill(plan)) is not None:
                    return kill
                time.sleep(_POLL)
            self._check()
            return None
        finally:
            self._kill_all()

    def iteration(self) -> int:
        """Of the last whole record; 0 without one."""
        try:
            lines = (self.folder / "metrics.jsonl").read_bytes().splitlines()
            return int(parse_json(lines[-1])["iteration"]) if lines else 0
        except (OSError, ValueError, KeyError):  # none, or half a line
            return 0

    def parts(self, *, of: str = "") -> list[str]:
        """Half-written files there, of names that begin with ``of``."""
        return sorted(path.name for path in self.folder.glob(f".{of}*.part"))

    def _start(self) -> None:
        port = _free_port()
        resume = self.folder.is_dir()
        self._processes = [
            self._context.Process(
                target=_train,
                args=(self._cfg, self.folder, rank, self._ranks, port, resume, str(self._log)),
                daemon=False,
            )
            for rank in range(self._ranks)
        ]
        for process in self._processes:
            process.start()
        self.starts += 1
        self._begun = time.monotonic()

    def _running(self) -> bool:
        """Whether every rank does its work; False as soon as one has ended by itself."""
        return all(process.is_alive() for process in self._processes)

    def _check(self) -> None:
        for rank, process in enumerate(self._processes):
            process.join(_END)
            if process.exitcode != 0:
                ended = "does not end" if process.exitcode is None else f"ended with {process.exitcode}"
                raise UserError(
                    f"{self.folder}: at start {self.starts}, rank {rank} {ended} though nobody had killed it; "
                    f"{self._log} says why."
                )

    def _is_due(self, plan: Plan, pace: Pace, resumed_at: int) -> bool:
        elapsed = time.monotonic() - self._begun
        if plan.moment == "start":
            return elapsed >= plan.share * pace.start
        if self.iteration() < plan.iteration and elapsed < pace.start + pace.step * (
            plan.iteration - resumed_at
        ):
            return False
        return self._has_stepped() if plan.moment == "step" else bool(self.parts(of="checkpoint_"))

    def _has_stepped(self) -> bool:
        """Whether this start has got as far as its first step."""
        try:
            beat = parse_json((self.folder / "heartbeat.json").read_bytes())
        except (OSError, ValueError):
            return False
        return beat["pid"] == self._processes[0].pid and beat["state"] != "starting"

    def _kill(self, plan: Plan) -> Kill | None:
        """Stop rank 0, look, and kill; None when the moment has passed by."""
        writer = self._processes[0].pid
        assert writer is not None
        _signal(writer, signal.SIGSTOP)
        _wait_until_stopped(writer)
        writing, stepped = bool(self.parts(of="checkpoint_")), self._has_stepped()
        if plan.moment == "write" and not writing:
            _signal(writer, signal.SIGCONT)
            return None
        iteration, seconds = self.iteration(), time.monotonic() - self._begun
        for rank in plan.ranks:
            self._processes[rank].kill()
        _signal(writer, signal.SIGCONT)
        hanging = self._wait_for_the_others(plan.ranks)
        return Kill(
            moment="write" if writing else "step" if stepped else "start",
            ranks=plan.ranks,
            iteration=iteration,
            seconds=round(seconds, 2),
            left=tuple(self.parts()),
            hanging=hanging,
        )

    def _wait_for_the_others(self, killed: Sequence[int]) -> tuple[int, ...]:
        deadline = time.monotonic() + _GRACE
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
        return tuple(
            rank for rank, process in enumerate(self._processes) if process.is_alive() and rank not in killed
        )

    def _kill_all(self) -> None:
        """End every rank, and wait for their data workers, which end by themselves."""
        for process in self._processes:
            process.kill()
            process.join()
        deadline = time.monotonic() + _WORKERS
        while left := [pid for process in self._processes for pid in _session(process.pid)]:
            if time.monotonic() > deadline:
                for pid in left:
                    _signal(pid, signal.SIGKILL)
                raise UserError(f"{self.folder}: data workers {left} outlived the run by {_WORKERS:.0f} s.")
            time.sleep(0.01)


def plans(kills: int, *, ranks: int, seed: int) -> list[tuple[Moment, tuple[int, ...]]]:
    """Moments and ranks of the kills, in random order: each moment equally often, half of the kills at one rank alone.

    With one rank it is always that one.
    """
    generator = random.Random(seed)
    everyone = tuple(range(ranks))
    moments: list[Moment] = ["step", "write", "start"]
    order = [moments[i % 3] for i in range(kills)]
    generator.shuffle(order)
    alone = [i % 2 == 1 for i in range(kills)]
    generator.shuffle(alone)
    return [
        (moment, (generator.randrange(ranks),) if one and ranks > 1 else everyone)
        for moment, one in zip(order, alone, strict=True)
    ]


def _train(cfg: "DictConfig", folder: Path, rank: int, ranks: int, port: int, resume: bool, log: str) -> None:
    """What a rank does: as ``hypvl train --num-gpus 0``, alone or as torchrun starts it."""
    from hypvl.cli.common import run_main
    from hypvl.cli.suites import TrainingSuite
    from hypvl.launch import launch
    from hypvl.training.run import RunOptions, run_training

    os.setsid()  # Ctrl-C is for the command; its session finds the data workers
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(handle, stream)
    multiprocessing.set_start_method("fork", force=True)  # of data workers, as in hypvl train
    os.environ["HYPVL_DEVICE"] = "cpu"
    if ranks > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_PORT": port}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in place.items()}}
    options = RunOptions(output_dir=folder, resume=resume, make_suite=TrainingSuite)

    def main(_: Sequence[str]) -> int:
        launch(run_training, cfg, options, num_gpus=0)
        return 0

    raise SystemExit(run_main(main, []))


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _wait_until_stopped(pid: int) -> None:
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline and (state := process_stat(pid)) is not None and state[0] not in "TtZX":
        time.sleep(0.0005)


def _session(leader: int | None) -> list[int]:
    """Living processes of a session (Linux)."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        state = process_stat(int(path.name))
        if state is not None and state[0] not in "ZX" and int(state[3]) == leader:
            found.append(int(path.name))
    return found
