"""The evaluations of a suite, one by one: for the command that evaluates, and for models in training."""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypvl.checks import closest
from hypvl.cli.common import DEBUG_VARIABLE, load_config, show_traceback, system_error
from hypvl.data.workers import dead_worker
from hypvl.errors import ConfigError, MissingDataError, UserError
from hypvl.io.progress import SOON, no_bars, terminal_bar
from hypvl.io.redact import redact_text

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from hypvl.cli.mean_removal import MeanRemover
    from hypvl.embedding.protocol import EvaluableModel
    from hypvl.evaluation.protocol import EvaluationContext, Evaluator
    from hypvl.training.config import EvaluateConfig


class TrainingSuite:
    """The evaluations that ``train.evaluate`` asks for; every rank takes its share of the encoding.

    Raises:
        ConfigError: for a suite that cannot be read, or a name that it does not have.
    """

    def __init__(self, settings: "EvaluateConfig") -> None:
        try:
            self._config = load_config(
                str(settings.config), settings.overrides or (), required=("evaluate",), prefix="eval_"
            )
            check_encoding(self._config)
        except ConfigError as error:
            reason = str(error).removeprefix("--config: ")
            asked_by = "config" if not settings.overrides else "config with train.evaluate.overrides"
            raise ConfigError(f"train.evaluate.{asked_by}: {reason}") from error
        self.names: Sequence[str] = evaluation_names(
            self._config, settings.only, asked_by="train.evaluate.only", source=str(settings.config)
        )

    def measure(self, name: str, model: "EvaluableModel") -> dict[str, Any]:
        """One evaluation as an entry of a results file (a collective); what goes wrong is recorded in it."""
        from hypvl.embedding.encode import Encoding
        from hypvl.evaluation.protocol import EvaluationContext

        context = EvaluationContext(encoding=Encoding(progress=False))
        return measure_entry(name, self._config, model, context, progress=False)


def check_encoding(config: "DictConfig") -> None:
    """Refuse a wrong setting of ``encoding``, which every evaluation would fail by (ConfigError)."""
    from hypvl.config import instantiate

    if config.get("encoding") is not None:
        instantiate(config.encoding)


def evaluation_names(
    config: "DictConfig", only: Sequence[str] | None, *, asked_by: str, source: str
) -> list[str]:
    """Which evaluations to run, in the order of the config: all, or only those of some names.

    Raises:
        ConfigError: for a config without evaluations, or a name that it does not have (``asked_by`` that setting).
    """
    from omegaconf import DictConfig

    known = [str(name) for name in config.evaluate] if isinstance(config.evaluate, DictConfig) else []
    if not known:
        raise ConfigError(
            f"{source}: evaluate is empty or not a mapping; expected a name -> evaluator for each."
        )
    if only is None:
        return known
    wanted = [name.strip() for name in only]
    for name in wanted:
        if name not in known:
            near = closest(name, known)
            hint = f" (closest: {near})" if near else ""
            raise ConfigError(
                f"{asked_by}: {name!r} is not in {source}{hint}; expected some of {', '.join(known)}."
            )
    return [name for name in known if name in wanted]


def measure_entry(
    name: str,
    config: "DictConfig",
    model: "EvaluableModel",
    context: "EvaluationContext",
    *,
    remover: "MeanRemover | None" = None,
    progress: bool = True,
) -> dict[str, Any]:
    """One evaluation of a config as an entry of a results file (a collective).

    An error is recorded in the entry (``status``, ``reason``) and stops no other evaluation. ``progress``: whether
    bars may be shown.
    """
    from hypvl import distributed
    from hypvl.config import instantiate
    from hypvl.metrics.bootstrap import bootstrap_intervals

    def build() -> "Evaluator":
        evaluator: Evaluator = instantiate(config.evaluate[name])
        own = getattr(evaluator, "encoding", None)
        if own is not None and not progress:
            evaluator.encoding = replace(own, progress=False)
        return evaluator

    def measure() -> dict[str, Any]:
        assert evaluator is not None
        if remover is None:
            result = evaluator(model, context)
        else:
            with remover.applied(evaluator, set_name=name) as applied:
                result = evaluator(model, context)
            result.meta["standardization"] = applied
        with terminal_bar("bootstrap intervals", after=SOON) as move_bar:
            intervals = bootstrap_intervals(result.samples, strata=result.strata, on_draws=move_bar)
        entry: dict[str, Any] = {
            "status": "ok",
            "metrics": result.metrics,
            "intervals": {metric: list(bounds) for metric, bounds in intervals.items()},
            "items": result.items,
            "meta": result.meta,
        }
        json.dumps(entry, allow_nan=False)
        return entry

    started = time.monotonic()
    evaluator, failure = _caught(build)
    # A file may be missing on one machine only: then no rank starts to encode and waits for the others.
    failures = [other for other in distributed.gather_objects(failure) if other is not None]
    if failures:
        return failures[0]
    with no_bars(hidden=not (progress and distributed.is_main())):
        entry, failure = _caught(measure)
    if entry is None:
        assert failure is not None
        return failure
    entry["seconds"] = round(time.monotonic() - started, 2)
    return entry


def _caught(work: Callable[[], Any]) -> tuple[Any, dict[str, Any] | None]:
    """What ``work`` returns; or None, and the entry of its error, whose traceback is shown if it is not expected."""
    try:
        return work(), None
    except (Exception, SystemExit) as error:  # noqa: BLE001  # recorded, and its traceback shown
        # ValueError and RuntimeError: bad settings, out of memory; OSError: a disk that goes away.
        expected = isinstance(error, UserError | ValueError | RuntimeError | OSError)
        if not expected or os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0"):
            show_traceback()
        if isinstance(error, OSError) and error.strerror is not None:
            reason, plain = system_error(error), True
        else:
            reason, plain = _reason(error), isinstance(error, UserError)
        reason = redact_text(reason)
        return None, {
            "status": "missing" if isinstance(error, MissingDataError) else "failed",
            "reason": reason if plain else f"{type(error).__name__}: {reason}",
            "metrics": {},
        }


def _reason(error: BaseException) -> str:
    """The message in one line; of an error with the traceback of a data worker, the last line."""
    died = dead_worker(error, setting="encoding.num_workers")
    if died is not None:
        return died
    lines = str(error).strip().splitlines()
    if any("Original Traceback" in line for line in lines):
        return f"in a data worker: {lines[-1]}"
    return " ".join(" ".join(lines).split())
