"""Data sets by name: which split of which files they are, and fetching what is missing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.datasets.catalog.entries import SPLITS, SetEntry, check_name, entries, entry_of
from hypvl.datasets.catalog.fetching import can_write, fetch
from hypvl.datasets.classification.prompts import set_templates
from hypvl.datasets.classification.splits import counted, per_class, share, shuffled
from hypvl.datasets.classification.torchvision_sets import read_published
from hypvl.datasets.classification.webdataset import WebDatasetSet, is_url
from hypvl.datasets.images import LabelledImages
from hypvl.errors import DataError, MissingDataError
from hypvl.io.remote import only_one

Style: TypeAlias = Literal["clip", "subreddit"]

#: The 20 sets of the hyperbolic papers.
CLASSIFICATION_SETS: tuple[str, ...] = tuple(name for name, entry in entries().items() if entry.core)
#: What :func:`classification_set` knows besides them.
MORE_CLASSIFICATION_SETS: tuple[str, ...] = tuple(name for name, e in entries().items() if not e.core)


@configurable("evaluate", "dataset")
def classification_set(
    name: str, *, root: str | Path = "./datasets/eval", split: str = "test", download: bool = False
) -> LabelledImages:
    """A split of a known set.

    A set may lie in the WebDataset layout, in ``root/<name>`` (which is looked for first), or in the files its
    authors publish, where torchvision expects them (sets.json lists them; ``hypvl doctor`` prints them).
    Splits that were not published are cut in an order that depends only on the name
    (:func:`hypvl.datasets.classification.splits.shuffled`): the published evaluations cut in the order of TFDS, which
    the original files do not have.

    Args:
        name: One of :data:`CLASSIFICATION_SETS` or :data:`MORE_CLASSIFICATION_SETS`.
        root: Folder of the sets, or the http(s) address of one with sets in the WebDataset layout.
        split: ``"train"``, ``"val"`` or ``"test"``; disjoint, "train" without "val".
        download: Fetch what is missing into ``root``, where a source is known.

    Raises:
        ConfigError: for an unknown name or split.
        MissingDataError: when the set is not there (and could not be fetched).
        DataError: when it is there and cannot be read.
    """
    entry = entry_of(name)
    check_name(split, SPLITS, what=f"data set {name!r}: split")
    if is_url(root):
        return _cut(entry, split, _webdataset(f"{str(root).rstrip('/')}/{name}", entry))
    place = Path(root)
    try:
        return _read(entry, place, split)
    except MissingDataError as error:
        if not download or not entry.can_download:
            raise
        if not can_write(place):
            raise MissingDataError(f"{error} It cannot be fetched: {place} cannot be written to.") from error
    with only_one(place / ".downloads" / name):
        try:
            return _read(entry, place, split)  # another process has downloaded it while this one waited
        except MissingDataError as error:
            stored = ("test",) if split == "test" else ("train",)  # as WebDataset sets have them
            fetch(entry, place, needed(entry, split) if entry.downloads else stored, reason=error)
    return _read(entry, place, split)


def needed(entry: SetEntry, split: str) -> tuple[str, ...]:
    """The published splits that a split is cut from."""
    if entry.per_class is not None:
        return ("all",)
    if split in entry.parts:
        return (entry.parts[split].published,)
    return (split,) if split in entry.published else ("train",)


@dataclass(frozen=True)
class _Source:
    """The part of a set that is there; ``as_published``: its splits are those that train, val and test are cut from."""

    splits: tuple[str, ...]
    as_published: bool
    read: Callable[[str], LabelledImages]


def _read(entry: SetEntry, root: Path, split: str) -> LabelledImages:
    folder = root / entry.name
    if not (folder / "classnames.txt").is_file():
        published = _Source(tuple(entry.published), True, lambda part: read_published(entry, root, part))
        return _cut(entry, split, published)
    try:
        return _cut(entry, split, _webdataset(str(folder), entry))
    except MissingDataError as error:
        raise entry.missing(folder, f"is incomplete ({str(error).rstrip('.')})") from error


def _webdataset(place: str, entry: SetEntry) -> _Source:
    splits = WebDatasetSet.stored_splits(place, SPLITS)
    whole = entry.per_class is not None or any(part.published == "all" for part in entry.parts.values())
    if whole and splits == ("train",):  # everything in one split, as TFDS has EuroSAT and RESISC45
        return _Source(("all",), True, lambda part: WebDatasetSet(place, split="train"))
    return _Source(splits, False, lambda part: WebDatasetSet(place, split=part))


def _cut(entry: SetEntry, split: str, source: _Source) -> LabelledImages:
    if source.as_published and split in entry.parts:
        whole = source.read(entry.parts[split].published)
        chosen = _part(entry, split, shuffled(len(whole), key=entry.name))
    elif source.as_published and entry.per_class is not None:
        whole = source.read("all")
        chosen = per_class(whole.labels, entry.per_class, key=entry.name, rest=split == "test")
        if split != "test":
            training = set(chosen)
            order = [i for i in shuffled(len(whole), key=entry.name) if i in training]
            chosen = _held_out(entry, split, order)
    elif split in source.splits and (split != "train" or "val" in source.splits):
        return source.read(split)
    elif split == "test" or "train" not in source.splits:
        raise MissingDataError(f"there is no {split} split; the set has {', '.join(source.splits) or 'none'}")
    else:
        whole = source.read("train")
        chosen = _held_out(entry, split, shuffled(len(whole), key=entry.name))
    if not chosen:
        raise DataError(
            f"{entry.name} {split}: none of its {len(whole)} images falls into this split; expected a complete set."
        )
    return whole.take(chosen)


def _part(entry: SetEntry, split: str, order: Sequence[int]) -> list[int]:
    part = entry.parts[split]
    if isinstance(part.end, float):
        return share(order, part.begin, part.end)
    total = int(max(p.end for p in entry.parts.values() if p.published == part.published))
    return counted(order, int(part.begin), int(part.end), total=total)


def _held_out(entry: SetEntry, split: str, order: Sequence[int]) -> list[int]:
    cut = 1.0 - (0.2 if entry.validation is None else entry.validation)
    return share(order, 0.0, cut) if split == "train" else share(order, cut, 1.0)


@configurable("evaluate", "dataset")
def classification_prompts(name: str, *, style: Style = "clip") -> list[str]:
    """Prompt templates for a set.

    Args:
        name: One of the sets of :func:`classification_set`.
        style: "clip": the templates of CLIP's evaluation; "subreddit": ``"subreddit : caption"``, as the captions
            that models trained on RedCaps have seen.

    Raises:
        ConfigError: for an unknown name.
        ValueError: for another style.
    """
    one_of("style", style, Style)
    return set_templates(entry_of(name).name, style=style)


def expected_size(name: str, split: str) -> int | None:
    """How many images a split of :func:`classification_set` has when the published files are complete.

    None where that is not known. Sets in the WebDataset layout may have other splits and sizes.
    """
    entry = entry_of(name)
    part = entry.parts.get(split)
    if entry.per_class is not None:
        training = entry.per_class * entry.classes
        if split == "test":
            return entry.sizes["all"] - training
        return len(_held_out(entry, split, range(training)))
    if part is not None:
        total = entry.sizes.get(part.published)
        if total is None or not isinstance(part.end, float):
            return int(part.end - part.begin)
        return len(share(range(total), part.begin, part.end))
    if split in entry.published and (split != "train" or "val" in entry.published):
        return entry.sizes.get(split)
    training_size = entry.sizes.get("train")
    return None if training_size is None else len(_held_out(entry, split, range(training_size)))
