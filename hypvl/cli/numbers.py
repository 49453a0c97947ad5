"""Numbers of flags: each says what it may be, and a parser refuses others before anything is read."""

import argparse
import math
from dataclasses import dataclass
from typing import Any

from hypvl.checks import number, whole_number
from hypvl.errors import ConfigError


@dataclass(frozen=True)
class Number:
    """The ``type`` of a flag that takes a number; made by :func:`whole` and :func:`real`."""

    is_whole: bool
    least: float | None = None
    most: float | None = None
    above: float | None = None

    def __call__(self, text: str) -> float:
        """The number that was typed; argparse ends with 2 for a text that is none."""
        try:
            return int(text) if self.is_whole else float(text)
        except ValueError as error:
            kind = "a whole number" if self.is_whole else "a number"
            raise argparse.ArgumentTypeError(f"got {text!r}; expected {kind}.") from error

    def check(self, flag: str, value: Any) -> None:
        """Raises ConfigError, which names the flag and the range, for a number out of range."""
        if not math.isfinite(value):
            raise ConfigError(f"{flag}: got {value}; expected a finite number.")
        try:
            if self.is_whole:
                whole_number(
                    flag,
                    value,
                    least=None if self.least is None else int(self.least),
                    most=None if self.most is None else int(self.most),
                )
            else:
                number(flag, value, least=self.least, most=self.most, above=self.above)
        except ValueError as error:
            raise ConfigError(str(error)) from error


def whole(*, least: int, most: int | None = None) -> Number:
    """A whole number of at least ``least`` and up to ``most``."""
    return Number(True, least=least, most=most)


def real(*, least: float | None = None, most: float | None = None, above: float | None = None) -> Number:
    """A finite number of at least ``least``, up to ``most`` and above ``above``."""
    return Number(False, least=least, most=most, above=above)


def check_numbers(args: argparse.Namespace, actions: list[argparse.Action]) -> None:
    """Check the numbers of parsed flags; one that was not given is fine. Raises ConfigError."""
    for action in actions:
        value = getattr(args, action.dest, None)
        if isinstance(action.type, Number) and value is not None:
            action.type.check(action.option_strings[0] if action.option_strings else action.dest, value)
