"""The class of a folder: by its name, never by its place in a sorted list."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from hypvl.datasets.catalog.entries import class_names, published_folders
from hypvl.errors import DataError


def usual_names(folders: Sequence[str], *, set_name: str, where: str | Path) -> list[str] | None:
    """The usual name of the class of each folder of a known set; None for a set whose folders are named as its classes.

    A folder may be called as in the published files (``AD``, ``AnnualCrop``), by the usual name, or by the number of
    its class, from 0 or from 1. Case, spaces and punctuation do not matter. Not all classes need to be there.
    ``set_name`` is as sets.json has it, ``where`` for the message.

    Raises:
        DataError: listing folders that are not a class of the set, and the classes without a folder.
    """
    names = class_names(set_name)
    if names is None:
        return None
    if folders and all(name.isdecimal() for name in folders):
        numbers = [int(name) for name in folders]
        places = [number - _first(numbers, len(names), where) for number in numbers]
        classes: list[int | None] = [place if 0 <= place < len(names) else None for place in places]
    else:
        known = {
            plain(name): i for part in (names, published_folders(set_name)) for i, name in enumerate(part)
        }
        classes = [known.get(plain(name)) for name in folders]
    unknown = [folder for folder, place in zip(folders, classes, strict=True) if place is None]
    missing = [name for i, name in enumerate(names) if i not in classes]
    twice = next((place for i, place in enumerate(classes) if place in classes[:i]), None)
    if unknown:
        raise DataError(
            f"{where}: {listed(unknown)} not a class of {set_name}, and {listed(missing)} missing; rename the folders, "
            "because class names are given by what folders are called."
        )
    if twice is not None:
        both = [folder for folder, place in zip(folders, classes, strict=True) if place == twice]
        raise DataError(
            f"{where}: the folders {' and '.join(both)} are one class of {set_name}, {names[twice]!r}; join them."
        )
    return [names[place] for place in classes if place is not None]


def match_names(
    folders: Sequence[str], names: Sequence[str] | Mapping[str, str], *, where: str | Path
) -> list[str]:
    """Names of class folders, which are sorted: by folder, or in the folders' order; ``where`` is for the message.

    Raises:
        DataError: listing differences between the folders and the mapping; for another number of names; for names in
            an order in which one stands at another folder's place.
    """
    if isinstance(names, Mapping):
        without = [folder for folder in folders if folder not in names]
        missing = [folder for folder in names if folder not in folders]
        if without or missing:
            parts = [f"{listed(without)} without a name"] * bool(without) + [
                f"{listed(missing)} missing"
            ] * bool(missing)
            raise DataError(f"{where}: {', and '.join(parts)}; expected the folders that class_names has.")
        return [names[folder] for folder in folders]
    if len(names) != len(folders):
        raise DataError(
            f"{where}: has {len(folders)} class folders; expected {len(names)}, one per class name."
        )
    place = {plain(folder): i for i, folder in enumerate(folders)}
    for i, name in enumerate(names):
        at = place.get(plain(name), i)
        if at != i and plain(folders[i]) != plain(name):
            raise DataError(
                f"{where}: class_names has {name!r} for the folder {folders[i]!r}, though there is a folder "
                f"{folders[at]!r}; expected names in the sorted order of the folders, or by folder."
            )
    return list(names)


def plain(name: str) -> str:
    """Letters and digits of a name, in lower case: ``"Annual_Crop"`` -> ``"annualcrop"``."""
    return re.sub(r"[\W_]", "", name.casefold())


def listed(names: Sequence[str], most: int = 5) -> str:
    """Some names as the subject of a sentence: ``"'a', 'b' and 3 more are"``."""
    shown = ", ".join(repr(name) for name in names[:most])
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{shown}{more} {'is' if len(names) == 1 else 'are'}" if names else "none is"


def _first(numbers: Sequence[int], count: int, where: str | Path) -> int:
    """0 or 1: what the numbers of ``count`` classes begin with."""
    if 0 in numbers:
        return 0
    if count in numbers:
        return 1
    raise DataError(
        f"{where}: has folders numbered {min(numbers)} ... {max(numbers)}, neither 0 nor {count}, which leaves open "
        "whether they are counted from 0 or from 1; make folders for all classes."
    )
