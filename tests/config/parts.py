"""Things for the configs in these tests to name."""

import functools
from typing import Any

from hypvl.errors import DataError

CALLS: list[str] = []


class Part:
    """Keeps its arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Part) and comparable(self) == comparable(other)

    __hash__ = None  # type: ignore[assignment]  # equal by value and mutable

    @classmethod
    def make(cls, size: int) -> "Part":
        """A part through a class method."""
        return cls(made=size)


class Other(Part):
    """Another class of the same kind."""


def comparable(value: Any) -> Any:
    """Parts and partials as data, to compare two builds."""
    if isinstance(value, Part):
        return type(value).__name__, comparable(list(value.args)), comparable(value.kwargs)
    if isinstance(value, functools.partial):
        return "partial", value.func, comparable(list(value.args)), comparable(value.keywords)
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items()}
    return [comparable(item) for item in value] if isinstance(value, list) else value


def record(text: str = "called") -> str:
    """Leaves a mark, so that tests see whether something was executed."""
    CALLS.append(text)
    return text


def no_data() -> None:
    """Fails as a dataset without files does."""
    raise DataError("data/*.tar matches no file; give a glob that matches.")


def no_permission() -> None:
    """Fails as a dataset in a folder that may not be read does."""
    raise PermissionError(13, "Permission denied", "data/a.json")


def narrow(size: int) -> int:
    """Takes exactly one size."""
    if size < 1:
        raise ValueError(f"size is {size}; expected at least 1")
    return size
