"""Files of COCO's layout: ids of images."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def by_id(entries: Iterable[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], T]) -> dict[Any, T]:
    """What entries say, by their ``id``. An entry may stand twice, an id may not stand for two things.

    Raises:
        ValueError: naming the id that does: annotations that name it would go to either.
        KeyError, TypeError: when an entry lacks its id.
    """
    found: dict[Any, T] = {}
    for entry in entries:
        one = value(entry)
        if found.setdefault(entry["id"], one) != one:
            raise ValueError(f"the id {entry['id']!r} twice, for {found[entry['id']]!r} and {one!r}")
    return found
