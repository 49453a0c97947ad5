"""Reader of Winoground, and of any set of groups of two images and two captions in its layout."""

from pathlib import Path
from typing import Any

from hypvl.allowlist import configurable
from hypvl.datasets.composition.choices import Group, Groups, ImageCollector
from hypvl.datasets.files import open_table, text_of
from hypvl.datasets.images import IMAGE_EXTENSIONS
from hypvl.errors import DataError, MissingDataError

# Field -> the name of its value as a kind.
_TAGS = {"collapsed_tag": "{}", "secondary_tag": "{}", "num_main_preds": "main_preds_{}"}


@configurable("evaluate")
def winoground(root: str | Path) -> Groups:
    """Winoground: ``examples.jsonl`` and ``images/``, in ``root`` or in ``root/data``.

    A line is ``{"id": 0, "image_0": "ex_0_img_0", "image_1": "ex_0_img_1", "caption_0": "…", "caption_1": "…",
    "tag": "…", "secondary_tag": "…", "num_main_preds": 1, "collapsed_tag": "Object"}``; images are
    ``images/ex_0_img_0.png``, or named with their extension. Groups count in the kinds of ``collapsed_tag`` (Object,
    Relation, Both), ``secondary_tag`` (several are separated by commas) and ``num_main_preds``; all three may be
    absent.

    Raises:
        MissingDataError: when the file or all images are not there.
        DataError: naming the line that cannot be used.

    Source: Thrush et al. 2022 (arXiv 2204.03162).
    """
    places = [Path(root) / "examples.jsonl", Path(root) / "data" / "examples.jsonl"]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise MissingDataError(
            f"{places[0]}: is not there, nor is {places[1]} (looked in {Path.cwd()}); put Winoground's examples.jsonl "
            "there, and its images.zip unpacked as images/ beside it (huggingface.co/datasets/facebook/winoground, "
            "after accepting its terms)."
        )
    folder = path.parent / "images"
    collector, groups = ImageCollector(), []
    for place, entry in open_table(path).usable_rows():
        where = f"{path}, {place}"
        names = [text_of(entry, f"image_{i}", where) for i in (0, 1)]
        captions = [text_of(entry, f"caption_{i}", where) for i in (0, 1)]
        first, second = (collector.add(_file(folder, name), key=name) for name in names)
        key = str(entry.get("id", int(place.split()[1]) - 1))  # else the line's number, from 0
        groups.append(Group((first, second), (captions[0], captions[1]), _kinds(entry, where), key))
    collector.require(source=path, what="Winoground's images.zip, unpacked")
    return Groups(collector.images, groups)


def _file(folder: Path, name: str) -> Path:
    """The file of an image; a name without an extension means a PNG."""
    return folder / (name if name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS else f"{name}.png")


def _kinds(entry: dict[str, Any], where: str) -> tuple[str, ...]:
    kinds: list[str] = []
    for field, shown in _TAGS.items():
        value = entry.get(field)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise DataError(f"{where}: has {field} {value!r}; expected a text or a number.")
        kinds += [shown.format(part.strip()) for part in str(value).split(",") if part.strip()]
    return tuple(dict.fromkeys(kinds))
