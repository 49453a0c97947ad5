"""Averages what happened since the last log step and hands one record to every sink."""

import math
import resource
import time
from collections.abc import Sequence
from typing import Protocol

import torch
from loguru import logger
from torch import Tensor

from hypvl import distributed
from hypvl.data.bad_samples import BadSamples
from hypvl.errors import ConfigError, UserError
from hypvl.training.loop import Hook, StepResult, Trainer

Record = dict[str, float | int]


class Sink(Protocol):
    """Takes records on rank 0: a file, a progress line, a service."""

    def write(self, record: Record) -> None: ...

    def close(self) -> None: ...


class Metrics(Hook):
    """Every ``period`` steps: means of loss terms over steps and ranks, speed, memory, learning rate.

    Args:
        sinks: Where records go.
        period: Steps between records; the last step is always logged.
        bad: This rank's count of samples that could not be read; reported whenever it grew on any rank.

    Raises:
        UserError: in ``after_step``, when a loss was not finite although nothing skips such steps.
        DataError: in ``after_train``, when too many samples were bad.
    """

    def __init__(self, sinks: Sequence[Sink], *, period: int, bad: BadSamples | None = None) -> None:
        if period < 1:
            raise ConfigError(f"train.log_period: got {period}; expected at least 1.")
        self.sinks = sinks
        self.period = period
        self.bad = bad if bad is not None else BadSamples()
        self._reported = 0
        self._sums: dict[str, Tensor] = {}
        self._restart(0)

    def before_train(self, trainer: Trainer) -> None:
        self._restart(trainer.iteration)

    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        values = {"loss": step.output.total, **step.output.terms, "grad_norm": step.grad_norm}
        for name, value in values.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._data_seconds += step.data_seconds
        self._skipped += not step.stepped
        if trainer.iteration % self.period == 0 or trainer.iteration == trainer.num_iterations:
            self._log(trainer, lr=step.lr)

    def after_train(self, trainer: Trainer) -> None:
        everywhere = bad_everywhere(self.bad)
        logger.info("data: {}", everywhere)
        everywhere.check(final=True)

    def close(self, trainer: Trainer) -> None:
        for sink in self.sinks:
            sink.close()

    def _log(self, trainer: Trainer, *, lr: float) -> None:
        steps = trainer.iteration - self._first
        elapsed = time.perf_counter() - self._started
        names = list(self._sums)
        means = (distributed.all_reduce_mean(torch.stack([self._sums[n] for n in names])) / steps).tolist()
        averaged = dict(zip(names, means, strict=True))
        if not math.isfinite(averaged["loss"]) and not trainer.scaler.is_enabled():
            raise UserError(
                f"training: the loss became {averaged['loss']} between iterations {self._first + 1} and "
                f"{trainer.iteration}; expected a finite number; resume from the last checkpoint with a lower "
                "optim.optimizer.lr or train.amp=false."
            )
        everywhere = bad_everywhere(self.bad)
        if everywhere.bad > self._reported:
            logger.warning("data: {}", everywhere)
            self._reported = everywhere.bad
        per_second = trainer.global_batch_size * steps / elapsed
        record: Record = {
            "iteration": trainer.iteration,
            **averaged,
            "lr": lr,
            **trainer.learner.stats(),
            "samples_per_second": per_second,
            "data_wait": self._data_seconds / elapsed,
            "memory_gb": memory_gb(),
            "skipped_steps": self._skipped,
            "bad_samples": everywhere.bad,
            "consumed": trainer.consumed,
            "epoch": trainer.consumed / trainer.epoch_size,
            "eta_seconds": (trainer.num_iterations - trainer.iteration) * elapsed / steps,
        }
        for sink in self.sinks:
            sink.write(record)
        self._restart(trainer.iteration)

    def _restart(self, iteration: int) -> None:
        self._sums = {}
        self._first = iteration
        self._data_seconds = 0.0
        self._skipped = 0
        self._started = time.perf_counter()


def bad_everywhere(bad: BadSamples) -> BadSamples:
    """The count of bad samples over all ranks (a collective)."""
    return bad.merged(distributed.gather_objects(bad.state_dict()))


def memory_gb() -> float:
    """Peak memory: of the GPU where there is one, else of this process, in GB (1e9 bytes)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
