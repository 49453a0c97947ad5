"""What may be another in a run's config when it goes on, and what may not."""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from loguru import logger
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hypvl.config.plain import TARGET, locate, walk
from hypvl.config.reader import stored_data
from hypvl.config.targets import is_reference_or_text
from hypvl.errors import ConfigError
from hypvl.io.redact import redacted
from hypvl.training.config import TrainConfig

_ABSENT = object()
# Where a difference would make another run of it.
_FIXED = ("train.seed", "train.total_batch_size", "train.naive_accumulate", "model", "dataset.tokenizer")
_FIXED_TARGETS = ("optim.optimizer", "optim.parameters")
_FREE_NAME = "grad_checkpointing"  # of a model: memory against time, the same numbers
_UNUSED = ("train.init_checkpoint", "train.init_missing", "train.init_positions")


@dataclasses.dataclass(frozen=True)
class Change:
    """One difference between two configs.

    Args:
        key: Dotted.
        saved: Value of the run; None also where it had none.
        new: Value now.
        allowed: Whether a run may go on with it.
    """

    key: str
    saved: Any
    new: Any
    allowed: bool

    def __str__(self) -> str:
        return f"{self.key} was {_shown(self.saved)} and is {_shown(self.new)}"


def saved_config(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config in a checkpoint as plain data with its references followed; nothing of it is called.

    None where there is none, or one that cannot be read.
    """
    text = state.get("config")
    if not isinstance(text, str):
        return None
    try:
        data = stored_data(text, source="config in the checkpoint")
        texts = [value for _, value in walk(data) if isinstance(value, str)]
        if not isinstance(data, dict) or not all(map(is_reference_or_text, texts)):
            return None
        found = OmegaConf.to_container(OmegaConf.create(data), resolve=True)
    except (ConfigError, OmegaConfBaseException):
        return None
    return found if isinstance(found, dict) else None  # type: ignore[return-value]  # keys are texts


def check_compatible(saved: Mapping[str, Any], new: DictConfig) -> list[Change]:
    """What differs between the config of a run and the one it is to go on with.

    Learning rate, decay, betas, epsilon, schedule, length, periods, precision, clipping, processes' settings and the
    numbers of loss terms may change, and take effect. Data are compared by what they are (their fingerprint), so that
    a folder may move. Seed, batch, model, tokenizer, and which terms there are may not.

    Args:
        saved: As :func:`saved_config` gives it.
        new: The config now.

    Returns:
        The differences, all of them allowed.

    Raises:
        ConfigError: naming all that is not allowed.
    """
    now = OmegaConf.to_container(new, resolve=True)
    assert isinstance(now, dict)
    before = dict(saved)
    changes: list[Change] = []
    for part in dict.fromkeys([*before, *now]):
        old, value = before.get(part, _ABSENT), now.get(part, _ABSENT)
        if part != "model":  # the saved one has no secrets, and the log shows none
            old, value = redacted(old), redacted(value)
        if part == "train":
            old, value = _with_defaults(old), _with_defaults(value)
        changes += _differences((str(part),), old, value)
    refused = [change for change in changes if not change.allowed]
    if refused:
        raise ConfigError(
            f"--resume: {'; '.join(map(str, refused))}: with that it would be another run; restore the config of the "
            f"run (its config.yaml), or start a new run with train.init_checkpoint."
        )
    return changes


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
        yield Change(
            key,
            None if saved is _ABSENT else saved,
            None if new is _ABSENT else new,
            allowed=not _is_fixed(key, path, saved, new),
        )


def _is_fixed(key: str, path: tuple[str, ...], saved: Any, new: Any) -> bool:
    if key.startswith("train.objective"):
        return _is_structure(path[2:], saved, new)
    if path[0] == "model":
        return path[-1] != _FREE_NAME
    if any(key == f"{place}.{TARGET}" for place in _FIXED_TARGETS):
        return True
    return any(key == place or key.startswith(f"{place}.") for place in _FIXED)


def _is_structure(path: tuple[str, ...], saved: Any, new: Any) -> bool:
    """Whether a difference inside an objective is more than other numbers in the same terms."""
    if path[:1] == ("weights",):
        return False  # a weight that is not said is 1
    both_there = saved is not _ABSENT and new is not _ABSENT
    return not both_there or not _is_numbers(saved) or not _is_numbers(new)


def _is_numbers(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_numbers(item) for item in value)
    return isinstance(value, bool | int | float)


def _with_defaults(train: Any) -> Any:
    """`train` with the default of what it does not say, so that a key of a newer version is no difference."""
    return TrainConfig.with_defaults(train) if isinstance(train, dict) else train


def _defaults(target: str) -> dict[str, Any]:
    """Defaults of a target's arguments; none where it has no signature."""
    try:
        parameters = inspect.signature(locate(target)).parameters
    except (ImportError, TypeError, ValueError):
        return {}
    return {
        name: list(p.default) if isinstance(p.default, tuple) else p.default
        for name, p in parameters.items()
        if p.default is None or isinstance(p.default, bool | int | float | str | tuple)
    }


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
