"""Config values as plain Python data: what YAML can hold, and nothing else."""

import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from types import ModuleType
from typing import Any, TypeAlias

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hypvl.errors import ConfigError
from hypvl.io.redact import redacted

TARGET = "_target_"
MAX_DEPTH = 64
MAX_VALUES = 100_000
MAX_BITS = 1024  # of a whole number

Plain = None | bool | int | float | str | list[Any] | dict[Any, Any]
Path: TypeAlias = tuple[str, ...]  # keys and indices that lead to a value


def to_plain(value: Any, *, source: str) -> Plain:
    """Copy a config value into dicts, lists, strings, numbers, booleans and None.

    Tuples become lists, paths strings, and a class or function under ``_target_`` its dotted name; references such as
    ``${train.seed}`` stay as they are. Nothing in the copy is shared with ``value``, which was read from ``source``.

    Raises:
        ConfigError: for a value YAML cannot hold (a class, a tensor, a set, ...), or for a config nested
            deeper than 64 levels or larger than 100,000 values (YAML aliases can expand without end), or a whole
            number of more than 1024 bits.
    """
    count = 0

    def convert(item: Any, path: tuple[str, ...]) -> Plain:
        nonlocal count
        count += 1
        if len(path) > MAX_DEPTH or count > MAX_VALUES:
            raise ConfigError(
                f"{source}: the config is nested deeper than {MAX_DEPTH} levels or holds more than"
                f" {MAX_VALUES} values; expected a config of ordinary size."
            )
        if isinstance(item, DictConfig | ListConfig):
            item = OmegaConf.to_container(item, resolve=False)
        if path and path[-1] == TARGET and callable(item):
            return dotted_name(item)
        if item is None or isinstance(item, bool):
            return item
        if (
            isinstance(item, int) and item.bit_length() > MAX_BITS
        ):  # Python itself refuses to write much longer ones
            raise ConfigError(
                f"{source}: '{'.'.join(path)}' is a number of {item.bit_length()} bits; expected at most {MAX_BITS}."
            )
        for kind in (int, float, str):  # also their subclasses, such as numpy.float64
            if isinstance(item, kind):
                return kind(item)
        if isinstance(item, PurePath):
            return str(item)
        if isinstance(item, Mapping):
            return {_key(k, path, source): convert(v, (*path, str(k))) for k, v in item.items()}
        if isinstance(item, list | tuple):
            return [convert(v, (*path, str(i))) for i, v in enumerate(item)]
        raise ConfigError(_unsupported(item, ".".join(path), source))

    return convert(value, ())


def without_secrets(data: Any) -> Any:
    """A config as plain data to publish: passwords and tokens in addresses are ``***``.

    The part ``model`` stays as it is: it names no data, and a published model must load.
    """
    if not isinstance(data, dict):
        return redacted(data)
    return {key: value if key == "model" else redacted(value) for key, value in data.items()}


def as_config(plain: Plain, *, source: str, allow_objects: bool = False) -> DictConfig:
    """Plain data as a config node. Raises ConfigError for no mapping, or a malformed ``${...}`` in it."""
    if not isinstance(plain, dict):
        kind = type(plain).__name__
        raise ConfigError(f"{source}: holds {kind}, which is not a config; expected keys and values.")
    try:
        return DictConfig(plain, flags={"allow_objects": True} if allow_objects else None)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{source}: {first_line(error)}.") from error


def one_line(error: BaseException) -> str:
    """The message of an error with its line breaks removed."""
    return " ".join(str(error).split())


def first_line(error: BaseException) -> str:
    """The first line of an error's message; OmegaConf and Hydra add lines of detail."""
    return str(error).split("\n", maxsplit=1)[0].strip()


def dotted_name(target: Callable[..., Any]) -> str:
    """The importable name of ``target``, ``"torch.optim.adamw.AdamW"``; ConfigError for lambdas, local functions ..."""
    module, name = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
    dotted = f"{module}.{name}"
    try:
        result = locate(dotted) if module and name and "<" not in dotted else None
    except ImportError:
        result = None
    if result != target:
        raise ConfigError(
            f"{target!r} cannot be the target of a config, because importing '{dotted}' does not give it back;"
            " define it at the top level of an importable module, or give its dotted name as a string."
        )
    return dotted


def locate(dotted: str) -> Any:
    """Import the object with this dotted name. Raises ImportError where a part of the name does not exist."""
    parts = dotted.split(".")
    if not all(part.isidentifier() for part in parts):
        raise ImportError(f"'{dotted}' is not a dotted name")
    result: Any = importlib.import_module(parts[0])
    for i, part in enumerate(parts[1:], start=1):
        if hasattr(result, part):
            result = getattr(result, part)
        elif isinstance(result, ModuleType):  # some packages delete the names of their modules
            result = importlib.import_module(".".join(parts[: i + 1]))
        else:
            raise ImportError(f"'{'.'.join(parts[:i])}' has no '{part}'")
    return result


def walk(value: Plain, path: Path = ()) -> Iterator[tuple[Path, Plain]]:
    """A plain config, or the part of one at ``path``, and every value inside it with its path, parents first."""
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from walk(item, (*path, str(key)))


def _key(key: Any, path: tuple[str, ...], source: str) -> str | int:
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise ConfigError(
            f"{source}: the key {key!r} in '{'.'.join(path)}' is of type {type(key).__name__};"
            " expected a string or an integer."
        )
    return key


def _unsupported(item: Any, key: str, source: str) -> str:
    if callable(item):
        name = getattr(item, "__qualname__", repr(item))
        return (
            f"{source}: '{key}' holds {name} itself, which a config cannot store;"
            f" write LazyCall({name}, partial=True)() instead."
        )
    return (
        f"{source}: '{key}' holds an object of type {type(item).__name__}; expected numbers, strings,"
        " booleans, None, lists and mappings of them, or a LazyCall (names starting with _ are not read)."
    )
