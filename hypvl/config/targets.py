"""The allow-list of targets, part by part, and the check that every config which is data passes.

References to references double what they stand for: sixteen lines can hold a million values. The size is added up
before anything is resolved.
"""

import functools
import os
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from omegaconf import DictConfig, ListConfig
from omegaconf.errors import OmegaConfBaseException

from hypvl.checks import natural_number
from hypvl.config.plain import MAX_DEPTH, TARGET, Path, Plain, as_config, walk
from hypvl.errors import ConfigError
from hypvl.io.json_text import parse_json

LIST = pathlib.Path(__file__).with_name("targets.json")
EXTRA_VARIABLE = "HYPVL_EXTRA_TARGETS"
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
#: Arguments by which the user permits what data may not permit itself, and what they permit.
_GRANTS = {"allow_pipe": "run commands", "allow_http": "read plain http"}
# The only target that may stand at the top of a part; everything else in the part is an argument inside it.
_TOP = {"model": "hypvl.models.dual_encoder.DualEncoder"}
_CONVERT = ("none", "partial", "object", "all")
REFERENCE = re.compile(r"\$\{([\w.\[\]-]+)\}")
#: Values that the references of a config may stand for together, and letters of its resolved texts.
MAX_RESOLVED = 10_000
MAX_LETTERS = 1_000_000


def allowed_targets(extra_targets: Iterable[str] = (), *, part: str | None = None) -> frozenset[str]:
    """Exact dotted names that a YAML or JSON config may name as ``_target_``; no prefixes and no patterns.

    They are hypvl's own list, the names in the environment variable ``HYPVL_EXTRA_TARGETS`` (separated by
    commas) and ``extra_targets``.

    Args:
        extra_targets: Names on top of the list, for every part.
        part: ``"model"``, ``"dataset"``, ``"optim"``, ``"train"`` or ``"evaluate"``: only what may stand there.

    Raises:
        ConfigError: when an added name is not an exact dotted name.
    """
    own = _own_list()
    return (frozenset().union(*own.values()) if part is None else own[part]) | _added(extra_targets)


def check_untrusted(data: Plain, *, source: str, extra_targets: Iterable[str] = ()) -> None:
    """Refuse a config, as plain data, that names a target which is not allowed at its place.

    Raises:
        ConfigError: for a target that is not allowed, or not in its part (also when a reference leads to it); a
            ``model`` that is not a dual encoder; a ``_partial_``, ``_recursive_``, ``_convert_`` or ``_args_`` of the
            wrong type; a permission to run commands (``allow_pipe``) or to read plain http (``allow_http``); any
            ``${...}`` other than a reference to a key; and references that stand for more than a config of ordinary
            size.
    """
    added = _added(extra_targets)
    allowed = allowed_targets() | added
    for path, node in walk(data):
        if not isinstance(node, dict):
            continue
        prefix = "".join(f"{key}." for key in path)
        target = node.get(TARGET)
        if TARGET in node and not (isinstance(target, str) and target in allowed):
            raise ConfigError(
                f"{source}: target {target!r} at '{prefix}{TARGET}' is not on the allow-list, and a YAML or"
                f" JSON config may only name targets on it; use a Python config, which may name any (--train-config"
                f" LEAF.py for a checkpoint), or put the exact name into the environment variable {EXTRA_VARIABLE}."
            )
        _check_reserved(node, prefix, source)
    for path, text in walk(data):
        if isinstance(text, str) and not is_reference_or_text(text):
            raise ConfigError(
                f"{source}: '{'.'.join(path)}' is {text!r}; a YAML or JSON config may only refer to other keys, as in"
                " ${train.seed}, and use no resolvers, nesting or escapes (a Python config may)."
            )
    check_resolved_size(data, source=source)
    if isinstance(data, dict):
        _check_parts(data, added, source)


def _check_parts(data: dict[Any, Any], added: frozenset[str], source: str) -> None:
    """Every target that a part would build, references resolved, is on the list of that part."""
    config = as_config(data, source=source)
    for part in (name for name in _own_list() if name in data):
        allowed = allowed_targets(part=part) | added
        for path, node in resolved_mappings(config, part):
            target = node.get(TARGET)
            fits = allowed_targets(part="model") | added if is_teacher_model(path) else allowed
            if TARGET in node and target not in fits:
                where = [name for name, names in _own_list().items() if target in names]
                raise ConfigError(
                    f"{source}: target {target!r} at '{'.'.join((*path, TARGET))}' belongs to"
                    f" {' and '.join(where)}, not to {part}; expected one that the allow-list has for {part}."
                )
            top = _TOP.get(part)
            if len(path) == 1 and TARGET in node and top is not None and target not in added | {top}:
                raise ConfigError(
                    f"{source}: target {target!r} at '{part}.{TARGET}' is only allowed inside a {part}; expected {top}."
                )


def permissions(data: Plain) -> list[str]:
    """Keys by which a config permits what one that is data may not, as ``"dataset.allow_pipe"``."""
    return [
        ".".join((*path, name))
        for path, node in walk(data)
        if isinstance(node, dict)
        for name in _GRANTS
        if node.get(name, False) is not False
    ]


def without_permissions(data: Plain) -> Plain:
    """The same config with its :func:`permissions` false, so that it can be read again as data."""
    if isinstance(data, dict):
        return {key: key not in _GRANTS and without_permissions(value) for key, value in data.items()}
    return [without_permissions(value) for value in data] if isinstance(data, list) else data


def unlisted_targets(data: Plain, *, extra: bool = True) -> list[tuple[str, str]]:
    """Targets in the parts of a Python config that are not on the allow-list: (key, target), each target once.

    A checkpoint or a saved config that names them cannot be loaded. ``extra``: whether names in
    ``HYPVL_EXTRA_TARGETS`` count as listed.
    """
    added = allowed_targets() if extra else frozenset()
    added -= frozenset().union(*_own_list().values())
    result: dict[str, str] = {}
    for part in _own_list():
        for path, node in walk(data.get(part) if isinstance(data, dict) else None, (part,)):
            target = node.get(TARGET) if isinstance(node, dict) else None
            fits = _own_list()["model" if is_teacher_model(path) else part] | added
            if isinstance(target, str) and target not in fits:
                result.setdefault(target, ".".join(path))
    return [(key, target) for target, key in result.items()]


def is_teacher_model(path: Path) -> bool:
    """Whether a place in a config lies in the model of a teacher, ``train.teachers.NAME.model``."""
    return tuple(path[:2]) == ("train", "teachers") and tuple(path[3:4]) == ("model",)


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
    """Targets that the user allows beside the list."""
    from_environment = [name.strip() for name in os.environ.get(EXTRA_VARIABLE, "").split(",")]
    added = {*(name for name in from_environment if name), *extra_targets}
    for name in sorted(added):
        if _NAME.fullmatch(name) is None:
            raise ConfigError(
                f"extra target '{name}' is not a dotted name; expected the exact name of one class or function,"
                f" such as mypackage.losses.MyLoss (in extra_targets= or {EXTRA_VARIABLE})."
            )
    return frozenset(added)


def _check_reserved(node: dict[Any, Any], prefix: str, source: str) -> None:
    expected = {
        "_partial_": ("true or false", lambda v: isinstance(v, bool)),
        "_recursive_": ("true or false", lambda v: isinstance(v, bool)),
        "_convert_": (" | ".join(_CONVERT), lambda v: v in _CONVERT),
        "_args_": ("a list", lambda v: isinstance(v, list)),
    }
    for name, permitted in _GRANTS.items():
        if node.get(name, False) is not False:
            raise ConfigError(
                f"{source}: '{prefix}{name}' is {node[name]!r}, which lets the config {permitted}; a YAML or JSON"
                f" config may not say so: leave it false and set {prefix}{name}=true on the command line."
            )
    for name, (words, is_right) in expected.items():
        if name in node and not is_right(node[name]):
            raise ConfigError(f"{source}: '{prefix}{name}' is {node[name]!r}; expected {words}.")


def check_resolved_size(data: Plain, *, source: str) -> None:
    """Refuse references that lead in a circle or stand for more than a config of ordinary size; nothing is resolved."""
    sizes = _Sizes(data)
    total = _Size()
    for path, text in walk(data):
        if not isinstance(text, str) or "${" not in text:
            continue
        key = ".".join(path)
        try:
            total += sizes.of(text, path)
        except RecursionError:
            raise ConfigError(
                f"{source}: '{key}' is {text!r}, whose references lead in a circle or through more than "
                f"{MAX_DEPTH} others; expected one that ends at a value."
            ) from None
        if total.values > MAX_RESOLVED or total.letters > MAX_LETTERS:
            raise ConfigError(
                f"{source}: '{key}' is {text!r}: the references up to here stand for more than {MAX_RESOLVED:,} values "
                f"or {MAX_LETTERS:,} letters; expected a config of ordinary size."
            )


def resolved_mappings(config: DictConfig, part: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every mapping of a part of a config with its references followed: its key, and its values.

    Values that cannot be resolved (what they refer to is not there) are None: building the part fails, too.
    """

    def walk_resolved(node: Any, path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
        keys = (
            node if isinstance(node, DictConfig) else range(len(node)) if isinstance(node, ListConfig) else ()
        )
        children = {key: _child(node, key) for key in keys}
        if isinstance(node, DictConfig):
            yield path, {str(key): child for key, child in children.items()}
        for key, child in children.items():
            yield from walk_resolved(child, (*path, str(key)))

    yield from walk_resolved(_child(config, part), (part,))


def _child(node: Any, key: Any) -> Any:
    try:
        return node[key]
    except OmegaConfBaseException:
        return None


class _Size(NamedTuple):
    values: int = 0
    letters: int = 0
    chain: int = 0  # references one after the other

    def __add__(self, other: "_Size") -> "_Size":  # type: ignore[override]  # sizes add up, tuples do not
        return _Size(self.values + other.values, self.letters + other.letters, max(self.chain, other.chain))


class _Sizes:
    """What the references of one config stand for, each looked at once."""

    def __init__(self, data: Plain) -> None:
        self.data = data
        self.known: dict[Path, _Size] = {}
        self.open: set[Path] = set()

    def of(self, value: Any, path: Path) -> _Size:
        """Size of a value once resolved; RecursionError for a circle, or over ``MAX_DEPTH`` references in a row."""
        size = _Size()
        for place, item in walk(value, path):
            size += _Size(1, len(item) if isinstance(item, str) else 0)
            for reference in REFERENCE.findall(item) if isinstance(item, str) else ():
                for referred in self._places(reference, place[:-1], 0):
                    size += self._at(referred)
        return size

    def _at(self, place: Path) -> _Size:
        if place in self.open:
            raise RecursionError
        if place not in self.known:
            self.open.add(place)
            size = self.of(_get(self.data, place), place)
            self.open.remove(place)
            self.known[place] = size._replace(chain=size.chain + 1)
        if self.known[place].chain > MAX_DEPTH:
            raise RecursionError
        return self.known[place]

    def _places(self, reference: str, parent: Path, depth: int) -> list[Path]:
        """The keys a reference leads to: its own, and those that references on the way there lead to."""
        name = reference.lstrip(".")
        up = len(reference) - len(name)
        steps = [step for step in re.split(r"[.\[\]]", name) if step]
        place: Path = parent[: len(parent) - (up - 1)] if up else ()
        result: list[Path] = []
        for i, step in enumerate(steps):
            place = (*place, step)
            value = _get(self.data, place)
            if isinstance(value, str) and i + 1 < len(steps):
                on_the_way = REFERENCE.fullmatch(value)
                if on_the_way is None:
                    break
                if depth > MAX_DEPTH:
                    raise RecursionError
                result.append(place)
                leads_to = self._places(on_the_way[1], place[:-1], depth + 1)
                place = leads_to[-1] if leads_to else place
        return [*result, place]


def _get(data: Any, place: Path) -> Any:
    """The value at a key; None where there is none."""
    for step in place:
        if isinstance(data, dict):
            number = natural_number(step)
            data = data.get(step, None if number is None else data.get(number))
        elif isinstance(data, list) and (number := natural_number(step.removeprefix("-"))) is not None:
            number = -number if step.startswith("-") else number
            data = data[number] if -len(data) <= number < len(data) else None
        else:
            return None
    return data
