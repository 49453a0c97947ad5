"""Readers of groups of two images and two captions that differ in little: one table of layouts for five benchmarks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.datasets.composition.choices import Group, Groups, ImageCollector
from hypvl.datasets.files import image_place, open_table, read_entries
from hypvl.datasets.images import IMAGE_EXTENSIONS
from hypvl.errors import DataError, MissingDataError
from hypvl.io.files import is_file

PairedSet: TypeAlias = Literal["colorswap", "eqben", "vismin", "coco_counterfactuals", "cola"]
#: Where an image may lie below the folder of images.
_FOLDERS = ("", "VG_100K", "VG_100K_2")


@dataclass(frozen=True)
class PairLayout:
    """The files of a benchmark and the fields of an entry: ``a.b`` is field b of field a, ``0`` the first of a list."""

    files: tuple[str, ...]  # the first that is there is read
    images: tuple[str, str]  # fields of the two file names
    captions: tuple[str, str]  # of the captions, in the order of the images
    kinds: tuple[str, ...]  # of the categories that a group counts in; an entry may lack them
    source: str  # where the files are published


#: Written from the papers and memory, without the files at hand (docs/benchmarks/composition.md).
LAYOUTS: Mapping[PairedSet, PairLayout] = {
    "colorswap": PairLayout(
        files=("test.json", "test.jsonl", "test.csv"),
        images=("image_1", "image_2"),
        captions=("caption_1", "caption_2"),
        kinds=("image_source",),
        source="huggingface.co/datasets/stanfordnlp/colorswap",
    ),
    "eqben": PairLayout(
        files=("ann_json_finegrained_random.json", "eqben.json", "eqben.jsonl"),
        images=("image0", "image1"),
        captions=("caption0", "caption1"),
        kinds=("private_info.name",),
        source="github.com/Wangt-CN/EqBen",
    ),
    "vismin": PairLayout(
        files=("test.json", "test.jsonl", "test.csv"),
        images=("image_0", "image_1"),
        captions=("text_0", "text_1"),
        kinds=("category",),
        source="huggingface.co/datasets/mair-lab/vismin-bench",
    ),
    "coco_counterfactuals": PairLayout(
        files=("data/examples.jsonl", "examples.jsonl"),
        images=("image_0", "image_1"),
        captions=("caption_0", "caption_1"),
        kinds=(),
        source="huggingface.co/datasets/Intel/COCO-Counterfactuals",
    ),
    "cola": PairLayout(
        files=("data/COLA_multiobjects_matching_benchmark.json", "COLA_multiobjects_matching_benchmark.json"),
        images=("0", "2"),
        captions=("1", "3"),
        kinds=(),
        source="github.com/arijitray1993/COLA",
    ),
}


@configurable("evaluate")
def caption_pairs(name: PairedSet, root: str | Path, *, images: str | Path | None = None) -> Groups:
    """ColorSwap, EqBen, VisMin, COCO-Counterfactuals or Cola (multi-object), by :data:`LAYOUTS`.

    The file is a JSON list, JSON lines or a CSV; an entry names two images and their captions. Images are paths below
    ``images``, or addresses whose last part is a file there or in its ``VG_100K`` and ``VG_100K_2``; a name without
    an extension means a PNG.

    Args:
        name: Which benchmark.
        root: Folder of its file.
        images: Folder of the images; None = ``images/`` beside the file, or the file's folder where there is none.

    Raises:
        MissingDataError: when the file or all images are not there.
        DataError: naming the entry that cannot be used.

    Source: arXiv 2402.04492 (ColorSwap), 2303.14465 (EqBen), 2407.16772 (VisMin), 2309.14356 (COCO-Counterfactuals),
        2305.03689 (Cola).
    """
    layout = LAYOUTS[one_of("name", name, PairedSet)]
    path = _file(name, Path(root), layout)
    beside = path.parent / "images"
    folder = Path(images) if images is not None else beside if beside.is_dir() else path.parent
    collector, groups = ImageCollector(), []
    for number, (where, entry) in enumerate(_rows(path)):
        first, second = (
            collector.add(_image(path, folder, text), key=text.rpartition("/")[2])
            for text in (_text(entry, field, where) for field in layout.images)
        )
        captions = _text(entry, layout.captions[0], where), _text(entry, layout.captions[1], where)
        kinds = tuple(str(kind) for field in layout.kinds if (kind := _value(entry, field)) is not None)
        key = _value(entry, "id")
        groups.append(Group((first, second), captions, kinds, str(number if key is None else key)))
    collector.require(source=path, what=f"the images of {name} ({layout.source})")
    return Groups(collector.images, groups)


def _file(name: str, root: Path, layout: PairLayout) -> Path:
    path = next((root / file for file in layout.files if (root / file).is_file()), None)
    if path is None:
        raise MissingDataError(
            f"{root}: has no {' or '.join(layout.files)} (looked in {Path.cwd()}); put the file of {name} there "
            f"({layout.source}), and its images into images/ beside it."
        )
    return path


def _rows(path: Path) -> list[tuple[str, Any]]:
    """(where, entry) of each entry; those of a JSON list may be lists themselves."""
    if path.suffix == ".json":
        return read_entries(path, list)
    return [(f"{path}, {place}", row) for place, row in open_table(path).usable_rows()]


def _value(entry: Any, field: str) -> Any:
    """A field of an entry, by its dotted name or by its place in a list; None where it is not there."""
    for part in field.split("."):
        if isinstance(entry, Mapping):
            entry = entry.get(part)
        elif isinstance(entry, list) and part.isdecimal() and int(part) < len(entry):
            entry = entry[int(part)]
        else:
            return None
    return entry


def _text(entry: Any, field: str, where: str) -> str:
    value = _value(entry, field)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: has no text {field!r}; got {str(entry)[:120]}")
    return value


def _image(source: Path, folder: Path, name: str) -> Path:
    if "://" in name:
        name = name.rpartition("/")[2]
    if name.rpartition(".")[2].lower() not in IMAGE_EXTENSIONS:
        name += ".png"
    places = [image_place(source, folder / part, name) for part in _FOLDERS]
    return next((place for place in places if is_file(place)), places[0])
