"""A run's state: what a checkpoint holds, how a run resumes from it, and which settings may have changed by then."""

import dataclasses
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from loguru import logger
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from hypvl import distributed
from hypvl.checks import short
from hypvl.config.plain import TARGET, locate, walk
from hypvl.config.reader import stored_data
from hypvl.config.targets import allowed_targets, is_reference_or_text
from hypvl.data.loader import Loader
from hypvl.data.stream_loader import StreamLoader
from hypvl.errors import CheckpointError, ConfigError
from hypvl.io.redact import redacted
from hypvl.io.sharded import Stored, read_stored
from hypvl.models.checkpoint_io import FORMAT_VERSION, open_checkpoint
from hypvl.models.convert import current_name
from hypvl.models.weights import load_weights
from hypvl.training.config import TrainConfig
from hypvl.training.hooks.metrics import Metrics, bad_everywhere
from hypvl.training.loop import Trainer
from hypvl.training.parallel import as_sharded_like
from hypvl.training.random_state import random_state, restore_random_state

_NEW_RUN = "start a new run with train.init_checkpoint set to it"
_ABSENT = object()
# A run with another value of these would be another run.
_FIXED = ("train.seed", "train.total_batch_size", "train.naive_accumulate", "model", "dataset.tokenizer")
_FIXED_TARGETS = ("optim.optimizer", "optim.parameters")
_FREE_NAME = "grad_checkpointing"  # of a model: memory against time, the same numbers
# Numbers of a loss term that are sizes of its buffers and parameters, not numbers that it computes with
_SIZES = frozenset({
    "queue_size", "dim", "student_dim", "teacher_dim", "embed_dim", "in_features", "out_features", "features", "hidden",
    "hidden_layers", "layers", "count", "clusters", "external_clusters", "episode",
})  # fmt: skip
_UNUSED = ("train.init_checkpoint", "train.init_missing", "train.init_positions")


@dataclasses.dataclass
class TrainState:
    """The state of a run between two steps."""

    trainer: Trainer  # model, objective, optimizer, schedule and scaler
    loader: Loader | StreamLoader  # position in the data, and which samples of it were bad
    metrics: Metrics  # what was seen since the last record
    config: str = ""  # resolved, as YAML text
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a checkpoint holds, see ``ENTRIES`` (a collective)."""
        return {name: entry.save(self) for name, entry in ENTRIES.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a checkpoint that :func:`read_state` returned.

        Of the optimizer only moments and step counts are restored, of the schedule only its step: rates, decay, betas
        and epsilon are those of the present config.

        Raises:
            CheckpointError: when model, objective or optimizer do not fit.
            ConfigError: for fp16 where the run had no loss scaler.
            DataError: when seed, batch or data differ.
        """
        for entry in ENTRIES.values():
            if entry.load is not None:
                entry.load(self, state)

    def optimized(self) -> list[str]:
        """Names of the optimizer's parameters, in the order of its state_dict."""
        names = {id(parameter): name for name, parameter in self.trainer.learner.named_parameters()}
        return [names[id(p)] for group in self.trainer.optimizer.param_groups for p in group["params"]]

    def _data(self) -> dict[str, Any]:
        bad = bad_everywhere(self.loader.bad).state_dict()
        state = {**self.loader.state(self.trainer.consumed), "bad_samples": bad}
        if isinstance(self.loader, StreamLoader):
            state["places"] = distributed.gather_objects(self.loader.places())
        return state

    def _load_model(self, state: Mapping[str, Any]) -> None:
        load_weights(self.trainer.learner.model, dict(state), positions="exact")

    def _load_objective(self, state: Mapping[str, Any]) -> None:
        try:
            self.trainer.learner.objective.load_state_dict(state["objective"])
        except RuntimeError as error:
            raise CheckpointError(
                f"--resume: the objective of the checkpoint has another state than this one "
                f"({' '.join(str(error).split())}); restore train.objective, or {_NEW_RUN}."
            ) from error

    def _teachers(self) -> dict[str, Any]:
        teachers = self.trainer.learner.teachers
        return {name: teacher.state_dict() for name, teacher in teachers.items() if teacher.saved}

    def _load_teachers(self, state: Mapping[str, Any]) -> None:
        for name, teacher in self.trainer.learner.teachers.items():
            if not teacher.saved:
                continue
            try:
                teacher.load_state_dict(read_stored(state.get("teachers", {})[name]))
            except (KeyError, RuntimeError) as error:
                raise CheckpointError(
                    f"--resume: the checkpoint does not hold the teacher {name!r} of this config "
                    f"({' '.join(str(error).split())}); restore train.teachers, or {_NEW_RUN}."
                ) from error

    def _load_optimizer(self, state: Mapping[str, Any]) -> None:
        saved, names = state["optimizer"], self.optimized()
        before = [current_name(name) for name in state["optimizer_parameters"]]
        if differing := sorted(set(before) ^ set(names)):
            raise CheckpointError(
                f"--resume: the run trained other parameters than this config ({_some(differing)} only one of them); "
                f"restore optim.parameters.trainable and .frozen, and what is learned, or {_NEW_RUN}."
            )
        index = {name: i for i, name in enumerate(before)}
        optimizer = self.trainer.optimizer
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        moments = {
            i: {key: _moment(value, parameter) for key, value in saved["state"][index[name]].items()}
            for i, (name, parameter) in enumerate(zip(names, parameters, strict=True))
            if index[name] in saved["state"]
        }
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})

    def _load_scheduler(self, state: Mapping[str, Any]) -> None:
        set_step(self.trainer.scheduler, int(state["scheduler"]["last_epoch"]))

    def _load_scaler(self, state: Mapping[str, Any]) -> None:
        if not self.trainer.scaler.is_enabled():
            return
        if not state["scaler"]:
            raise ConfigError(
                "--resume: train.amp is fp16 now, but the run had no loss scaler; use the precision it had, or "
                f"{_NEW_RUN}."
            )
        self.trainer.scaler.load_state_dict(state["scaler"])

    def _load_data(self, state: Mapping[str, Any]) -> None:
        self.loader.check_resume(state["data"])
        if isinstance(self.loader, StreamLoader):
            self.loader.resume(state["data"])
        if distributed.is_main():
            self.loader.bad.load_state_dict(state["data"]["bad_samples"])


class _Entry(NamedTuple):
    """One entry of a checkpoint."""

    save: Callable[[TrainState], Any]
    #: Restores a run from the checkpoint; None where another entry's does, or nothing is restored.
    load: Callable[[TrainState, Mapping[str, Any]], None] | None = None
    needed: bool = True  # a checkpoint without it cannot be resumed


#: What a checkpoint holds, in the order in which it is restored. The final one has ``root`` (D,), too, where the
#: geometry has no root of its own: the mean training embedding.
ENTRIES: Mapping[str, _Entry] = {
    "format_version": _Entry(lambda run: FORMAT_VERSION, needed=False),
    "model": _Entry(lambda run: run.trainer.learner.model.state_dict(), TrainState._load_model),
    "objective": _Entry(lambda run: run.trainer.learner.objective.state_dict(), TrainState._load_objective),
    "teachers": _Entry(TrainState._teachers, TrainState._load_teachers, needed=False),
    "optimizer": _Entry(lambda run: run.trainer.optimizer.state_dict(), TrainState._load_optimizer),
    "optimizer_parameters": _Entry(TrainState.optimized),
    "scheduler": _Entry(lambda run: run.trainer.scheduler.state_dict(), TrainState._load_scheduler),
    "scaler": _Entry(lambda run: run.trainer.scaler.state_dict(), TrainState._load_scaler),
    "data": _Entry(TrainState._data, TrainState._load_data),
    "metrics": _Entry(
        lambda run: run.metrics.state(), lambda run, state: run.metrics.load_state(state["metrics"])
    ),
    "rng": _Entry(lambda run: random_state(), lambda run, state: restore_random_state(state["rng"])),
    "iteration": _Entry(lambda run: run.trainer.iteration),
    "config": _Entry(lambda run: run.config, needed=False),
    "provenance": _Entry(lambda run: run.provenance, needed=False),
}


def read_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint of a training run. Raises CheckpointError for a file that is not one."""
    state = open_checkpoint(path)
    if missing := {name for name, entry in ENTRIES.items() if entry.needed} - set(state):
        raise CheckpointError(
            f"{path}: has no {', '.join(sorted(missing))}, so training cannot continue from it; {_NEW_RUN}."
        )
    return state


def _moment(value: Any, parameter: Tensor) -> Any:
    """An entry of an optimizer's state for a parameter: of a sharded one the part that this rank holds."""
    if isinstance(value, Stored):
        return value.like(parameter)
    return as_sharded_like(value, parameter)


def set_step(scheduler: LRScheduler, step: int) -> None:
    """Set a new schedule to the state, and the rates, that it has after ``step`` steps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no optimizer stepped before it
        if isinstance(scheduler, LambdaLR):  # its rates are a function of the step
            scheduler.last_epoch = step - 1
            scheduler.step()
            scheduler._step_count = step + 1  # as if each step had been taken: checkpoints hold it
            return
        while scheduler.last_epoch < step:
            scheduler.step()


@dataclasses.dataclass(frozen=True)
class Change:
    """One difference between two configs."""

    key: str  # dotted
    saved: Any  # of the run; None also where it had none
    new: Any
    allowed: bool  # whether a run may resume with it

    def __str__(self) -> str:
        saved, new = ("null" if value is None else short(value) for value in (self.saved, self.new))
        return f"{self.key} was {saved} and is {new}"


def saved_config(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config in a checkpoint as plain data with its references resolved; no target is called.

    None where there is none, or it cannot be read.
    """
    text = state.get("config")
    if not isinstance(text, str):
        return None
    try:
        data = stored_data(text, source="config in the checkpoint")
        texts = [value for _, value in walk(data) if isinstance(value, str)]
        if not isinstance(data, dict) or not all(map(is_reference_or_text, texts)):
            return None
        plain = OmegaConf.to_container(OmegaConf.create(data), resolve=True)
    except (ConfigError, OmegaConfBaseException):
        return None
    return plain if isinstance(plain, dict) else None  # type: ignore[return-value]  # keys are texts


def check_compatible(saved: Mapping[str, Any] | None, new: DictConfig) -> list[Change]:
    """Differences between the config of a run and the one with which it resumes.

    Learning rate, decay, betas, epsilon, schedule, length, periods, precision, clipping, settings of the processes
    and the numbers of loss terms may change, and take effect. Data are compared by their fingerprint, so that a folder
    may move. Seed, batch, model, tokenizer, and the set of loss terms may not change. ``saved`` is what
    :func:`saved_config` returned; without one nothing is checked, with a warning.

    Raises:
        ConfigError: naming all changes that are not allowed.
    """
    if saved is None:
        logger.warning("--resume: the checkpoint holds no readable config, so changes of it are not checked")
        return []
    changes = config_changes(saved, OmegaConf.to_container(new, resolve=True))  # type: ignore[arg-type]
    refused = [change for change in changes if not change.allowed]
    if refused:
        raise ConfigError(
            f"--resume: {'; '.join(map(str, refused))}: the result would be another run; restore the config of the "
            f"run (its config.yaml), or start a new run with train.init_checkpoint."
        )
    return changes


def config_changes(saved: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Differences between two resolved configs (plain data), in the order of their keys.

    Secrets are left out, and so are keys that one config lacks and the other has at its default.
    """
    changes: list[Change] = []
    for part in dict.fromkeys([*saved, *new]):
        old, value = saved.get(part, _ABSENT), new.get(part, _ABSENT)
        if part != "model":  # the saved config has no secrets, and the log may not show any
            old, value = redacted(old), redacted(value)
        if part == "train":  # a key of a newer version is not a difference
            old, value = (
                TrainConfig.with_defaults(train) if isinstance(train, dict) else train
                for train in (old, value)
            )
        changes += _differences((str(part),), old, value)
    return changes


def model_changes(first: Any, second: Any) -> list[Change]:
    """Differences between the definitions of two models (plain data), with the defaults of arguments left out."""
    return [change for change in _differences(("model",), first, second) if not change.allowed]


def log_changes(changes: list[Change]) -> None:
    """One line for each difference."""
    for change in changes:
        effect = "not used when resuming" if change.key in _UNUSED else "takes effect"
        logger.info("config: {}; {}", change, effect)


def _differences(path: tuple[str, ...], saved: Any, new: Any) -> Iterator[Change]:
    if isinstance(saved, dict) and isinstance(new, dict):
        target = new.get(TARGET)
        defaults = _defaults(target) if target is not None and saved.get(TARGET) == target else {}
        for key in dict.fromkeys([*saved, *new]):
            default = defaults.get(str(key), _ABSENT)
            yield from _differences((*path, str(key)), saved.get(key, default), new.get(key, default))
    elif saved is _ABSENT or new is _ABSENT or saved != new:
        key = ".".join(path)
        old, now = (None if value is _ABSENT else value for value in (saved, new))
        yield Change(key, old, now, allowed=not _is_fixed(key, path, saved, new))


def _is_fixed(key: str, path: tuple[str, ...], saved: Any, new: Any) -> bool:
    if path[:2] == ("train", "teachers") and (len(path) < 4 or path[3] == "model"):
        return True
    if path[:2] in (("train", "objective"), ("train", "teachers")):
        return _changes_terms(path[2:], saved, new)
    if path[0] == "model":
        return path[-1] != _FREE_NAME
    if any(key == f"{place}.{TARGET}" for place in _FIXED_TARGETS):
        return True
    return any(key == place or key.startswith(f"{place}.") for place in _FIXED)


def _changes_terms(path: tuple[str, ...], saved: Any, new: Any) -> bool:
    """Whether a difference inside an objective is more than other numbers in the same terms."""
    if path[:1] == ("weights",):
        return False  # a weight that is missing is 1
    both = saved is not _ABSENT and new is not _ABSENT
    return not both or path[-1] in _SIZES or not _is_numbers(saved) or not _is_numbers(new)


def _is_numbers(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_numbers(item) for item in value)
    return isinstance(value, bool | int | float)


def _defaults(target: str) -> dict[str, Any]:
    """Defaults of a target's arguments; none where it has no signature, or a stored config would have it imported."""
    if target not in allowed_targets() and target.rpartition(".")[0] not in sys.modules:
        return {}
    try:
        parameters = inspect.signature(locate(target)).parameters
    except (ImportError, TypeError, ValueError):
        return {}
    return {
        name: list(p.default) if isinstance(p.default, tuple) else p.default
        for name, p in parameters.items()
        if p.default is None or isinstance(p.default, bool | int | float | str | tuple)
    }


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
