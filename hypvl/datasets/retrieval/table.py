"""Tables of images and captions for evaluation: the captions of each image, whatever the file is."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from loguru import logger

from hypvl.allowlist import configurable
from hypvl.checks import count_of, one_of
from hypvl.data.tokenizer import is_blank
from hypvl.datasets.files import image_place, open_table, require_folder
from hypvl.datasets.retrieval.captioned import CaptionedImages, from_files
from hypvl.errors import DataError
from hypvl.io.table_text import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    JSON_CAPTION_COLUMNS,
    JSON_IMAGE_COLUMNS,
    MAX_FIELD_LINES,
    Quoting,
    TableText,
)


def _captions_by_image(
    table: TableText,
    *,
    image_column: str | None,
    caption_column: str | None,
    where: Mapping[str, str] | None,
    file_name_only: bool,
    max_characters: int | None,
) -> dict[str, list[str]]:
    """The captions of each image, in the order of the rows; rows of the same image go together."""
    usual = (JSON_IMAGE_COLUMNS, JSON_CAPTION_COLUMNS) if table.is_json else (IMAGE_COLUMNS, CAPTION_COLUMNS)
    image = table.column(image_column, usual[0], option="image_column")
    column = table.column(caption_column, usual[1], option="caption_column")
    # lines of JSON need not all have the same keys
    columns = (column, *usual[1]) if caption_column is None and table.is_json else (column,)
    captions: dict[str, list[str]] = {}
    blank = 0
    for place, fields in table.usable_rows():
        name, texts = _entry(fields, f"{table.path}, {place}", image, columns)
        if any(fields.get(key) != value for key, value in (where or {}).items()):
            continue
        usable = [text for text in texts if not is_blank(text)]
        blank += len(texts) - len(usable)
        own = captions.setdefault(Path(name).name if file_name_only else name, [])
        own.extend(text.strip()[:max_characters] for text in usable)
    if blank:
        logger.warning("{}: left out {}", table.path, count_of(blank, "blank caption"))
    return captions


def _entry(
    fields: Mapping[str, Any], place: str, image: str, columns: tuple[str, ...]
) -> tuple[str, list[str]]:
    name = fields.get(image)
    value = next((fields[column] for column in columns if column in fields), None)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(name, str) or not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
        got = json.dumps(fields, ensure_ascii=False, default=str)
        raise DataError(
            f'{place}: expected {{"{image}": path, "{columns[0]}": text or list of texts}}; got {got[:80]}'
        )
    return name, texts


ImageIs: TypeAlias = Literal["path", "name"]


@configurable("evaluate")
def table(
    path: str | Path,
    *,
    images_root: str | Path | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    separator: str | None = None,
    quoting: Quoting = "minimal",
    max_field_lines: int = MAX_FIELD_LINES,
    image_is: ImageIs = "path",
    where: Mapping[str, str] | None = None,
    captions_per_image: int | None = None,
    max_characters: int | None = None,
) -> CaptionedImages:
    """Any list of images with captions: a CSV or TSV with a header line, ``.jsonl``, or a JSON list of objects.

    The options are those of a training table (docs/data.md). In JSON the caption may be a list of captions; an image
    may have several rows, whose captions are its captions. Blank captions are left out, with a warning; an image
    without any, or with an empty list, is a distractor.

    Args:
        images_root: Folder that paths start from, and may not leave; None = the folder of the file, and they may.
        image_column: Column, or key, of the image's path; None: the first usual one there is (``filepath``,
            ``image`` ...; in JSON ``image`` first).
        caption_column: Column, or key, of the caption; None: ``title``, ``caption``, ``captions`` or ``text`` (in JSON
            ``captions`` first).
        separator: Between columns; None: TAB where the header line has one, else comma, else semicolon.
        quoting: "minimal": fields may be quoted; "none": a quotation mark is a sign like any other.
        max_field_lines: Lines that a quoted field may take.
        image_is: What the image's value is: a path, or one of which only the file name counts.
        where: Keep the rows that have these values, such as ``{"split": "test"}``.
        captions_per_image: Keep the first so many of each image; None = all.
        max_characters: Cut captions there; None = not at all.

    Raises:
        MissingDataError: when the file or all images are not there.
        DataError: naming the row that cannot be used.
    """
    one_of("quoting", quoting, Quoting)
    one_of("image_is", image_is, ImageIs)
    path = Path(path).expanduser()
    if images_root is not None:
        require_folder(Path(images_root), f"the images of {path.name}")
    entries = _captions_by_image(
        open_table(path, separator=separator, quoting=quoting, max_field_lines=max_field_lines),
        image_column=image_column,
        caption_column=caption_column,
        where=where,
        file_name_only=image_is == "name",
        max_characters=max_characters,
    )
    return from_files(
        [
            (image_place(path, images_root, name), name, texts[:captions_per_image])
            for name, texts in entries.items()
        ],
        path,
    )
