"""Checks of numbers in a config's ``train``."""

from typing import Any

from hypvl.errors import ConfigError


def whole_number(name: str, value: Any, *, least: int) -> int:
    """The value of ``train.<name>``, a whole number.

    Raises:
        ConfigError: for anything else, or a number below ``least``.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not float(value).is_integer():
        raise ConfigError(f"train.{name}: got {value!r}; expected a whole number.")
    if value < least:
        raise ConfigError(f"train.{name}: got {value}; expected {least} or more.")
    return int(value)
