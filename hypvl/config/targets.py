"""The allow-list of targets, part by part, and the check that every config which is data passes."""

import functools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hypvl.config.plain import TARGET, Plain, as_config, strings
from hypvl.config.references import REFERENCE, check_resolved_size, resolved_mappings
from hypvl.errors import ConfigError
from hypvl.io.json_text import parse_json

LIST = Path(__file__).with_name("targets.json")
EXTRA_VARIABLE = "HYPVL_EXTRA_TARGETS"
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_GRANTS = ("allow_pipe",)  # arguments through which an allowed target would run commands
# What stands at the top of a part; whatever is built of it is a part of this.
_TOP = {"model": "hypvl.models.dual_encoder.DualEncoder"}
_CONVERT = ("none", "partial", "object", "all")


def allowed_targets(extra_targets: Iterable[str] = (), *, part: str | None = None) -> frozenset[str]:
    """Exact dotted names that a YAML or JSON config may name as ``_target_``.

    They are hypvl's own list, the names in the environment variable ``HYPVL_EXTRA_TARGETS`` (separated by
    commas) and ``extra_targets``. There are no prefixes and no patterns.

    Args:
        extra_targets: Names on top of the list, for every part.
        part: Name at the top level of a config, ``"model"``, ``"dataset"``, ``"optim"``, ``"train"`` or
            ``"evaluate"``: only what may stand there. None, or another name: all.

    Raises:
        ConfigError: when an added name is not an exact dotted name.
    """
    own = _own_list()
    return frozenset(own.get(part or "", frozenset().union(*own.values()))) | _added(extra_targets)


def check_untrusted(data: Plain, *, source: str, extra_targets: Iterable[str] = ()) -> None:
    """Refuse a config that names a target which may not stand there, or that hides one.

    Args:
        data: The config as plain data, see :func:`hypvl.config.plain.to_plain`.
        source: What it was read from, for messages.
        extra_targets: Exact dotted names allowed on top of the list.

    Raises:
        ConfigError: for a target that is not allowed, or not in its part (also when a reference leads to it); a
            ``model`` that is no dual encoder; a ``_partial_``, ``_recursive_``, ``_convert_`` or ``_args_`` of the
            wrong type; a permission to run commands (``allow_pipe``); any ``${...}`` other than a reference to a
            key; and references that stand for more than a config of ordinary size.
    """
    added = _added(extra_targets)
    allowed = allowed_targets() | added
    for key, node in _mappings(data, ()):
        prefix = f"{key}." if key else ""
        target = node.get(TARGET)
        if TARGET in node and not (isinstance(target, str) and target in allowed):
            raise ConfigError(
                f"{source}: target {target!r} at '{prefix}{TARGET}' is not on the allow-list, and a YAML or"
                f" JSON config may only name targets on it; use a Python config, which may name any (--train-config"
                f" LEAF.py for a checkpoint), or put the exact name into the environment variable {EXTRA_VARIABLE}."
            )
        _check_reserved(node, prefix, source)
    for key, text in strings(data):
        if not is_reference_or_text(text):
            raise ConfigError(
                f"{source}: '{key}' is {text!r}; a YAML or JSON config may only refer to other keys, as in"
                " ${train.seed}, and use no resolvers, nesting or escapes (a Python config may)."
            )
    check_resolved_size(data, source=source)
    if isinstance(data, dict):
        _check_parts(data, added, source)


def _check_parts(data: dict[Any, Any], added: frozenset[str], source: str) -> None:
    """What each part would build, its references followed, is of that part."""
    config = as_config(data, source=source)
    for part in (name for name in _own_list() if name in data):
        allowed = allowed_targets(part=part) | added
        for path, node in resolved_mappings(config, part):
            target = node.get(TARGET)
            if TARGET in node and target not in allowed:
                where = [name for name, names in _own_list().items() if target in names]
                raise ConfigError(
                    f"{source}: target {target!r} at '{'.'.join((*path, TARGET))}' belongs to"
                    f" {' and '.join(where)}, not to {part}; expected one that the allow-list has for {part}."
                )
            top = _TOP.get(part)
            if len(path) == 1 and TARGET in node and top is not None and target not in added | {top}:
                raise ConfigError(
                    f"{source}: target {target!r} at '{part}.{TARGET}' is a piece of a {part}; expected {top}."
                )


def unlisted_targets(data: Plain) -> list[tuple[str, str]]:
    """Targets that a config names, a Python one, which nobody may name in data: (key, target), each target once.

    What is built of them cannot be built again from a checkpoint or a saved config.

    Args:
        data: The config as plain data; what stands outside its parts is not looked at.
    """
    found: dict[str, str] = {}
    for part in _own_list():
        allowed = allowed_targets(part=part)
        for key, node in _mappings(data.get(part) if isinstance(data, dict) else None, (part,)):
            target = node.get(TARGET)
            if isinstance(target, str) and target not in allowed:
                found.setdefault(target, key)
    return [(key, target) for target, key in found.items()]


def is_reference_or_text(text: str) -> bool:
    r"""Whether a string is plain text, or text with simple references such as ``${train.seed}`` in it.

    Resolving such strings, even twice (as Hydra does), never forms a resolver call: no piece that is
    joined to another may hold or end with ``$``, and none may escape what follows with ``\``.
    """
    pieces = REFERENCE.split(text)[::2]
    if len(pieces) == 1:
        return "${" not in text and not text.endswith("$")
    return all("$" not in piece and not piece.endswith("\\") for piece in pieces)


@functools.cache
def _own_list() -> dict[str, frozenset[str]]:
    """The targets of each part."""
    return {part: frozenset(names) for part, names in parse_json(LIST.read_text(encoding="utf-8")).items()}


def _added(extra_targets: Iterable[str]) -> frozenset[str]:
    """Targets that whoever runs this allows beside the list."""
    from_environment = [name.strip() for name in os.environ.get(EXTRA_VARIABLE, "").split(",")]
    added = {*(name for name in from_environment if name), *extra_targets}
    for name in sorted(added):
        if _NAME.fullmatch(name) is None:
            raise ConfigError(
                f"extra target '{name}' is not a dotted name; expected the exact name of one class or function,"
                f" such as mypackage.losses.MyLoss (in extra_targets= or {EXTRA_VARIABLE})."
            )
    return frozenset(added)


def _mappings(data: Plain, path: tuple[str, ...]) -> Iterator[tuple[str, dict[Any, Any]]]:
    if isinstance(data, dict):
        yield ".".join(path), data
        for key, value in data.items():
            yield from _mappings(value, (*path, str(key)))
    elif isinstance(data, list):
        for i, value in enumerate(data):
            yield from _mappings(value, (*path, str(i)))


def _check_reserved(node: dict[Any, Any], prefix: str, source: str) -> None:
    expected = {
        "_partial_": ("true or false", lambda v: isinstance(v, bool)),
        "_recursive_": ("true or false", lambda v: isinstance(v, bool)),
        "_convert_": (" | ".join(_CONVERT), lambda v: v in _CONVERT),
        "_args_": ("a list", lambda v: isinstance(v, list)),
    }
    for name in _GRANTS:
        if node.get(name, False) is not False:
            raise ConfigError(
                f"{source}: '{prefix}{name}' is {node[name]!r}, which lets the config run commands; a YAML or JSON"
                f" config may not say so: leave it false and set {prefix}{name}=true on the command line."
            )
    for name, (words, is_right) in expected.items():
        if name in node and not is_right(node[name]):
            raise ConfigError(f"{source}: '{prefix}{name}' is {node[name]!r}; expected {words}.")
