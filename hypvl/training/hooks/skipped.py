"""Steps that are skipped because loss or gradients are not finite: who they were, and when a run gives up."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from loguru import logger
from torch import Tensor

from hypvl import distributed
from hypvl.errors import UserError
from hypvl.training.hooks.sinks import JsonLines, write_to
from hypvl.training.loop import Hook, StepResult, Trainer
from hypvl.training.skipped_batch import dump_name, sample_count, sample_names, write_dump

SKIPPED_STEPS_NAME = "skipped_steps.jsonl"
# Steps after which a GPU has told whether a step was skipped, so that nothing waits for it.
_LAG = 4
# Bounds of what is told of a skipped step: samples in a line of the log, of a rank in the file; ranks in the file.
_IN_LINE, _IN_FILE, _RANKS = 8, 64, 8
_LINES = 20  # warnings of one process; later skipped steps are only listed in the file
_DUMPS = 4  # ranks that write their batch when the run gives up


class _Step(NamedTuple):
    """A step whose numbers may still be on their way from the device."""

    iteration: int
    names: list[str]  # of this rank's samples
    numbers: (
        Tensor  # stepped, loss, gradient norm, terms, and for each sample whether its features are finite
    )
    terms: list[str]
    arrived: Any  # CUDA event; None = there already

    def read(self) -> list[float]:
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.numbers.tolist()


@dataclass
class SkippedSteps(Hook):
    """Says which samples skipped steps had, and ends the run when too many of them come in a row.

    Every skipped step is a line of the log and, for each rank (at most 8, those whose numbers were not finite first), a
    record of ``skipped_steps.jsonl``: keys of samples whose features were not finite, or of the first 64 of the batch.
    In fp16 a step that only overflowed the loss scale is routine: it is counted, and said at level DEBUG.

    When the run ends, the weights are saved as they were after the last step that was not skipped, and up to four ranks
    write their samples to ``skipped_batch_rank<r>.pt``.

    A GPU is not waited for: it tells of a step 4 steps later, so that the run may end that much later.

    Raises:
        UserError: in ``after_step``, when there were so many.
    """

    limit: int  # skipped steps in a row that end the run, at least 1
    _: KW_ONLY
    folder: Path | None = None  # of the run, for the samples of the last step; None = they are not written
    #: Saves the run (a collective), and says where; UserError where that is not possible. None = it is not saved.
    save: Callable[[Trainer], Path] | None = None
    file: JsonLines | None = None  # ``skipped_steps.jsonl``; None on other ranks than 0
    _in_a_row: int = field(default=0, init=False)
    _lines: int = field(default=0, init=False)
    _waiting: deque[_Step] = field(default_factory=deque, init=False)

    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        known = step.stepped.device.type == "cpu" or trainer.scaler.is_enabled()  # nothing is waited for
        if known and step.stepped and not self._waiting:
            self._in_a_row = 0
            return
        self._waiting.append(_record(trainer, step))
        last = None
        while self._waiting and (known or len(self._waiting) > _LAG or self._in_a_row >= self.limit):
            last = self._read(self._waiting.popleft(), trainer) or last
        if self._in_a_row >= self.limit and last is not None:
            self._give_up(trainer, step, last)

    def after_train(self, trainer: Trainer) -> None:
        while self._waiting:
            self._read(self._waiting.popleft(), trainer)

    def close(self, trainer: Trainer) -> None:
        if self.file is not None:
            self.file.close()

    def _read(self, step: _Step, trainer: Trainer) -> list[Mapping[str, Any]] | None:
        """Count a step; what every rank knows of it, None where it was not skipped (then no collective)."""
        stepped, loss, norm, *rest = step.read()
        if stepped:
            self._in_a_row = 0
            return None
        self._in_a_row += 1
        values, finite = rest[: len(step.terms)], rest[len(step.terms) :]
        bad_rows = [row for row, good in enumerate(finite) if not good]
        own = {
            "rank": distributed.rank(),
            "loss": loss,
            "grad_norm": norm,
            "terms": [name for name, value in zip(step.terms, values, strict=True) if not _finite(value)],
            "bad": len(bad_rows),
            "rows": bad_rows[:_IN_FILE],
            "not_finite": [step.names[row] for row in bad_rows[:_IN_FILE]],
            "samples": len(step.names),
            "keys": step.names[:_IN_FILE],
        }
        everywhere: list[Mapping[str, Any]] = distributed.gather_objects(own)
        if distributed.is_main():
            self._tell(step.iteration, everywhere, overflow=trainer.scaler.is_enabled())
        return everywhere

    def _tell(self, iteration: int, ranks: Sequence[Mapping[str, Any]], *, overflow: bool) -> None:
        if self.file is not None:
            for of_rank in _worst(ranks)[:_RANKS]:
                record = {
                    "iteration": iteration,
                    **{name: of_rank[name] for name in ("rank", "loss", "grad_norm", "terms", "samples")},
                    "not_finite": of_rank["bad"],
                    "keys": of_rank["not_finite"] or of_rank["keys"],
                }
                write_to([self.file], record)
        if overflow and all(_finite(of_rank["loss"]) for of_rank in ranks):
            logger.debug("iteration {}: skipped, gradients overflowed the loss scale", iteration)
            return
        self._lines += 1
        if self._lines <= _LINES:
            logger.warning("iteration {}: step skipped: {}", iteration, describe(ranks))
        if self._lines == _LINES:
            logger.warning("further skipped steps are counted, and listed in {} only", SKIPPED_STEPS_NAME)

    def _give_up(self, trainer: Trainer, step: StepResult, ranks: Sequence[Mapping[str, Any]]) -> None:
        raise UserError(
            f"training: {self._in_a_row} steps in a row up to iteration {trainer.iteration} had a loss or gradients "
            f"that are not finite and were skipped (train.max_skipped_steps={self.limit}): {describe(ranks)}; "
            f"{self._dump(trainer, step, ranks)}{self._saved(trainer)}; resume with a lower optim.optimizer.lr, "
            "train.grad_clip_norm=1.0 or train.amp=fp32."
        )

    def _dump(self, trainer: Trainer, step: StepResult, ranks: Sequence[Mapping[str, Any]]) -> str:
        """Write this rank's samples, if it is among the worst ranks (a collective); says where all of them are."""
        if self.folder is None:
            return ""
        writers = [of_rank["rank"] for of_rank in _worst(ranks)[:_DUMPS]]
        rank, reason = distributed.rank(), None
        if rank in writers:
            mine = ranks[rank]
            batches, start = [], 0
            for ctx in _contexts(step):
                count = sample_count(ctx.batch)
                batches.append(
                    (ctx.batch, [row - start for row in mine["rows"] if start <= row < start + count])
                )
                start += count
            about = {"iteration": trainer.iteration}
            about |= {name: mine[name] for name in ("rank", "loss", "grad_norm", "terms", "not_finite")}
            try:
                write_dump(self.folder / dump_name(rank), batches, about=about)
            except OSError as error:
                reason = f"{dump_name(rank)} cannot be written ({error.strerror})"
        reasons = distributed.gather_objects(reason)
        written = [dump_name(r) for r in writers if reasons[r] is None]
        failed = "".join(f"{text}; " for text in reasons if text is not None)
        if not written:
            return failed
        return (
            f"{failed}its samples are in {', '.join(written)} of {self.folder}, on the machine of that rank: "
            f'torch.load("{written[0]}", weights_only=True)["batches"][0] has their "key", "position" and tensors; '
        )

    def _saved(self, trainer: Trainer) -> str:
        if self.save is None:
            return "weights are those after the last step before them"
        try:
            return f"the weights before them are saved in {self.save(trainer)}"
        except UserError as error:
            return f"no checkpoint was written ({str(error).rstrip('.')})"


def describe(ranks: Sequence[Mapping[str, Any]]) -> str:
    """What was not finite on which ranks, and up to 8 samples."""
    losses = [of_rank for of_rank in ranks if not _finite(of_rank["loss"])]
    if losses:
        terms = list(dict.fromkeys(name for of_rank in losses for name in of_rank["terms"]))
        named = f" ({', '.join(terms)})" if terms else ""
        what = f"the loss{named} is not finite on {_ranks(losses)}"
    else:
        what = "the loss is finite, a gradient is not"
    bad = [of_rank for of_rank in ranks if of_rank["rows"]]
    if bad:
        count, where = sum(of_rank["bad"] for of_rank in bad), _ranks(bad)
        named = _some([key for of_rank in bad for key in of_rank["not_finite"]], count)
        return f"{what}; features are not finite of {named} on {where}"
    return (
        f"{what}; samples: {_some([k for r in ranks for k in r['keys']], sum(r['samples'] for r in ranks))}"
    )


def _ranks(some: Sequence[Mapping[str, Any]]) -> str:
    numbers = [str(of_rank["rank"]) for of_rank in some]
    shown = ", ".join(numbers[:_IN_LINE]) + (" ..." if len(numbers) > _IN_LINE else "")
    return f"rank{'s' * (len(numbers) > 1)} {shown}"


def _some(names: list[str], count: int) -> str:
    shown = ", ".join(names[:_IN_LINE])
    return f"{shown} and {count - _IN_LINE} more" if count > _IN_LINE else shown


def _worst(ranks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Ranks with features that are not finite; where there are none, with such a loss; else all. In rank order."""
    for suspect in (lambda r: bool(r["rows"]), lambda r: not _finite(r["loss"])):
        if some := [of_rank for of_rank in ranks if suspect(of_rank)]:
            return some
    return list(ranks)


def _finite(value: float) -> bool:
    return abs(value) < float("inf")  # NaN is not


def _contexts(step: StepResult) -> Sequence[Any]:
    return step.parts if step.parts else [step.ctx]


def _record(trainer: Trainer, step: StepResult) -> _Step:
    """Numbers of a step and names of its samples; from a GPU the numbers are only asked for."""
    contexts, device = _contexts(step), step.stepped.device
    names = [name for ctx in contexts for name in sample_names(ctx.batch)]
    terms = list(step.output.terms)
    numbers = [step.stepped, step.output.total.detach(), step.grad_norm, *step.output.terms.values()]
    rows = [_finite_samples(ctx, trainer) for ctx in contexts]
    packed = torch.cat([torch.stack([x.float() for x in numbers]), *rows])
    if device.type != "cuda":
        return _Step(trainer.iteration, names, packed, terms, None)
    host = torch.empty(len(packed), pin_memory=True).copy_(packed, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return _Step(trainer.iteration, names, host, terms, arrived)


@torch.no_grad()
def _finite_samples(ctx: Any, trainer: Trainer) -> Tensor:
    """(B,) float, 1 where the features of all rows of a sample are finite."""
    bad = torch.zeros(sample_count(ctx.batch), device=trainer.precision.device)
    for view in trainer.learner.views:
        row = (~ctx.features(view).isfinite()).flatten(1).any(1).float()
        owner = ctx.owner(view)
        if owner is not None:
            bad.index_add_(0, owner, row)
        elif len(bad) and len(row) % len(bad) == 0:  # several rows of each sample, one after the other
            bad += row.view(len(bad), -1).sum(1)
    return (bad == 0).float()
