"""Log records: means over the steps since the last one, handed to every sink."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from loguru import logger
from torch import Tensor

from hypvl import distributed
from hypvl.data.bad_samples import BadSamples
from hypvl.training.hooks.memory import memory_gb, peak_memory_gb
from hypvl.training.hooks.sinks import JsonLines, Record, Sink, write_to
from hypvl.training.loop import Hook, StepResult, Trainer

BAD_SAMPLES_NAME = "bad_samples.jsonl"
MOST_LISTED = 100_000  # bad samples that are named; more are only counted


@dataclass
class Metrics(Hook):
    """Every ``period`` steps: means of loss terms over steps and ranks, speed, memory, learning rate.

    Values that are not finite are left out of the means; a mean of none is NaN.

    Raises:
        UserError: when a record cannot be written (a full disk).
    """

    sinks: Sequence[Sink] = ()  # where records go
    _: KW_ONLY
    period: int  # steps between records; the last step is always logged
    #: This rank's count of samples that could not be read. Each that is new, on any rank, is listed once; a log line
    #: tells of them when their number has doubled.
    bad: BadSamples = field(default_factory=BadSamples)
    #: This rank's count of samples taken from each source of a mixture since the last record; else empty.
    taken: Counter[str] = field(default_factory=Counter)
    bad_file: JsonLines | None = (
        None  # where they are listed (``bad_samples.jsonl``); None on other ranks than 0
    )

    _resumed: Sequence[Mapping[str, Any]] = field(default=(), init=False)
    _listed: set[str] = field(default_factory=set, init=False)  # keys in the file
    _untold: list[tuple[str, str]] = field(
        default_factory=list, init=False
    )  # (key, reason) since the last log line
    # Since the last record:
    _first: int = field(default=0, init=False)
    _sums: dict[str, Tensor] = field(default_factory=dict, init=False)  # (sum, number) of the finite values
    _data_seconds: float = field(default=0.0, init=False)
    _skipped: int | Tensor = field(default=0, init=False)
    _started: float = field(default_factory=time.perf_counter, init=False)

    def before_train(self, trainer: Trainer) -> None:
        self._restart(trainer.iteration)
        if self.bad_file is not None:
            self._listed = self.bad_file.texts("key")  # of the run that is resumed
        if self._resumed:
            self._restore(trainer)

    def state(self) -> list[dict[str, Any]]:
        """Sums since the last record, of each rank in order, for the checkpoint (a collective)."""
        return distributed.gather_objects(
            {
                "first": self._first,
                "sums": {name: values.tolist() for name, values in self._sums.items()},
                "skipped": int(self._skipped),
                "taken": dict(self.taken),
                "data_seconds": self._data_seconds,
                "seconds": time.perf_counter() - self._started,
            }
        )

    def load_state(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Make the next record cover the same steps as if the run had not stopped: what :meth:`state` returned."""
        self._resumed = states

    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        values = {"loss": step.output.total, **step.output.terms, "grad_norm": step.grad_norm}
        for name, value in values.items():
            value = value.detach().float()
            finite = value.isfinite()
            now = torch.stack((torch.where(finite, value, 0.0), finite.float()))
            self._sums[name] = self._sums[name] + now if name in self._sums else now
        self._data_seconds += step.data_seconds
        self._skipped = self._skipped + (~step.stepped).long()
        if trainer.iteration % self.period == 0 or trainer.iteration == trainer.num_iterations:
            self._log(trainer, lr=step.lr)

    def leave_out(self, seconds: float) -> None:
        """Do not count this time, in which no step was taken, in the speed of the next record."""
        self._started += seconds

    def after_train(self, trainer: Trainer) -> None:
        logger.info("data: {}", bad_everywhere(self.bad))

    def close(self, trainer: Trainer) -> None:
        for sink in self.sinks:
            sink.close()
        if self.bad_file is not None:
            self.bad_file.close()

    def _report_bad(self, everywhere: BadSamples, iteration: int) -> None:
        """List the new ones in the file; tell of them in the log whenever their number has doubled."""
        self.bad.unreported.clear()
        if self.bad_file is None or len(self._listed) >= MOST_LISTED:
            return
        for key, reason in everywhere.unreported:
            if key not in self._listed and len(self._listed) < MOST_LISTED:
                self._listed.add(key)
                self._untold.append((key, reason))
                write_to([self.bad_file], {"iteration": iteration, "key": key, "reason": reason})
        if len(self._listed) >= MOST_LISTED:
            logger.warning(
                "data: {:,} different samples are bad; more are counted, but not listed", MOST_LISTED
            )
        if self._untold and len(self._listed) >= 2 * (len(self._listed) - len(self._untold)):
            everywhere.unreported = self._untold
            logger.warning("data: {}; all in {}", everywhere.report(), BAD_SAMPLES_NAME)
            self._untold = []

    def _log(self, trainer: Trainer, *, lr: float) -> None:
        steps = trainer.iteration - self._first
        elapsed = time.perf_counter() - self._started
        names = list(self._sums)
        sums, counts = distributed.all_reduce_sum(torch.stack([self._sums[n] for n in names], dim=1))
        averaged = dict(zip(names, (sums / counts).tolist(), strict=True))
        everywhere = bad_everywhere(self.bad)
        self._report_bad(everywhere, trainer.iteration)
        everywhere.check()
        per_second = trainer.global_batch_size * steps / elapsed
        record: Record = {
            "iteration": trainer.iteration,
            **averaged,
            "lr": lr,
            **trainer.learner.stats(),
            "samples_per_second": per_second,
            "data_wait": self._data_seconds / elapsed,
            "memory_gb": memory_gb(),
            "peak_memory_gb": peak_memory_gb(),
            "skipped_steps": int(self._skipped),
            "bad_samples": everywhere.bad,
            "consumed": trainer.consumed,
            "epoch": trainer.consumed / trainer.epoch_size,
            "eta_seconds": (trainer.num_iterations - trainer.iteration) * elapsed / steps,
            **self._shares(),
        }
        write_to(self.sinks, record)
        self._restart(trainer.iteration)

    def _shares(self) -> Record:
        """The share of each source among the samples of all ranks since the last record (a collective)."""
        if not self.taken:  # on any rank: no mixture
            return {}
        counts = distributed.gather_objects(dict(self.taken))
        self.taken.clear()
        total = sum(sum(part.values()) for part in counts)
        names = dict.fromkeys(name for part in counts for name in part)
        return {f"share/{name}": sum(part.get(name, 0) for part in counts) / total for name in names}

    def _restore(self, trainer: Trainer) -> None:
        """Take over the saved sums; on another number of ranks each gets an equal part of them."""
        states, world = self._resumed, distributed.world_size()
        mine = states[distributed.rank()] if len(states) == world else states[0]
        device = trainer.precision.device
        for name in mine["sums"]:
            if len(states) == world:
                values = torch.tensor(mine["sums"][name])
            else:
                values = torch.tensor([state["sums"][name] for state in states]).sum(0) / world
            self._sums[name] = values.to(device)
        if len(states) == world or distributed.is_main():
            for state in [mine] if len(states) == world else states:
                self.taken.update(state.get("taken", {}))
        self._first, self._skipped = int(mine["first"]), int(mine["skipped"])
        self._data_seconds = float(mine["data_seconds"])
        self._started -= float(mine["seconds"])

    def _restart(self, iteration: int) -> None:
        self._sums = {}
        self._first = iteration
        self._data_seconds = 0.0
        self._skipped = 0
        self._started = time.perf_counter()


@dataclass
class FinalShare(Hook):
    """DataError at the end of a run in which too many samples were bad, however few there were in all."""

    bad: BadSamples  # of this rank

    def after_train(self, trainer: Trainer) -> None:
        if trainer.iteration >= trainer.num_iterations:
            bad_everywhere(self.bad).check(final=True)


def bad_everywhere(bad: BadSamples) -> BadSamples:
    """The count of bad samples over all ranks (a collective)."""
    return bad.merged(distributed.gather_objects(bad.of_this_rank()))
