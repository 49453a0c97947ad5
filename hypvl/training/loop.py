"""The training loop: batches in, optimizer steps out; everything else is a hook. Signals save and stop a run.

SIGTERM, SIGUSR1, Ctrl-C and the end of its terminal (SIGHUP) save and stop it, SIGUSR2 saves it and training continues.
A second request to stop ends the process at once, without saving.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from loguru import logger
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from hypvl import distributed
from hypvl.errors import ConfigError, DataError, StalledDataError
from hypvl.io.processes import unless_ignored
from hypvl.losses.base import LossOutput, PairContext
from hypvl.models.dual_encoder import DualEncoder
from hypvl.training.accumulation import GradCache, GradientAverage, naive_forward_backward
from hypvl.training.parallel import Sharding
from hypvl.training.step import Learner, Precision, forward_backward, optimizer_step, to_device

# Seconds. `timeout`, schedulers and launchers signal the process and its group: signals this close are one request.
TOGETHER = 1.0
_SHOWN = 3  # ranks in a message
# What `Trainer.between_steps` begins with.
EVALUATION, CHECKPOINT = "the evaluation", "the checkpoint"
_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
_SAVE = signal.SIGUSR2


class Interrupted(BaseException):
    """A request to stop came while the run waited for data. A BaseException, so that no handler swallows it."""


class Signals:
    """Requests that signals made; they are caught while this context is entered.

    A SIGUSR2 that came while it was blocked (:func:`hypvl.io.processes.hold_save_requests`) is one of them.

    Outside the main thread, where Python delivers no signals, nothing is caught.
    """

    def __init__(self) -> None:
        self.stop: signal.Signals | None = None  # what asked the run to stop, as the ranks agreed
        self.save = False  # a checkpoint was requested, as the ranks agreed; its hook resets this
        self.failed = False  # a rank could not do what it does beside the steps, as the ranks agreed
        self.interruptible = False  # while the run waits for data: to stop then raises Interrupted
        self.late = False  # the data did not come in time
        self.no_data = False  # some rank has no data and will get none, as the ranks agreed
        self._stop: signal.Signals | None = None  # signals of this process alone
        self._save = False
        self._failed = False
        self._previous: dict[signal.Signals, Any] = {}
        self._mask: set[int] = set()
        self._group: ProcessGroup | None = None
        self._pid = os.getpid()

    def __enter__(self) -> "Signals":
        self._group = distributed.host_group() if distributed.world_size() > 1 else None
        if threading.current_thread() is not threading.main_thread():
            return self
        self._pid = os.getpid()
        read, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=_leave_at_the_second, args=(read,), daemon=True, name="signals").start()
        numbers = (*unless_ignored(_STOP), _SAVE, signal.SIGALRM)
        self._previous = {number: signal.signal(number, self._note) for number in numbers}
        self._mask = signal.pthread_sigmask(
            signal.SIG_UNBLOCK, {_SAVE}
        )  # one that was held until now comes in
        return self

    def __exit__(self, *_: object) -> None:
        if not self._previous:
            return
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
        signal.set_wakeup_fd(self._wakeup)
        self._write.shutdown(socket.SHUT_RDWR)  # ends the thread, also where forked processes hold copies
        self._write.close()

    @property
    def asked_to_stop(self) -> bool:
        """Whether this process got a request to stop; the others may not know yet."""
        return self._stop is not None

    def report_failure(self) -> None:
        """Let all ranks know, by :attr:`failed`, that this one could not do what it does beside the steps."""
        self._failed = True

    @contextlib.contextmanager
    def at_most(self, seconds: float | None) -> Iterator[None]:
        """Raise Interrupted after this time while the run waits for data; None, or outside the main thread: never."""
        if seconds is None or not self._previous:
            yield
            return
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)

    def agree(self, *, no_data: bool = False) -> None:
        """Share the requests of every rank with all ranks (a collective; the device is not waited for).

        ``no_data``: this rank has none, and will get none.
        """
        own = [*(self._stop is number for number in _STOP), self._save, self._failed, no_data]
        self._save = False
        *stops, save, self.failed, self.no_data = distributed.any_rank(own, group=self._group)
        self.stop = next((number for number, wanted in zip(_STOP, stops, strict=True) if wanted), None)
        self.save = self.save or save

    def _note(self, number: int, frame: object) -> None:
        if os.getpid() != self._pid:  # in a forked process that has not set its own handlers yet
            return
        if number == _SAVE:
            self._save = True
            return
        if number == signal.SIGALRM:
            self.late = True
        elif self._stop is None:
            self._stop = signal.Signals(number)
        if self.interruptible:
            self.interruptible = False
            raise Interrupted


def _leave_at_the_second(numbers: socket.socket) -> None:
    """Runs in a thread, which sees signals also while the main one waits for another process or the device."""
    first: float | None = None
    with numbers:
        while received := numbers.recv(64):
            for number in received:
                if number not in _STOP:
                    continue
                if first is None:
                    first = time.monotonic()
                elif time.monotonic() - first >= TOGETHER:
                    os.write(2, b"asked to stop a second time: leaving at once\n")
                    os._exit(exit_code(signal.Signals(number)))


def exit_code(number: signal.Signals) -> int:
    """The exit code that shells report for a process that a signal ended: 128 + its number."""
    return 128 + int(number)


@dataclass
class StepResult:
    """What hooks see after a step; tensors are on the device."""

    output: LossOutput  # loss and terms
    grad_norm: Tensor  # of all gradients before clipping, 0-dim
    lr: float  # of the first parameter group in this step
    stepped: Tensor  # False for a skipped step, whose loss or gradients are not finite, 0-dim bool
    data_seconds: float  # time spent waiting for the batch
    ctx: PairContext  # batch, features and embeddings of the views; with naive accumulation, of its last part
    parts: Sequence[
        PairContext
    ] = ()  # of each part of the step in order; with naive accumulation there are several


class Hook:
    """Code that runs around the steps: every method is optional, and called on every rank."""

    def before_train(self, trainer: "Trainer") -> None:
        """Called once before the first step of this process."""

    def before_step(self, trainer: "Trainer") -> None:
        """Called before each step, when its batch is there."""

    def after_step(self, trainer: "Trainer", step: StepResult) -> None:
        """Called after each step; ``trainer.iteration`` counts it already."""

    def after_train(self, trainer: "Trainer") -> None:
        """Called once after the last step; not when training ends with an error."""

    def close(self, trainer: "Trainer") -> None:
        """Called once at the end, also after an error, the last hook first: close files and displays."""


@dataclass
class Trainer:
    """A run in progress."""

    learner: Learner  # model and objective
    module: nn.Module  # called for the loss: ``learner``, or DDP around it
    optimizer: torch.optim.Optimizer  # over the learner's trainable parameters
    # In fp16 it advances only after steps that were not skipped.
    scheduler: torch.optim.lr_scheduler.LRScheduler
    loader: Iterable[Mapping[str, Any]]  # yields local batches for ever, starting at ``consumed``
    precision: Precision
    scaler: torch.amp.GradScaler  # idle unless fp16
    num_iterations: int  # where training ends
    global_batch_size: int  # samples per step over all ranks
    epoch_size: int  # samples per epoch
    clip_norm: float | None = None  # gradient clipping, None = off
    cache: GradCache | None = None  # encodes the batch in micro-batches; None = whole
    naive_parts: int = 1  # batches of the loader per step, whose losses are averaged; 1 = the usual step
    average: GradientAverage = field(default_factory=GradientAverage)  # where DDP does not
    sharding: Sharding | None = None  # of the learner; None = every rank holds all of it
    hooks: Sequence[Hook] = ()  # called in order
    iteration: int = 0  # steps done (skipped ones count)
    failed: bool = False  # training ended with an error
    cut_short: bool = (
        False  # a request to stop made the run give up what belongs to the last step that it took
    )
    stop_requested: bool = False  # set by a hook, on every rank, to end after the current step
    signals: Signals = field(default_factory=Signals)  # requests from outside to save or to stop
    #: What a hook is doing that may take long, for messages and the heartbeat: ``"the evaluation flickr"``.
    data_timeout_s: float | None = None  # seconds to wait for a batch before the run ends; None = for ever
    between_steps: str | None = None
    parameters: list[Tensor] = field(init=False)
    _first_step_done: bool = field(init=False, default=False)
    _waited: float = field(init=False, default=0.0)
    _data_error: DataError | None = field(init=False, default=None)  # of this rank

    def __post_init__(self) -> None:
        self.parameters = [p for p in self.learner.parameters() if p.requires_grad]

    @property
    def complete(self) -> bool:
        """Whether all that the run had to do is done, and nothing is left to who resumes it."""
        return self.iteration >= self.num_iterations and not self.cut_short

    @property
    def consumed(self) -> int:
        """Samples taken so far over all ranks: the data position."""
        return self.iteration * self.global_batch_size

    def whole_model(self) -> DualEncoder:
        """The model, or a whole copy of it where it is sharded: for what ranks do not do alike (a collective)."""
        return self.learner.model if self.sharding is None else self.sharding.whole_model()

    def run(self) -> None:
        """Train until ``num_iterations``, or until a hook or a signal requests a stop.

        Raises:
            ConfigError: when model, objective and data refuse each other in the first step of this process.
            DataError: when a rank has no data and will get none; the hooks have saved what was done, as at a stop.
        """
        self.module.train()
        with self.signals:
            try:
                for hook in self.hooks:
                    hook.before_train(self)
                batches = iter(self.loader)
                while self.iteration < self.num_iterations and not self.stop_requested:
                    parts = self._fetch(batches)
                    self.signals.agree(no_data=self._data_error is not None)
                    if self.signals.stop is not None or parts is None or self.signals.no_data:
                        break
                    for hook in self.hooks:
                        hook.before_step(self)
                    step = self._step(parts)
                    for hook in self.hooks:
                        hook.after_step(self, step)
                    del step  # its batch and features are not needed beside those of the next one
                for hook in self.hooks:
                    hook.after_train(self)
                if self.signals.no_data and self.signals.stop is None:
                    raise self._error_of_all()
            except BaseException:
                self.failed = True
                raise
            finally:
                self._close_hooks()

    def _close_hooks(self) -> None:
        """Close all of them, also when one cannot; its error is raised where there is no other one."""
        first: Exception | None = None
        for hook in reversed(self.hooks):
            try:
                hook.close(self)
            except Exception as error:  # noqa: BLE001  # the last of them says how the run ended
                self.failed = True
                first = first or error
        if first is None:
            return
        if sys.exception() is None:
            raise first
        logger.error("at the end of the run, besides: {}: {}", type(first).__name__, first)

    def _fetch(self, batches: Iterator[Mapping[str, Any]]) -> list[Mapping[str, Any]] | None:
        """The batches of the next step, on the host; None when the run is asked to stop instead.

        Until the ranks have agreed on the step, only data is taken: at a stop the state is that between two steps.
        """
        started = time.perf_counter()
        try:
            self.signals.interruptible = True
            try:
                if self.signals.asked_to_stop:  # before `interruptible` was set
                    return None
                with self.signals.at_most(self.data_timeout_s):
                    return [next(batches) for _ in range(self.naive_parts)]
            finally:
                self.signals.interruptible = False
                self._waited = time.perf_counter() - started
        except Interrupted:
            if self.signals.late and not self.signals.asked_to_stop:
                workers = getattr(self.loader, "describe", str)()
                self._data_error = StalledDataError(
                    f"no batch has come for {self.data_timeout_s:.0f} s (two thirds of train.timeout_s)"
                    f"{': ' if workers else ''}{workers}; repair what is slow or full, then go on with --resume."
                )
            return None
        except DataError as error:  # unless a worker that was starting got the signal, too
            self._data_error = None if self.signals.asked_to_stop else error
            return None

    def _error_of_all(self) -> DataError:
        """What the ranks without data say (a collective)."""
        errors = distributed.gather_objects(self._data_error)
        if len(errors) == 1:
            return errors[0]
        said = [(rank, error) for rank, error in enumerate(errors) if error is not None]
        text = "; ".join(f"rank {rank}: {error}" for rank, error in said[:_SHOWN])
        more = f" (and {len(said) - _SHOWN} more ranks)" if len(said) > _SHOWN else ""
        return type(said[0][1])(text + more)

    def _forward_backward(self, parts: list[Mapping[str, Any]]) -> tuple[LossOutput, list[PairContext]]:
        how: dict[str, Any] = {"precision": self.precision, "scaler": self.scaler}
        moved = (to_device(part, self.precision.device) for part in parts)  # one after the other
        if self.naive_parts > 1:
            return naive_forward_backward(
                self.module, moved, parts=self.naive_parts, average=self.average, **how
            )
        average = None if self.sharding is None else self.average
        output, ctx = forward_backward(self.module, next(moved), cache=self.cache, average=average, **how)
        return output, [ctx]

    def _step(self, parts: list[Mapping[str, Any]]) -> StepResult:
        if self.consumed // self.epoch_size != (self.consumed - self.global_batch_size) // self.epoch_size:
            self.learner.objective.begin_epoch_()
        self.learner.constrain_()
        try:
            output, contexts = self._forward_backward(parts)
        except ValueError as error:
            if self._first_step_done:
                raise
            # Parts of the config that do not fit each other raise in the first step; a later error is a bug.
            raise ConfigError(f"the first step is not possible: {error}") from error
        self._first_step_done = True
        lr = float(self.optimizer.param_groups[0]["lr"])  # before the scheduler sets the next step's
        grad_norm, stepped = optimizer_step(
            self.optimizer, self.parameters, scaler=self.scaler, clip_norm=self.clip_norm, loss=output.total
        )
        if not self.scaler.is_enabled() or stepped:
            self.scheduler.step()
        # On a GPU reading the flag waits for the device, which only fp16 has done already.
        if not self.scaler.is_enabled() and stepped.device.type != "cpu":
            self.learner.update_(*contexts, stepped=stepped)
        elif stepped:
            self.learner.update_(*contexts)
        self.iteration += 1
        output = LossOutput(output.total.detach(), output.terms)
        return StepResult(output, grad_norm, lr, stepped, self._waited, contexts[-1], contexts)
