"""The training loop: batches in, optimizer steps out; everything else is a hook."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hypvl.errors import ConfigError, DataError
from hypvl.losses.base import LossOutput, PairContext
from hypvl.training.grad_cache import GradCache
from hypvl.training.learner import Learner
from hypvl.training.signals import Interrupted, Signals
from hypvl.training.step import (
    GradientAverage,
    Precision,
    forward_backward,
    naive_forward_backward,
    optimizer_step,
    to_device,
)


@dataclass
class StepResult:
    """What hooks see after a step.

    Args:
        output: Loss and terms (on the device).
        batch: The local batch (on the device), with naive accumulation its last part.
        grad_norm: Norm of all gradients before clipping (0-dim, on the device).
        lr: Learning rate of the first parameter group in this step.
        stepped: False for a skipped step, whose loss or gradients are not finite (0-dim bool, on the device).
        data_seconds: Time spent waiting for the batch.
        seconds: Wall time of the whole step, waiting included.
        ctx: Features and embeddings of the views in the step; with naive accumulation, of its last part.
    """

    output: LossOutput
    batch: dict[str, Any]
    grad_norm: Tensor
    lr: float
    stepped: Tensor
    data_seconds: float
    seconds: float
    ctx: PairContext


class Hook:
    """Code that runs around the steps: every method is optional, and called on every rank."""

    def before_train(self, trainer: "Trainer") -> None:
        """Called once before the first step of this process."""

    def after_step(self, trainer: "Trainer", step: StepResult) -> None:
        """Called after each step; ``trainer.iteration`` counts it already."""

    def after_train(self, trainer: "Trainer") -> None:
        """Called once after the last step; not when training ends with an error."""

    def close(self, trainer: "Trainer") -> None:
        """Called once at the end, also after an error: close files and displays."""


@dataclass
class Trainer:
    """A run in progress.

    Args:
        learner: Model and objective.
        module: Called for the loss: ``learner``, or DDP around it.
        optimizer: Over the learner's trainable parameters.
        scheduler: Advances after each step; in fp16 only after each one that was not skipped.
        loader: Yields local batches for ever, starting at ``consumed``.
        precision: Mixed precision.
        scaler: Gradient scaler (idle unless fp16).
        num_iterations: Where training ends.
        global_batch_size: Samples per step over all ranks.
        epoch_size: Samples per epoch.
        clip_norm: Gradient clipping, None = off.
        cache: Encodes the batch in micro-batches; None = whole.
        naive_parts: Batches of the loader per step, whose losses are averaged; 1 = the usual step.
        average: Takes the mean over ranks where there are several parts.
        hooks: Called in order.
        iteration: Steps done (skipped ones count).
        stop_requested: Set by a hook, on every rank, to end after the current step.
        signals: Requests from outside to save or to stop.
    """

    learner: Learner
    module: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    loader: Iterable[Mapping[str, Any]]
    precision: Precision
    scaler: torch.amp.GradScaler
    num_iterations: int
    global_batch_size: int
    epoch_size: int
    clip_norm: float | None = None
    cache: GradCache | None = None
    naive_parts: int = 1
    average: GradientAverage = field(default_factory=GradientAverage)
    hooks: Sequence[Hook] = ()
    iteration: int = 0
    stop_requested: bool = False
    signals: Signals = field(default_factory=Signals)
    parameters: list[Tensor] = field(init=False)
    _first_step_done: bool = field(init=False, default=False)
    _waited: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.parameters = [p for p in self.learner.parameters() if p.requires_grad]

    @property
    def consumed(self) -> int:
        """Samples taken so far over all ranks: the data position."""
        return self.iteration * self.global_batch_size

    def run(self) -> None:
        """Train until ``num_iterations``, or until a hook or a signal requests a stop.

        Raises:
            ConfigError: when model, objective and data refuse each other in the first step of this process.
        """
        self.module.train()
        with self.signals:
            try:
                for hook in self.hooks:
                    hook.before_train(self)
                batches = iter(self.loader)
                while self.iteration < self.num_iterations and not self.stop_requested:
                    parts = self._fetch(batches)
                    self.signals.agree()
                    if self.signals.stop is not None or parts is None:
                        break
                    step = self._step(parts)
                    for hook in self.hooks:
                        hook.after_step(self, step)
                    del step  # its batch and features are not needed beside those of the next one
                for hook in self.hooks:
                    hook.after_train(self)
            finally:
                for hook in self.hooks:
                    hook.close(self)

    def _fetch(self, batches: Iterator[Mapping[str, Any]]) -> list[Mapping[str, Any]] | None:
        """The batches of the next step, on the host; None when the run is asked to stop instead.

        Until the ranks have agreed on the step, only data is taken: at a stop the state is that between two steps.
        """
        self._waited = 0.0
        started = time.perf_counter()
        try:
            self.signals.interruptible = True
            try:
                if self.signals.asked_to_stop:  # before `interruptible` was set
                    return None
                return [next(batches) for _ in range(self.naive_parts)]
            finally:
                self.signals.interruptible = False
                self._waited = time.perf_counter() - started
        except Interrupted:
            return None
        except DataError:
            if not self.signals.asked_to_stop:
                raise
            return None  # a worker that was starting got the signal, too

    def _forward_backward(self, parts: list[Mapping[str, Any]]) -> tuple[LossOutput, list[PairContext]]:
        settings: dict[str, Any] = {"precision": self.precision, "scaler": self.scaler}
        device = self.precision.device
        try:
            if self.naive_parts > 1:
                moved = (to_device(part, device) for part in parts)  # one after the other
                result = naive_forward_backward(
                    self.module, moved, parts=self.naive_parts, average=self.average, **settings
                )
            else:
                batch = to_device(parts[0], device)
                output, ctx = forward_backward(self.module, batch, cache=self.cache, **settings)
                result = output, [ctx]
        except ValueError as error:
            if self._first_step_done:
                raise
            # Parts of the config that do not fit each other raise in the first step; a later error is a bug.
            raise ConfigError(f"the first step is not possible: {error}") from error
        self._first_step_done = True
        return result

    def _step(self, parts: list[Mapping[str, Any]]) -> StepResult:
        started = time.perf_counter()
        if self.consumed // self.epoch_size != (self.consumed - self.global_batch_size) // self.epoch_size:
            self.learner.objective.begin_epoch_()
        self.learner.constrain_()
        output, contexts = self._forward_backward(parts)
        lr = float(self.optimizer.param_groups[0]["lr"])  # before the scheduler sets the next step's
        grad_norm, stepped = optimizer_step(
            self.optimizer, self.parameters, scaler=self.scaler, clip_norm=self.clip_norm, loss=output.total
        )
        known = (
            self.scaler.is_enabled() or stepped.device.type == "cpu"
        )  # elsewhere reading it waits for the device
        if not self.scaler.is_enabled() or stepped:
            self.scheduler.step()
        if not known:
            self.learner.update_(*contexts, stepped=stepped)
        elif stepped:
            self.learner.update_(*contexts)
        self.iteration += 1
        return StepResult(
            LossOutput(output.total.detach(), output.terms),
            dict(contexts[-1].batch),
            grad_norm,
            lr,
            stepped,
            self._waited,
            self._waited + time.perf_counter() - started,
            contexts[-1],
        )
