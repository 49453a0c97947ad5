"""Checks of arguments: the value is what was expected, or an error names both in one sentence.

Every package may import these. They raise ``ValueError``; the config layer adds the key's path to the message.
"""

import fnmatch
import math
import numbers
import operator
import os
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from types import NoneType
from typing import Any, Generic, Protocol, TypeVar, get_args, get_origin

T = TypeVar("T")
_SPECIAL = ("__len__", "__getitem__", "__call__")
_HOLDS = {"of at least": operator.ge, "above": operator.gt, "up to": operator.le, "below": operator.lt}

_FLAGS: ContextVar[frozenset[str]] = ContextVar("flags", default=frozenset())

# No network is as wide: a typo, or an attack on memory.
MOST_FEATURES = 2**20


def one_of(name: str, value: T, choices: Any) -> T:
    """``value``, if it is one of the choices: the allowed values, or a ``Literal[...]`` type (alias, union of some).

    Raises:
        ValueError: otherwise; the message names the argument, lists the choices and names the closest one.

    Example:
        >>> one_of("modality", "image", ("image", "text"))
        'image'
    """
    allowed = tuple(_values(choices))
    if any(type(value) is type(choice) and value == choice for choice in allowed):
        return value
    near = closest(str(value), map(str, allowed))
    hint = f" (the closest is {near!r})" if near and len(allowed) > 3 else ""
    raise ValueError(f"{name}: got {value!r}; expected {_listed(allowed)}{hint}.")


def closest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known name most like a mistyped word, for "the closest is ..." in a message; None if none is.

    Args:
        cutoff: Least likeness in [0, 1]; with 0 some name is always the closest, unless there is none.

    Example:
        >>> closest("tran", ["train", "evaluate"]), closest("x", ["train"]), closest("x", ["train"], cutoff=0)
        ('train', None, 'train')
    """
    import difflib

    return next(iter(difflib.get_close_matches(word, [*known], n=1, cutoff=cutoff)), None)


def count_of(number: int, one: str, many: str | None = None) -> str:
    """A number and its noun: ``many`` is the noun's plural where that is not ``one`` + s.

    Example:
        >>> count_of(1, "blank caption"), count_of(2000, "image"), count_of(0, "entry", "entries")
        ('1 blank caption', '2,000 images', '0 entries')
    """
    noun = one if number == 1 else many or f"{one}s"
    return f"{number:,} {noun}"


def none_of(number: int, noun: str, does: str, does_not: str) -> str:
    """What is said of a file or set of which nothing serves.

    Example:
        >>> none_of(2000, "image", "is there", "is not there"), none_of(1, "image", "is there", "is not there")
        ('none of its 2,000 images is there', 'its only image is not there')
    """
    return f"its only {noun} {does_not}" if number == 1 else f"none of its {count_of(number, noun)} {does}"


def set_flags(flags: Iterable[str]) -> None:
    """Name the flags of the command that runs, for :func:`setting`; none: no command does."""
    _FLAGS.set(frozenset(flags))


def setting(name: str, *, key: str | None = None, value: str | None = None) -> str:
    """What a message tells to set: the flag where the command that runs has one, else the key or the argument.

    Args:
        name: Of the argument; its flag has dashes.
        key: Of the config, where it is longer.
        value: To set it to.

    Example:
        >>> setting("image_column"), setting("quoting", value="none")
        ('image_column', 'quoting=none')
        >>> set_flags(["--quoting"])
        >>> setting("image_column"), setting("quoting", value="none")
        ('image_column', '--quoting none')
        >>> set_flags([])
    """
    flag = f"--{name.replace('_', '-')}"
    if flag in _FLAGS.get():
        return flag if value is None else f"{flag} {value}"
    return (key or name) if value is None else f"{key or name}={value}"


def number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """``value`` as a finite float of at least ``least``, up to ``most``, above ``above`` and below ``below``.

    Raises:
        ValueError: for no number (a boolean, a text), NaN, an infinity, or a value out of range; the message names the
            argument and states the range.

    Example:
        >>> number("weight_decay", 0.2, least=0)
        0.2
    """
    limits = {"of at least": least, "above": above, "up to": most, "below": below}
    return float(_in_range(name, value, "a number", limits))


def whole_number(name: str, value: Any, *, least: int | None = None, most: int | None = None) -> int:
    """``value`` as an int; ``2.0`` is 2. Anything but a whole number in the range is a ValueError that states it."""
    return int(_in_range(name, value, "a whole number", {"of at least": least, "up to": most}))


def whole_number_or_none(name: str, value: Any, *, least: int) -> int | None:
    """None, or ``value`` as :func:`whole_number`."""
    return None if value is None else whole_number(name, value, least=least)


def one_path(name: str, value: Any) -> str:
    """A path, or an address, that is one: a text that is not empty, or a ``Path``.

    Raises:
        ValueError: otherwise; the message names the argument and what came.

    Example:
        >>> one_path("shard", "00000.tar")
        '00000.tar'
    """
    if isinstance(value, (str, os.PathLike)) and (path := os.fspath(value)) and isinstance(path, str):
        return path
    kind = (
        short(value) if isinstance(value, (str, bytes, int, float, NoneType)) else f"a {type(value).__name__}"
    )
    raise ValueError(f"{name}: got {kind}; expected one path, a str or Path.")


def natural_number(text: str, *, digits: int = 18) -> int | None:
    """The number that a text from outside writes in ASCII digits; None for any other text.

    ``str.isdigit`` is true of characters that ``int`` refuses ("²"), and ``int`` refuses more than 4,300 digits:
    ``digits`` are the most taken here; with one more than 18 it may not fit in 64 bits.

    Example:
        >>> natural_number("007"), natural_number("²"), natural_number("-1"), natural_number("1" * 5000)
        (7, None, None, None)
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= digits else None


def names_parameter(pattern: str, name: str) -> bool:
    """Whether a pattern names a parameter: the one kind of pattern that freezing, groups and loading take.

    Args:
        pattern: A glob of full names, ``"model.*.log_scale"`` (``*`` goes over dots); without a dot, one of last parts,
            ``"log_scale"``.
        name: Full name of the parameter.
    """
    last = name.rpartition(".")[2]
    return fnmatch.fnmatchcase(name, pattern) or ("." not in pattern and fnmatch.fnmatchcase(last, pattern))


def missing_members(value: object, protocol: type) -> list[str]:
    """Methods, properties and annotated attributes of a ``Protocol`` that an object lacks, in the protocol's order.

    Of members that begin with an underscore only ``__len__``, ``__getitem__`` and ``__call__`` count.

    Example:
        >>> from collections.abc import Sized
        >>> missing_members(3, Sized), missing_members([], Sized)
        (['__len__'], [])
    """
    names: dict[str, None] = {}
    for part in reversed(protocol.__mro__):
        if part not in (object, Protocol, Generic):
            names |= dict.fromkeys([*vars(part).get("__annotations__", {}), *vars(part)])
    wanted = [name for name in names if not name.startswith("_") or name in _SPECIAL]
    # Python looks for special methods on the class.
    return [name for name in wanted if not hasattr(type(value) if name in _SPECIAL else value, name)]


def short(value: Any) -> str:
    """``repr``, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _in_range(name: str, value: Any, kind: str, limits: Mapping[str, float | None]) -> Any:
    given = {word: limit for word, limit in limits.items() if limit is not None}
    fits = _is_finite(value) and (kind == "a number" or float(value).is_integer())
    if fits and all(_HOLDS[word](value, limit) for word, limit in given.items()):
        return value
    words = [f"{word} {limit if isinstance(limit, int) else f'{limit:g}'}" for word, limit in given.items()]
    raise ValueError(
        f"{name}: got {short(value)}; expected {' '.join(filter(None, (kind, ' and '.join(words))))}."
    )


def _is_finite(value: Any) -> bool:
    """Whether this is a number that a float can hold; numpy's scalars are Real, too."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the largest float
        return False


def _values(choices: Any) -> Iterable[Any]:
    """The values of a ``Literal``, also inside unions, with None; a plain collection as it is."""
    if get_origin(choices) is None:
        return choices
    return [
        value
        for argument in get_args(choices)
        for value in (
            _values(argument) if get_origin(argument) else [None if argument is NoneType else argument]
        )
    ]


def _listed(values: tuple[Any, ...]) -> str:
    words = [repr(value) for value in values]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
