"""Readers of SPEC: size, position, existence and count, by choices of a caption and choices of an image."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hypvl.allowlist import configurable
from hypvl.datasets.composition.choices import CaptionQueries, CaptionQuery, Choice, Choices, ImageCollector
from hypvl.datasets.files import image_place, read_entries, require_files
from hypvl.errors import DataError

#: Parts, each a folder and a kind.
PARTS = ("absolute_size", "relative_size", "absolute_spatial", "relative_spatial", "existence", "count")


@configurable("evaluate")
def spec_captions(root: str | Path, *, parts: Sequence[str] = PARTS) -> Choices:
    """SPEC, image to text: ``root/<part>/image2text.json``.

    An entry is ``{"query": image, "keys": [texts], "label": 0}``; ``label`` is the place of the true caption. Images
    are paths below the part's folder. ``macro_accuracy`` is the plain mean over parts.

    Args:
        root: Folder of the parts.
        parts: Which of the six, at least one.

    Raises:
        MissingDataError: when a file, or all images of one, are not there.
        DataError: naming the entry that cannot be used.

    Source: Peng et al. 2024 (arXiv 2312.00081).
    """
    collector, choices = ImageCollector(), []
    for part, path in _files(root, parts, "image2text.json"):
        for _, query, keys, label in _entries(path):
            image = collector.add(image_place(path, path.parent, query), key=f"{part}/{query}")
            foils = tuple(text for i, text in enumerate(keys) if i != label)
            choices.append(Choice(image, keys[label], foils, part))
        collector.require(source=path, what="SPEC's images (huggingface.co/datasets/wjpoom/SPEC)")
    return Choices(collector.images, choices, collector.keys, {"macro_accuracy": list(parts)})


@configurable("evaluate")
def spec_images(root: str | Path, *, parts: Sequence[str] = PARTS) -> CaptionQueries:
    """SPEC, text to image: ``root/<part>/text2image.json``.

    An entry is ``{"query": text, "keys": [images], "label": 0}``; ``label`` is the place of the caption's image.
    Otherwise as :func:`spec_captions`.
    """
    collector, queries = ImageCollector(), []
    for part, path in _files(root, parts, "text2image.json"):
        for _, query, keys, label in _entries(path):
            images = [collector.add(image_place(path, path.parent, key), key=f"{part}/{key}") for key in keys]
            others = tuple(image for i, image in enumerate(images) if i != label)
            queries.append(CaptionQuery(query, images[label], others, part))
        collector.require(source=path, what="SPEC's images (huggingface.co/datasets/wjpoom/SPEC)")
    return CaptionQueries(collector.images, queries, collector.keys, {"macro_accuracy": list(parts)})


def _files(root: str | Path, parts: Sequence[str], name: str) -> list[tuple[str, Path]]:
    if not parts or not set(parts) <= set(PARTS):
        raise DataError(f"parts: got {list(parts)}; expected some of {', '.join(PARTS)}.")
    files = [(part, Path(root) / part / name) for part in parts]
    for _, path in files:
        require_files([path], "put SPEC's folders there (huggingface.co/datasets/wjpoom/SPEC)")
    return files


def _entries(path: Path) -> Iterator[tuple[str, str, list[str], int]]:
    """(place, query, keys, label) of each entry."""
    for where, entry in read_entries(path, list):
        match entry:
            case {"query": str(query), "keys": [str(), str(), *_] as keys, "label": int(label)} if (
                all(isinstance(key, str) for key in keys)
                and not isinstance(label, bool)
                and 0 <= label < len(keys)
            ):
                texts: list[Any] = keys
                yield where, query, texts, label
            case _:
                raise DataError(
                    f'{where}: expected {{"query": text, "keys": at least two texts, "label": place of one}}; got '
                    f"{str(entry)[:120]}"
                )
