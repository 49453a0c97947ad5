"""Evaluations during training: the suite of ``train.evaluate`` on the model as it is between two steps."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol

from loguru import logger

from hypvl import distributed
from hypvl.errors import ConfigError
from hypvl.models.dual_encoder import DualEncoder
from hypvl.training.hooks.best import BestCheckpoint
from hypvl.training.hooks.metrics import Metrics
from hypvl.training.hooks.sinks import JsonLines, Record, Sink, write_to
from hypvl.training.loop import EVALUATION, Hook, StepResult, Trainer
from hypvl.training.random_state import unchanged_random_state

PREFIX = "evaluate/"
CHANCE = "_chance"  # with which names of chance levels end
Entry = Mapping[str, Any]
_SECONDS = f"{PREFIX}seconds"  # in every record


class Suite(Protocol):
    """Evaluations by name."""

    names: Sequence[str]

    def measure(self, name: str, model: DualEncoder) -> Entry:
        """Measure the model (a collective). Nothing is raised.

        Returns:
            ``status`` ("ok", "missing" or "failed") and ``metrics``, name -> number; where it is "ok" ``meta`` with the
            ``main_metric``, else the ``reason``.
        """


@dataclass
class Evaluation(Hook):
    """Measures before the first step, every ``every`` steps, and after the last one.

    Records have ``iteration``, the metrics as ``evaluate/<evaluation>/<metric>``, without those of chance, and
    ``evaluate/seconds``. The run goes on as if nothing had been measured: random generators, modes of modules and the
    speed in other records do not change. An evaluation that fails, or whose data are missing, is a warning in the log.
    When the run is asked to stop, the evaluations of this step are given up before the next of them begins; a run that
    resumes at this step makes up for them before its first step.

    Raises:
        ConfigError: in ``before_train``, when the metric of ``best`` is not among those that are measured. A run that
            resumes and knows a best value has been checked before.
    """

    suite: Suite
    sinks: Sequence[Sink]  # where records go (rank 0); other hooks close them
    _: KW_ONLY
    every: int  # steps between evaluations, at least 1
    metrics: Metrics  # which does not count the time
    best: BestCheckpoint | None = None  # what keeps the best state; None = nothing does
    #: ``metrics.jsonl``, which says what a run that resumes has measured; None on other ranks than 0, or where no run
    #: resumes.
    records: JsonLines | None = None

    def before_train(self, trainer: Trainer) -> None:
        if self.best is not None:
            self.best.start(trainer)
        first = trainer.iteration == 0 or (self.best is not None and self.best.value is None)
        if first or (self._is_due(trainer) and not self._is_measured(trainer)):
            self._evaluate(trainer, first=first)

    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        if self._is_due(trainer):
            self._evaluate(trainer)

    def _is_due(self, trainer: Trainer) -> bool:
        return trainer.iteration % self.every == 0 or trainer.iteration == trainer.num_iterations

    def _is_measured(self, trainer: Trainer) -> bool:
        """Whether the run that is resumed has measured this step (a collective)."""

        def look() -> bool:
            return self.records is None or trainer.iteration in self.records.iterations(_SECONDS)

        return distributed.from_main(look)

    def _evaluate(self, trainer: Trainer, *, first: bool = False) -> None:
        started = time.perf_counter()
        try:
            entries = self._measure(trainer)
            if entries is None:
                return
            entries = distributed.broadcast_object(entries)
            if first and self.best is not None:
                distributed.from_main(lambda: self._check_metric(entries))
            self._report(trainer, entries, seconds=time.perf_counter() - started)
            self._keep_best(trainer, entries)
        finally:
            self.metrics.leave_out(time.perf_counter() - started)

    def _measure(self, trainer: Trainer) -> dict[str, Entry] | None:
        """Every evaluation's entry, without its results by item; None when the run is asked to stop."""
        entries: dict[str, Entry] = {}
        try:
            with unchanged_random_state():
                model = trainer.whole_model()
                for name in self.suite.names:
                    trainer.signals.agree()
                    if trainer.signals.stop is not None:
                        logger.warning(
                            "iteration {}: asked to stop, so it is not evaluated", trainer.iteration
                        )
                        trainer.cut_short = True
                        return None
                    trainer.between_steps = f"{EVALUATION} {name}"
                    trainer.learner.eval()
                    entry = self.suite.measure(name, model)
                    entries[name] = {key: value for key, value in entry.items() if key != "items"}
        finally:
            trainer.between_steps = None
            trainer.learner.train()
        return entries

    def _report(self, trainer: Trainer, entries: Mapping[str, Entry], *, seconds: float) -> None:
        record: Record = {"iteration": trainer.iteration}
        headlines = []
        for name, entry in entries.items():
            if entry["status"] != "ok":
                logger.warning(
                    "iteration {}: evaluation {}: {}: {}",
                    trainer.iteration, name, entry["status"], entry["reason"],
                )  # fmt: skip
                continue
            metrics = entry["metrics"]
            record |= {
                f"{PREFIX}{name}/{metric}": value
                for metric, value in metrics.items()
                if not metric.endswith(CHANCE)
            }
            main = entry.get("meta", {}).get("main_metric")
            if main in metrics:
                headlines.append(f"{name} {main} {metrics[main]:.4g}")
        write_to(self.sinks, record | {_SECONDS: seconds})
        logger.info(
            "iteration {}: evaluated in {:.1f} s: {}",
            trainer.iteration, seconds, ", ".join(headlines) or "no result",
        )  # fmt: skip

    def _keep_best(self, trainer: Trainer, entries: Mapping[str, Entry]) -> None:
        if self.best is None:
            return
        name, metric = split_metric(self.best.metric, self.suite.names)
        value = entries[name]["metrics"].get(metric)
        if value is None:
            logger.warning("iteration {}: no value of train.keep_best.metric", trainer.iteration)
        elif self.best.offer(trainer, value):
            logger.info(
                "iteration {}: best {} so far, {:.6g}: saved {}",
                trainer.iteration, self.best.metric, value, self.best.path,
            )  # fmt: skip

    def _check_metric(self, entries: Mapping[str, Entry]) -> None:
        assert self.best is not None
        name, metric = split_metric(self.best.metric, self.suite.names)
        entry = entries[name]
        where = f"train.keep_best.metric: got {self.best.metric!r}, but"
        if entry["status"] != "ok":
            raise ConfigError(
                f"{where} the evaluation {name} is {entry['status']}: {entry['reason']} (Repair it, or set the metric "
                "to null.)"
            )
        measured = [known for known in entry["metrics"] if not known.endswith(CHANCE)]
        if metric not in measured:
            raise ConfigError(f"{where} {name} measures {', '.join(measured)}; expected one of them.")


def split_metric(text: str, names: Sequence[str]) -> tuple[str, str]:
    """``<evaluation>/<metric>`` as the two. Raises ConfigError when the evaluation is not among ``names``."""
    fitting = [name for name in names if text.startswith(f"{name}/")]
    if not fitting:
        raise ConfigError(
            f"train.keep_best.metric: got {text!r}; expected '<evaluation>/<metric>' with one of the evaluations of "
            f"train.evaluate: {', '.join(names)}."
        )
    name = max(fitting, key=len)
    return name, text[len(name) + 1 :]
