"""Between plain data and YAML or JSON text, with the safe loader only."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import yaml

from hypvl.config.plain import Plain
from hypvl.errors import ConfigError

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
    """Read YAML text.

    Raises:
        ConfigError: when it is not YAML, asks for Python objects, repeats a key, or is too large for a config.
    """
    _check_length(text, source)
    try:
        return yaml.load(text, Loader=_Loader)
    except _YAML_ERRORS as error:
        raise ConfigError(f"{source}: not valid YAML: {' '.join(str(error).split())}.") from error


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
    """Read JSON text.

    Raises:
        ConfigError: when it is not JSON, repeats a key, or is too large for a config.
    """
    _check_length(text, source)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            repeated = _repeated(key for key, _ in pairs)
            raise ConfigError(f"{source}: the key '{repeated}' stands twice in one object; keep one of them.")
        return found

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
