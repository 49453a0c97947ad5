"""Command-line overrides in Hydra's grammar, strict about keys and types."""

import contextlib
import difflib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hypvl.checks import natural_number, short
from hypvl.config.plain import MAX_DEPTH, TARGET, as_config, first_line, locate, to_plain, walk
from hypvl.config.reader import renamed_argument
from hypvl.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

_WORDS = {
    "none": "null",
    "bool": "true or false",
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "list": "a list",
    "dict": "a mapping",
}
_ABSENT = object()
_PLAIN = re.compile(r"(?P<key>[+~]{0,2}[\w.-]+)=(?P<value>[^'\"\\,\[\]{}()$=]+)")
_BAD_TOKEN = re.compile(r"token recognition error at: '(?P<bad>.+)'")
_QUOTING = "(in a shell: \"key='a value'\")"


def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """A copy of ``cfg`` with the overrides applied in order; ``cfg`` itself stays as it is.

    ``a.b=1`` changes a key that exists, ``+a.b=1`` adds one, ``++a.b=1`` sets it either way without looking at types,
    ``~a.b`` deletes, ``list.0.size=160`` indexes. Values follow Hydra's grammar.

    Raises:
        ConfigError: in one line, for an unknown key (naming the closest), a wrong type, a sweep, a value
            outside Hydra's grammar, or a ``_target_`` that cannot be imported.
    """
    data = to_plain(cfg, source="config")
    assert isinstance(data, dict)
    config = as_config(data, source="config")
    for override in _parse(overrides):
        _apply(data, override)
        config = as_config(data, source=f"override '{override.input_line}'")
    return config


def _parse(overrides: Sequence[str]) -> list["Override"]:
    parsed = []
    for text in overrides:
        override = parse_override(text)
        if override.is_sweep_override():
            raise ConfigError(
                f"override '{text}' is a sweep over several values, which is not supported; give one value and start"
                " one run for each (a list is written [1,2], a text with commas is quoted)."
            )
        if override.package is not None or not re.fullmatch(r"[^/]+", override.key_or_group):
            raise ConfigError(f"override '{text}' names no key; expected dotted keys such as train.seed=1.")
        if override.key_or_group.count(".") >= MAX_DEPTH:
            raise ConfigError(f"override '{text[:80]}...' names a key deeper than {MAX_DEPTH} levels.")
        parsed.append(override)
    return parsed


def parse_override(text: str) -> "Override":
    """Read ``key=value``, ``+key=value``, ``++key=value`` or ``~key``.

    A value that is one word, such as ``/daten/größe#2``, needs no quotes, whatever letters it has.

    Raises:
        ConfigError: in one line, naming the character that needs quotes where there is one.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    del parser.functions.definitions["shuffle"]  # it would draw at random, outside the run's seed
    plain = _PLAIN.fullmatch(text)
    readings = [text] if plain is None else [text, f"{plain['key']}='{plain['value']}'"]
    errors: list[Exception] = []
    for reading in readings:
        try:
            return parser.parse_override(reading)
        except (HydraException, ValueError, RecursionError) as error:  # numbers too long, brackets too deep
            errors.append(error)
    raise ConfigError(_unreadable(text, first_line(errors[0]))) from errors[0]


def value_of(override: "Override") -> Any:
    """The value as plain data; ``None`` without quotes is null, as Python users mean it."""
    return _without_none(override.value(), override._value)


def _without_none(value: Any, typed: Any) -> Any:
    if isinstance(value, list) and isinstance(typed, list):
        return [_without_none(item, as_typed) for item, as_typed in zip(value, typed, strict=True)]
    if isinstance(value, dict) and isinstance(typed, dict):
        return {
            key: _without_none(item, as_typed)
            for (key, item), as_typed in zip(value.items(), typed.values(), strict=True)
        }
    return None if type(typed) is str and typed == "None" else value


def _unreadable(text: str, reason: str) -> str:
    if re.match(r"-+\w", text):
        return f"override '{text}' begins with dashes, which only flags have; write {text.lstrip('-')}."
    bad = _BAD_TOKEN.search(reason)
    if bad is None:
        return (
            f"override '{text}' cannot be read ({reason}); expected key=value, +key=value, ++key=value or ~key,"
            f" with quotes around values that hold spaces, commas, brackets or '=' {_QUOTING}."
        )
    first = bad["bad"][0]
    if first in "'\"":
        return f"override '{text}' cannot be read: a quote ({first}) is not closed; close it {_QUOTING}."
    return (
        f"override '{text}' cannot be read: {first} may only stand in quotes; put them around the text that holds it"
        f" {_QUOTING}."
    )


def _apply(data: dict[Any, Any], override: "Override") -> None:
    key, value = override.key_or_group, value_of(override)
    parts = key.split(".")
    if override.is_delete():
        _delete(data, parts, override)
        return
    _check_new_targets(key, value)
    if override.is_add() or override.is_force_add():
        _add(data, parts, value, force=override.is_force_add())
        return
    parent, last = _find(data, parts)
    raw = override.get_value_string().strip()
    _check_references(data, key, parent[last], value)
    parent[last] = _changed(data, key, parent[last], value, raw)


def _find(data: dict[Any, Any], parts: list[str]) -> tuple[Any, Any]:
    """The container that holds the last part, and its key there; the key must exist."""
    node: Any = data
    for i, part in enumerate(parts):
        step = _step(node, part)
        if step is _ABSENT:
            raise ConfigError(_unknown(data, node, parts, i))
        if i == len(parts) - 1:
            return node, step
        node = _through(node[step], parts, i)
    raise AssertionError("a key has at least one part")


def _step(node: Any, part: str) -> Any:
    """The key or index that ``part``, or an argument's name of earlier versions, names in a container, or _ABSENT."""
    if isinstance(node, dict) and part in node:
        return part
    number = natural_number(part)
    if number is None:
        new = renamed_argument(node.get(TARGET), part) if isinstance(node, dict) else part
        return new if new != part and new in node else _ABSENT
    if isinstance(node, dict):
        return number if number in node else _ABSENT
    return number if isinstance(node, list) and number < len(node) else _ABSENT


def _through(node: Any, parts: list[str], i: int) -> Any:
    if _is_reference(node):
        here = ".".join(parts[: i + 1])
        raise ConfigError(
            f"key '{'.'.join(parts)}' leads through '{here}', which refers to {node}; change the key it refers to."
        )
    return node


def _unknown(data: dict[Any, Any], node: Any, parts: list[str], i: int) -> str:
    key, parent = ".".join(parts), ".".join(parts[:i])
    if isinstance(node, list):
        return f"unknown key '{key}': the list '{parent}' has {len(node)} entries, counted from 0."
    if not isinstance(node, dict):
        return f"unknown key '{key}': '{parent}' is {node!r}, which has no keys under it."
    closest = _closest(data, node, parts, i)
    hint = (
        f"the closest existing key is '{closest}'"
        if closest is not None
        else f"'{parent or 'the config'}' has {', '.join(map(str, node)) or 'no keys'}"
    )
    return f"unknown key '{key}': {hint}; to add a new key write +{key}=..."


def _closest(data: dict[Any, Any], node: dict[Any, Any], parts: list[str], i: int) -> str | None:
    """The existing key that was most likely meant: a sibling, the same name elsewhere, or similar letters."""
    everything = [".".join(path) for path, _ in walk(data) if path]
    siblings = difflib.get_close_matches(parts[i], [str(k) for k in node], n=1)
    if siblings:
        repaired = ".".join([*parts[:i], siblings[0], *parts[i + 1 :]])
        near = difflib.get_close_matches(repaired, everything, n=1, cutoff=0.8)
        return near[0] if near else ".".join([*parts[:i], siblings[0]])
    same_name = [key for key in everything if key.rpartition(".")[2] == parts[-1]]
    near = difflib.get_close_matches(".".join(parts), same_name, n=1, cutoff=0.0)
    near = near or difflib.get_close_matches(".".join(parts), everything, n=1)
    if not near:
        last = {key.rpartition(".")[2]: key for key in everything}
        near = [last[name] for name in difflib.get_close_matches(parts[-1], list(last), n=1)]
    return near[0] if near else None


def _delete(data: dict[Any, Any], parts: list[str], override: "Override") -> None:
    parent, last = _find(data, parts)
    if override.value_type is not None and parent[last] != value_of(override):
        raise ConfigError(
            f"override '{override.input_line}' deletes '{'.'.join(parts)}' only where it is {value_of(override)!r},"
            f" but it is {parent[last]!r}; write ~{'.'.join(parts)} to delete it whatever it is."
        )
    del parent[last]


def _add(data: dict[Any, Any], parts: list[str], value: Any, *, force: bool) -> None:
    """Set a key that does not exist yet (``force``: or does), making the mappings above it where needed."""
    key = ".".join(parts)
    node: Any = data
    for i, part in enumerate(parts):
        step = _step(node, part)
        is_last = i == len(parts) - 1
        if step is not _ABSENT and is_last and not force:
            raise ConfigError(
                f"key '{key}' exists already ({_shown(node[step])}); write {key}=... to change it."
            )
        if step is _ABSENT:
            if isinstance(node, list) and natural_number(part) == len(node):
                step = len(node)
                node.append(None)
            elif isinstance(node, dict):
                step = part
                node[step] = None
            else:
                raise ConfigError(_unknown(data, node, parts, i))
        if is_last:
            node[step] = value
            return
        if node[step] is None:
            node[step] = {}
        node = _through(node[step], parts, i)


def _changed(data: dict[Any, Any], key: str, old: Any, new: Any, raw: str | None = None) -> Any:
    """``new`` as a value of the type of ``old``; mappings are merged key by key.

    ``raw`` is the text as typed, which is kept where a string is expected and a number came (``007``).
    """
    if old is None or old == "???" or new is None or _is_reference(new):
        return new
    if _is_reference(old):
        old = _resolved(data, key, old)
        if old is None:
            return new
    expected, came = _kind(old), _kind(new)
    if expected == "dict" and came == "dict":
        return _merged(data, key, old, new)
    if expected == "list" and came == "list":
        return _numbers_like(data, key, old, new)
    if expected == came or (expected, came) in (("float", "int"), ("str", "bool")):
        return new  # `train.amp` is "bf16", "fp16" or false
    if (expected, came) == ("int", "float") and new.is_integer():
        return int(new)
    if (expected, came) in (("str", "int"), ("str", "float")):
        return str(new) if raw is None else raw
    if came == "str" and expected in ("int", "float"):  # a quoted number, such as '4096'
        with contextlib.suppress(ValueError):
            return int(new) if expected == "int" else float(new)
    raise ConfigError(
        f"key '{key}' got {_shown(new)}; expected {_WORDS[expected]}, as its present value {_shown(old, False)}"
        f" (++{key}=... sets it whatever its type)."
    )


def _merged(data: dict[Any, Any], key: str, old: dict[Any, Any], new: dict[Any, Any]) -> dict[Any, Any]:
    merged = dict(old)
    for name, value in new.items():
        if name not in old:
            raise ConfigError(_unknown(data, old, [*key.split("."), str(name)], key.count(".") + 1))
        merged[name] = _changed(data, f"{key}.{name}", old[name], value)
    return merged


def _numbers_like(data: dict[Any, Any], key: str, old: list[Any], new: list[Any]) -> list[Any]:
    """A list replaces a list whole; where all old entries are numbers, the new ones must be too."""
    if not old or any(_kind(item) not in ("int", "float") for item in old):
        return new
    return [_changed(data, f"{key}.{i}", 0.0, item) for i, item in enumerate(new)]


def _check_references(data: dict[Any, Any], key: str, old: Any, new: Any) -> None:
    """A new value ``${other.key}`` must lead somewhere, to a value of the type of the old one."""
    if not _is_reference(new):
        return
    value = _resolved(data, key, new)
    if value is not None and not _is_reference(old):
        _changed(data, key, old, value)


def _resolved(data: dict[Any, Any], key: str, reference: str) -> Any:
    """What a reference standing at ``key`` leads to now, as plain data."""
    root = OmegaConf.create(data)
    try:
        OmegaConf.update(root, key, reference, merge=False)
        value = OmegaConf.select(root, key)
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"key '{key}' refers to {reference}, which cannot be resolved: {first_line(error)}."
        ) from error


def _check_new_targets(key: str, value: Any) -> None:
    """Every ``_target_`` that an override sets must be importable."""
    for path, item in walk(value, tuple(key.split("."))):
        if path[-1] == TARGET:
            _check_importable(".".join(path), item)


def _check_importable(key: str, value: Any) -> None:
    try:
        result = locate(value) if isinstance(value, str) else None
        reason = "" if callable(result) else ", but that is nothing to call"
    except ImportError as error:
        reason = f", but {error}"
    if reason:
        raise ConfigError(
            f"key '{key}' got {value!r}{reason}; expected the dotted name of a class or function."
        )


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and "${" in value


def _kind(value: Any) -> str:
    return "none" if value is None else type(value).__name__


def _shown(value: Any, with_kind: bool = True) -> str:
    text = short(value)
    return f"{_WORDS[_kind(value)]} {text}" if with_kind and value is not None else text
