"""One override as typed, read with Hydra's grammar: what a shell user expects, or which character needs quotes."""

import re
from typing import TYPE_CHECKING, Any

from hypvl.config.plain import first_line
from hypvl.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

_PLAIN = re.compile(r"(?P<key>[+~]{0,2}[\w.-]+)=(?P<value>[^'\"\\,\[\]{}()$=]+)")
_BAD_TOKEN = re.compile(r"token recognition error at: '(?P<bad>.+)'")
_QUOTING = "(in a shell: \"key='a value'\")"


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
    errors: list[HydraException] = []
    for reading in readings:
        try:
            return parser.parse_override(reading)
        except HydraException as error:
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
