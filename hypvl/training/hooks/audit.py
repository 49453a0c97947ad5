"""A live audit: how the embeddings of the batch that was just trained on use the geometry."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field

import torch
from loguru import logger
from torch import Tensor

from hypvl import distributed
from hypvl.diagnostics.audit import in_percent, summary
from hypvl.diagnostics.verdict import idle_geometry, interpret
from hypvl.errors import ConfigError
from hypvl.losses.base import IMAGE, TEXT, View
from hypvl.training.hooks.sinks import Sink, write_to
from hypvl.training.loop import Hook, StepResult, Trainer

PREFIX = "audit/"
_TRY = (
    "try a curvature that is not learned (model.geometry.learn_curv=false), a narrower range of it "
    "(model.geometry.curv_range) or the terms of the objective argent; hypvl docs faq shows runs"
)


@dataclass
class LiveAudit(Hook):
    """Every ``every`` steps: the numbers of :func:`hypvl.diagnostics.audit.summary`, shares in percent, and a log line.

    Nothing is encoded again: the embeddings are those of the step, of all ranks together; an image and the text in its
    row are a pair. Records have ``iteration`` and the numbers as ``audit/<name>``. Medians of ``samples`` pairs vary
    from batch to batch: look at the trend over the run, also of the curvature.

    Where the geometry has stopped to do anything (:func:`~hypvl.diagnostics.verdict.idle_geometry`), a line of its own
    says why, since which audit of this process, and the first time what to try; another says when that is over.

    Raises:
        ConfigError: in ``before_train``, where the objective encodes no pairs of ``image`` and ``text``.
    """

    sinks: Sequence[Sink]  # where records go (rank 0)
    _: KW_ONLY
    owned: Sequence[Sink] = ()  # those of them that are closed at the end; other hooks close the others
    every: int  # steps between audits, at least 1
    samples: int = 512  # upper bound of pairs over all ranks, at least 2
    aperture_factor: float = 1.0  # of the cones, as the objective uses it
    _idle_since: int | None = field(default=None, init=False)  # the first audit of the present spell
    _worked: bool = field(default=False, init=False)  # whether any audit of this process was not idle

    def before_train(self, trainer: Trainer) -> None:
        missing = [str(view) for view in (IMAGE, TEXT) if view not in trainer.learner.views]
        if missing:
            raise ConfigError(
                f"train.audit.every: got {self.every}, but the objective does not encode {' and '.join(missing)}; "
                "set it to 0, or add a term that compares images with their texts."
            )

    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        if trainer.iteration % self.every:
            return
        images, texts = self._rows(step, IMAGE), self._rows(step, TEXT)
        if not distributed.is_main() or len(images) < 2:
            return
        if not bool(images.isfinite().all() and texts.isfinite().all()):
            logger.warning("iteration {}: no audit, the embeddings are not finite", trainer.iteration)
            return
        numbers = in_percent(
            summary(
                trainer.learner.model.geometry,
                images,
                texts,
                aperture_factor=self.aperture_factor,
                generator=torch.Generator().manual_seed(trainer.iteration),
            )
        )
        write_to(self.sinks, {"iteration": trainer.iteration, **{PREFIX + k: v for k, v in numbers.items()}})
        verdict = interpret(numbers)
        logger.info("iteration {}: audit: {}: {}", trainer.iteration, verdict.status, verdict.text)
        self._say_whether_idle(idle_geometry(numbers), step=trainer.iteration)

    def _say_whether_idle(self, reason: str | None, *, step: int) -> None:
        if reason is None:
            if self._idle_since is not None:
                logger.info("iteration {}: geometry no longer idle", step)
            self._idle_since, self._worked = None, True
            return
        first = self._idle_since is None
        self._idle_since = step if self._idle_since is None else self._idle_since
        since = f"{self._idle_since:,}" + ("" if self._worked else " or earlier")
        logger.log(
            "WARNING" if first else "INFO",
            "iteration {}: {}: geometry idle since step {}{}",
            step, reason, since, f"; {_TRY}" if first else "",
        )  # fmt: skip

    def close(self, trainer: Trainer) -> None:
        for sink in self.owned:
            sink.close()

    @torch.no_grad()
    def _rows(self, step: StepResult, view: View) -> Tensor:
        """Embeddings of a view on all ranks, (N, D) with N <= samples (a collective)."""
        each = max(1, self.samples // distributed.world_size())
        return distributed.gather(step.ctx.embeddings(view).detach()[:each])
