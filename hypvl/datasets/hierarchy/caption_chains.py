"""Reader of images with chains of captions, from the most general to the most specific: HierarCaps."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hypvl.allowlist import configurable
from hypvl.checks import natural_number, one_of
from hypvl.datasets.files import image_place, open_table, read_json, require_images
from hypvl.datasets.images import Images
from hypvl.datasets.protocol import ImageSource
from hypvl.errors import DataError, MissingDataError
from hypvl.io.files import is_file

_FILES = tuple(
    f"{stem}.{ending}"
    for stem in ("hierarcaps_test", "hierarcaps", "test")
    for ending in ("csv", "json", "jsonl")
)
_PATH_KEYS = ("image", "file_name", "filename", "image_path")
_ID_KEYS = ("cocoid", "coco_id", "image_id", "id")
_ID_NAMES = ("{:012d}.jpg", "COCO_val2014_{:012d}.jpg", "COCO_train2014_{:012d}.jpg")
_LEVEL = re.compile(r"(?:caption|captions|level|text)_?(\d{1,3})$", re.I | re.A)
_ARROW = "=>"


class CaptionChains:
    """Images, each with its captions by level.

    Args:
        images: Read when asked for.
        chains: Of each image its captions, the most general first, at least 2, all chains equally long.
        keys: A name for each image.

    Raises:
        DataError: when the lengths do not fit.
    """

    def __init__(self, images: ImageSource, chains: Sequence[Sequence[str]], *, keys: Sequence[str]) -> None:
        lengths = {len(chain) for chain in chains}
        if len(chains) != len(images) or len(keys) != len(images) or len(lengths) != 1 or min(lengths) < 2:
            raise DataError(
                f"caption chains: got {len(images)} images, {len(keys)} keys and {len(chains)} chains of "
                f"{sorted(lengths)} captions; expected one chain an image, all of one length of at least 2."
            )
        self.images = images
        self.chains = [list(chain) for chain in chains]
        self.keys = list(keys)
        self.levels = lengths.pop()


@configurable("evaluate")
def hierarcaps(
    root: str | Path,
    *,
    annotations: str | None = None,
    images_root: str | Path | None = None,
    order: Literal["general first", "specific first"] = "general first",
) -> CaptionChains:
    """HierarCaps: an image and four captions a row, in CSV, JSON (a list) or JSON lines.

    A row names its image by a path (``image``, ``file_name``, ``filename``, ``image_path``) or by a COCO id
    (``cocoid``, ``coco_id``, ``image_id``, ``id``), and has its captions in ``captions``, a list or one text joined by
    ``=>``, or in columns that end in their level (``caption_1`` ... ``caption_4``).

    Args:
        annotations: Name of the file in ``root``; None = the first of ``hierarcaps_test``, ``hierarcaps``, ``test``
            with the ending ``.csv``, ``.json`` or ``.jsonl`` that is there.
        images_root: Folder of the images; None = ``root/images``. For COCO ids their usual names are looked for.
        order: Which end of the chain comes first.

    Raises:
        MissingDataError: when the file or all images are not there.
        DataError: naming the row that cannot be used.

    Source: Alper and Averbuch-Elor 2024 (arXiv 2407.08521).
    """
    one_of("order", order, Literal["general first", "specific first"])
    root = Path(root)
    folder = root / "images" if images_root is None else Path(images_root)
    path = _file(root, annotations)
    names, chains = [], []
    for place, row in _rows(path):
        where = f"{path}, {place}"
        captions = _captions(row, where)
        names.append(_image(row, folder, path, where))
        chains.append(captions if order == "general first" else captions[::-1])
    if not names:
        raise DataError(f"{path}: has no rows; expected an image and its captions in each.")
    require_images(names, source=path, what="COCO's images, which HierarCaps uses (see images_root),")
    return CaptionChains(Images.from_files(names), chains, keys=[name.name for name in names])


def _file(root: Path, annotations: str | None) -> Path:
    names = _FILES if annotations is None else (annotations,)
    for name in names:
        if is_file(root / name):
            return root / name
    raise MissingDataError(
        f"{root}: holds no {names[0]}{' (or another of its names)' if len(names) > 1 else ''} (looked in "
        f"{Path.cwd()}); HierarCaps is at github.com/TAU-VAILab/hierarcaps: put its test file there."
    )


def _rows(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """(where, fields) of each row; a JSON file may also be an object of rows by a name."""
    if path.suffix == ".json":
        content = read_json(path)
        if isinstance(content, Mapping):
            content = list(content.values())
        if not isinstance(content, list) or not all(isinstance(row, Mapping) for row in content):
            raise DataError(f"{path}: expected a list of rows with an image and its captions.")
        return [(f"row {number}", row) for number, row in enumerate(content, start=1)]
    return list(open_table(path).usable_rows())


def _captions(row: Mapping[str, Any], where: str) -> list[str]:
    value = row.get("captions", row.get("caption"))
    if value is None:
        by_level = {int(match[1]): row[key] for key in row if key and (match := _LEVEL.match(key))}
        value = [by_level[level] for level in sorted(by_level)]
    if isinstance(value, str):
        value = value.split(_ARROW)
    texts = value if isinstance(value, list) else []
    if len(texts) < 2 or not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(
            f"{where}: its captions are {str(value)[:60]!r}; expected a list of texts, texts joined by =>, or columns "
            "caption_1, caption_2, ..."
        )
    return [text.strip() for text in texts]


def _image(row: Mapping[str, Any], folder: Path, source: Path, where: str) -> Path:
    for key in _PATH_KEYS:
        if row.get(key):
            return image_place(source, folder, str(row[key]))
    for key in _ID_KEYS:
        number = natural_number(str(row.get(key) or ""))
        if number is not None:
            names = [folder / form.format(number) for form in _ID_NAMES]
            return next((name for name in names if is_file(name)), names[0])
    raise DataError(
        f"{where}: names no image; expected one of {', '.join(_PATH_KEYS)} with a path, or "
        f"{', '.join(_ID_KEYS)} with a COCO id."
    )
