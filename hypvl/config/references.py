"""References of a config, ``${train.seed}``: how large they make it, and what they lead to.

References to references double what they stand for: sixteen lines can hold a million values. The size is added up
before anything is resolved.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

from omegaconf import DictConfig, ListConfig
from omegaconf.errors import OmegaConfBaseException

from hypvl.checks import natural_number
from hypvl.config.plain import MAX_DEPTH, Plain
from hypvl.errors import ConfigError

REFERENCE = re.compile(r"\$\{([\w.\[\]-]+)\}")
#: Values that the references of a config may stand for together, and letters of its resolved texts.
MAX_RESOLVED = 10_000
MAX_LETTERS = 1_000_000

Path: TypeAlias = tuple[str, ...]


def check_resolved_size(data: Plain, *, source: str) -> None:
    """Refuse references that lead in a circle or stand for more than a config of ordinary size; nothing is resolved.

    Args:
        data: The config as plain data.
        source: What it was read from, for messages.

    Raises:
        ConfigError: naming the key.
    """
    sizes = _Sizes(data)
    total = _Size()
    for key, path, text in _referring(data, ()):
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
    """Every mapping of a part of a config with its references followed: its key, and its plain values.

    Values that cannot be resolved (what they refer to is not there) are left out: building the part fails, too.

    Args:
        config: A config that :func:`check_resolved_size` has accepted.
        part: Name at its top level.
    """
    yield from _resolved(_child(config, part), (part,))


def _resolved(node: Any, path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    if isinstance(node, ListConfig):
        for i in range(len(node)):
            yield from _resolved(_child(node, i), (*path, str(i)))
    elif isinstance(node, DictConfig):
        children = {key: _child(node, key) for key in node}
        yield path, {str(key): child for key, child in children.items()}
        for key, child in children.items():
            yield from _resolved(child, (*path, str(key)))


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
        """Size of a value once resolved.

        Raises:
            RecursionError: for references in a circle, or through more than ``MAX_DEPTH`` others.
        """
        if isinstance(value, dict):
            items = [((*path, str(key)), item) for key, item in value.items()]
        elif isinstance(value, list):
            items = [((*path, str(i)), item) for i, item in enumerate(value)]
        else:
            items = []
        size = _Size(1, len(value) if isinstance(value, str) else 0)
        for place, item in items:
            size += self.of(item, place)
        for reference in REFERENCE.findall(value) if isinstance(value, str) else ():
            for place in self._places(reference, path[:-1], 0):
                size += self._at(place)
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
        found: list[Path] = []
        for i, step in enumerate(steps):
            place = (*place, step)
            value = _get(self.data, place)
            if isinstance(value, str) and i + 1 < len(steps):
                on_the_way = REFERENCE.fullmatch(value)
                if on_the_way is None:
                    break
                if depth > MAX_DEPTH:
                    raise RecursionError
                found.append(place)
                leads_to = self._places(on_the_way[1], place[:-1], depth + 1)
                place = leads_to[-1] if leads_to else place
        return [*found, place]


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


def _referring(data: Plain, path: Path) -> Iterator[tuple[str, Path, str]]:
    """Every text with a reference in it: its key as written, as a path, and the text."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _referring(value, (*path, str(key)))
    elif isinstance(data, list):
        for i, value in enumerate(data):
            yield from _referring(value, (*path, str(i)))
    elif isinstance(data, str) and "${" in data:
        yield ".".join(path), path, data
