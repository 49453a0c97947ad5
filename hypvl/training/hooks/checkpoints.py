"""Saves the run: periodically, on SIGUSR2, at the end, and when it is stopped."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import torch
from loguru import logger

from hypvl import distributed
from hypvl.errors import UserError
from hypvl.models.checkpoint_io import FINAL_NAME, last_checkpoint
from hypvl.training.checkpoints.background import BackgroundWriter, on_host
from hypvl.training.checkpoints.files import checkpoint_name, point_at, remove_checkpoint, save_checkpoint
from hypvl.training.loop import CHECKPOINT, Hook, StepResult, Trainer
from hypvl.training.parallel import gathered, holds_shards, local


@dataclass
class Checkpoints(Hook):
    """Periodic and final checkpoints, and one whenever SIGUSR2 asks for it.

    Weights that are not finite are never saved. A checkpoint that is due at a skipped step is written after the next
    step that is not skipped.

    Raises:
        UserError: instead of a checkpoint, for weights that are not finite or a disk that cannot be written to.
    """

    folder: Path  # of the run
    _: KW_ONLY
    collect: Callable[[Trainer], dict[str, Any]]  # the state to save (a collective: called on every rank)
    period: int  # steps between checkpoints, at least 1
    keep: int | None  # periodic checkpoints that are retained, at least 1; None = all
    #: Entries of the final checkpoint only, e.g. ``root`` (a collective). Before it is called the state is saved as a
    #: periodic checkpoint, which the final one replaces.
    final_extra: Callable[[Trainer], dict[str, Any]] | None = None
    #: Whether a thread writes periodic checkpoints from a copy while training continues. The last one of a run is
    #: always written before it ends, and so are sharded ones.
    background: bool = False
    _saved_at: int = field(default=-1, init=False)
    _finished: bool = field(default=False, init=False)
    _due: bool = field(default=False, init=False)
    _writer: BackgroundWriter = field(default_factory=BackgroundWriter, init=False)

    def before_train(self, trainer: Trainer) -> None:
        self._saved_at = trainer.iteration
        last = last_checkpoint(self.folder)
        self._finished = (
            last is not None and last.name == FINAL_NAME and trainer.iteration >= trainer.num_iterations
        )

    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        if self._writer.failed:
            trainer.signals.report_failure()
        if trainer.signals.failed:  # on some rank: rank 0
            self._finish()
        if trainer.signals.save:
            logger.info("iteration {}: asked for a checkpoint (SIGUSR2)", trainer.iteration)
            trainer.signals.save = False
            self._due = True
        self._due = self._due or trainer.iteration % self.period == 0
        if not self._due or trainer.iteration >= trainer.num_iterations:
            return
        if step.stepped:
            self._save(trainer, checkpoint_name(trainer.iteration), {}, background=self.background)
        else:
            check_weights_finite(trainer)

    def after_train(self, trainer: Trainer) -> None:
        self._finish()
        if trainer.iteration < trainer.num_iterations:
            if trainer.signals.stop is not None:
                logger.warning(
                    "iteration {}: asked to stop ({})", trainer.iteration, trainer.signals.stop.name
                )
            if self._saved_at != trainer.iteration:
                self._save(trainer, checkpoint_name(trainer.iteration), {})
        elif not self._finished:
            self._save_final(trainer)

    def close(self, trainer: Trainer) -> None:
        self._writer.close()

    def _finish(self) -> None:
        """Wait for the thread; its error on every rank (a collective)."""
        if self.background:
            write_on_main(self.folder, self._writer.finish)

    def save_now(self, trainer: Trainer) -> Path:
        """Save the run as it is, beside the periodic checkpoints, and say where (a collective)."""
        name = checkpoint_name(trainer.iteration)
        if self._saved_at != trainer.iteration:
            self._save(trainer, name, {}, prune=False)
        sharded = self.folder / Path(name).stem
        return sharded if sharded.is_dir() else self.folder / name

    def _save_final(self, trainer: Trainer) -> None:
        if self.final_extra is None:
            self._save(trainer, FINAL_NAME, {})
            return
        before = checkpoint_name(trainer.iteration)
        if self._saved_at != trainer.iteration:
            self._save(trainer, before, {}, prune=False)
        with saving(trainer):
            extra = self.final_extra(trainer)
        self._save(trainer, FINAL_NAME, extra, prune=False)
        if distributed.is_main():
            for name in (before, Path(before).stem):
                remove_checkpoint(self.folder / name)

    def _save(
        self,
        trainer: Trainer,
        name: str,
        extra: dict[str, Any],
        *,
        prune: bool = True,
        background: bool = False,
    ) -> None:
        self._finish()  # one at a time
        check_weights_finite(trainer)
        with saving(trainer):
            state = {**self.collect(trainer), **extra}
            keep = self.keep if prune else None
            if name != FINAL_NAME and holds_shards(state):
                background = False  # every rank writes
                path = self.folder / Path(name).stem
                _write_sharded(path, state)
                write_on_main(path, lambda: point_at(path, keep=keep))
            else:
                path, state = self.folder / name, gathered(state)
                if background:
                    self._start(trainer.iteration, path, state, keep)
                else:
                    write_on_main(path, lambda: save_checkpoint(self.folder, state, name=name, keep=keep))
        if distributed.is_main() and not background:
            logger.info("iteration {}: saved {}", trainer.iteration, path)
        self._saved_at = trainer.iteration
        self._due = False

    def _start(self, iteration: int, path: Path, state: dict[str, Any], keep: int | None) -> None:
        """Let the thread of rank 0 write a copy of the state."""
        if not distributed.is_main():
            return
        kept = on_host(state)

        def write() -> None:
            with _as_user_error(path):
                save_checkpoint(self.folder, kept, name=path.name, keep=keep)
            logger.info("iteration {}: saved {}", iteration, path)

        self._writer.start(write)


@contextlib.contextmanager
def saving(trainer: Trainer) -> Iterator[None]:
    """Note in the trainer that a checkpoint is made while the block runs."""
    trainer.between_steps = CHECKPOINT
    try:
        yield
    finally:
        trainer.between_steps = None


def _write_sharded(path: Path, state: dict[str, Any]) -> None:
    from hypvl.training.checkpoints.sharded import (
        write_sharded,  # reads torch.distributed.checkpoint, in a second
    )

    write_sharded(path, state)


def write_on_main(path: Path, write: Callable[[], object]) -> None:
    """Write a checkpoint on rank 0; UserError on every rank when it cannot be written."""

    def checked() -> None:
        with _as_user_error(path):
            write()

    distributed.from_main(checked)


@contextlib.contextmanager
def _as_user_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); the checkpoints before it are whole; "
            "make room, then go on with --resume."
        ) from error


def check_weights_finite(trainer: Trainer) -> None:
    """UserError on every rank when weights are not finite, since no later step makes them finite again.

    A collective that waits for the device.
    """
    named = dict(trainer.learner.named_parameters())
    finite = torch.stack([local(parameter.detach()).isfinite().all() for parameter in named.values()])
    everywhere = distributed.on_all_ranks(finite).tolist()
    not_finite = [name for name, good in zip(named, everywhere, strict=True) if not good]
    if not_finite:
        raise UserError(
            f"training: at iteration {trainer.iteration}, {len(not_finite)} weights are not finite (the first: "
            f"{not_finite[0]}); they were not saved; resume from the last checkpoint with a lower optim.optimizer.lr."
        )
