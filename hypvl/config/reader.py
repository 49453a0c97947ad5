"""Configs that are data: YAML and JSON text, read by the safe loader only, and names of earlier versions in them.

``renames.json`` holds under ``targets`` old target -> new target, under ``arguments`` target -> old argument -> new
argument, under ``values`` new target -> new argument -> old value -> new value, and under ``parameters`` old -> new
step of dotted parameter names, which patterns such as ``model.image_post.*`` hold. A config inside a checkpoint or
beside a run is read through it, so that it loads for as long as the weights do; Python configs are not: they name what
is there.
"""

import functools
import json
import pathlib
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import yaml
from loguru import logger

from hypvl.config.plain import TARGET, Path, Plain, to_plain
from hypvl.errors import ConfigError
from hypvl.io.redact import map_texts

RENAMES = pathlib.Path(__file__).with_name("renames.json")
# Whatever malformed text makes PyYAML's safe constructors raise, besides its own errors.
_YAML_ERRORS = (
    yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip


# Letters of a config that is data: the largest of our own has 90,000, and the YAML parser reads 100,000 a second.
MAX_TEXT = 1_000_000
# Keys that one text may gather through merges (``<<``): each merge of a merge doubles them.
MAX_MERGED = 10_000


class _Loader(yaml.SafeLoader):
    """YAML's safe loader that reads ``1e-4`` as a number and dates as strings, and refuses repeated keys."""

    merged = 0

    def flatten_mapping(self, node: Any) -> None:
        before = len(node.value)
        super().flatten_mapping(node)
        self.merged += max(0, len(node.value) - before)
        if self.merged > MAX_MERGED:
            raise yaml.constructor.ConstructorError(
                None, None, f"merges (<<) gather more than {MAX_MERGED:,} keys", node.start_mark
            )

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        repeated = _repeated(keys)
        if repeated is not None:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key '{repeated}' stands twice in one mapping", node.start_mark
            )
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Writes what ``_Loader`` reads back; no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def parse_yaml(text: str, *, source: str) -> Any:
    """Read YAML text. Raises ConfigError as :func:`parse_json`, and where it asks for Python objects."""
    _check_length(text, source)
    try:
        return yaml.load(text, Loader=_Loader)
    except _YAML_ERRORS as error:
        raise ConfigError(f"{source}: not valid YAML: {' '.join(str(error).split())}.") from error


def stored_data(config: Any, *, source: str) -> Plain:
    """A stored config, YAML text or data, as plain data with every renamed target and argument by its name of today.

    References to a renamed argument by its full path, ``${model.old.size}``, follow it. One warning per source
    names an old name.

    Raises:
        ConfigError: when it is not YAML, or holds what a config cannot.
    """
    data = to_plain(parse_yaml(config, source=source) if isinstance(config, str) else config, source=source)
    moved: dict[Path, Path] = {}
    old: list[str] = []
    data = _renamed(data, (), (), moved, old)
    if old:
        _warn_once(source, old[0], len(old) - 1)
    return _followed(data, moved) if moved else data


def dump_yaml(data: Plain) -> str:
    """YAML text that :func:`parse_yaml` reads back to equal data."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    try:
        if yaml.load(text, Loader=_Loader) == data:
            return text
    except _YAML_ERRORS:
        pass  # PyYAML writes a few characters (U+0085, U+FEFF, ...) so that it cannot read them; escapes it can
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=False, width=100))


def parse_json(text: str, *, source: str) -> Any:
    """Read JSON text. Raises ConfigError when it is not JSON, repeats a key, or is too large for a config."""
    _check_length(text, source)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        unique_pairs = dict(pairs)
        if len(unique_pairs) < len(pairs):
            repeated = _repeated(key for key, _ in pairs)
            raise ConfigError(f"{source}: the key '{repeated}' stands twice in one object; keep one of them.")
        return unique_pairs

    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not valid JSON: {error}.") from error


def _repeated(keys: Iterable[str]) -> str | None:
    """The first in the alphabet of the keys that stand there more than once."""
    return min((key for key, times in Counter(keys).items() if times > 1), default=None)


def _check_length(text: str, source: str) -> None:
    if len(text) > MAX_TEXT:
        raise ConfigError(f"{source}: {len(text):,} letters; expected a config, of at most {MAX_TEXT:,}.")


def _renamed(node: Plain, path: Path, now: Path, moved: dict[Path, Path], old: list[str]) -> Plain:
    """A copy with the names of today; fills the paths of arguments that are renamed, and the old names."""
    if isinstance(node, list):
        return [_renamed(item, (*path, str(i)), (*now, str(i)), moved, old) for i, item in enumerate(node)]
    if isinstance(node, str):
        return _parameter_names(node, old)
    if not isinstance(node, dict):
        return node
    target, arguments = _current(node.get(TARGET))
    if target != node.get(TARGET):
        old.append(str(node[TARGET]))
    result: dict[Any, Any] = {}
    for key, value in node.items():
        name = key
        while name in arguments and arguments[name] not in node:
            name = arguments[name]
        if name != key:
            old.append(f"{key}= of {target}")
            moved[(*path, key)] = (*now, name)
        values = _rename_table()["values"].get(target, {}).get(name, {}) if isinstance(target, str) else {}
        if isinstance(value, str) and value in values:
            old.append(f"{key}={value} of {target}")
            value = values[value]
        result[name] = (
            target if key == TARGET else _renamed(value, (*path, str(key)), (*now, str(name)), moved, old)
        )
    return result


def _parameter_names(text: str, old: list[str]) -> str:
    """A pattern of parameter names by the names of today; any other text as it is."""
    steps = _rename_table().get("parameters", {})
    if not any(step in steps for step in text.split(".")):
        return text
    old.append(text)
    return ".".join(steps.get(step, step) for step in text.split("."))


def renamed_argument(target: Any, argument: str) -> str:
    """Today's name of an argument of a target, which is the name given unless it was renamed."""
    return _current(target)[1].get(argument, argument)


def _current(target: Any) -> tuple[Any, dict[str, str]]:
    """Today's name of a target, and old argument -> new argument of it under all the names it had."""
    table = _rename_table()
    arguments: dict[str, str] = {}
    while isinstance(target, str):
        arguments |= table["arguments"].get(target, {})
        if target not in table["targets"]:
            break
        target = table["targets"][target]
    return target, arguments


def _followed(data: Plain, moved: dict[Path, Path]) -> Plain:
    """References to arguments that are renamed, by the names of today."""

    def new_reference(match: re.Match[str]) -> str:
        steps = tuple(re.split(r"\.", match[1]))
        for length in range(len(steps), 0, -1):
            if steps[:length] in moved:
                return "${" + ".".join((*moved[steps[:length]], *steps[length:])) + "}"
        return match[0]

    return map_texts(data, lambda text: re.sub(r"\$\{([^{}]+)\}", new_reference, text))


@functools.cache
def _rename_table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(RENAMES.read_bytes())
    return table


@functools.cache
def _warn_once(source: str, name: str, others: int) -> None:
    more = f" and {others} more" if others else ""
    logger.warning("{}: written by an earlier version; '{}'{} read by today's names", source, name, more)
