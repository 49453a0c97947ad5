"""Tables of images and captions for evaluation: the captions of each image, whatever the file is."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from loguru import logger

from hypvl.data.tokenizer import is_blank
from hypvl.errors import DataError, MissingDataError
from hypvl.io.files import path_below
from hypvl.io.table_text import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    JSON_CAPTION_COLUMNS,
    JSON_IMAGE_COLUMNS,
    MAX_FIELD_LINES,
    Quoting,
    TableText,
)

T = TypeVar("T")


def open_table(
    path: Path,
    *,
    separator: str | None = None,
    quoting: Quoting = "minimal",
    max_field_lines: int = MAX_FIELD_LINES,
) -> TableText:
    """A table that is there.

    Raises:
        MissingDataError: when it is not.
    """
    if not path.exists():
        raise MissingDataError(f"{path}: is not there; see docs/evaluation.md for the layout of the set.")
    return TableText(path, separator=separator, quoting=quoting, max_field_lines=max_field_lines)


def either(name: str, value: T, earlier: str, given: T) -> T:
    """The value of an option that has an earlier name. Raises ValueError when both are given."""
    if value is not None and given is not None:
        raise ValueError(f"{name} and {earlier}: got both; expected {name}, {earlier} is its earlier name.")
    return given if value is None else value


def image_place(source: Path, root: str | Path | None, name: str) -> Path:
    """Where an image is that a file names.

    Args:
        source: The file.
        root: Folder that it may not leave; None: it starts from the folder of the file, and may lead anywhere.
        name: The path.

    Raises:
        DataError: for one outside ``root``.
    """
    if root is None:
        return source.parent / name
    try:
        return path_below(Path(root), name)
    except ValueError as error:
        raise DataError(f"{source}: {error}.") from error


def captions_by_image(
    table: TableText,
    *,
    image_column: str | None,
    caption_column: str | None,
    where: Mapping[str, str] | None = None,
    file_name_only: bool = False,
    max_characters: int | None = None,
) -> dict[str, list[str]]:
    """The captions of each image, in the order of the rows; rows of the same image go together.

    Blank captions are left out, with a warning.

    Args:
        table: The rows.
        image_column: Column of the image; None: the first usual one there is.
        caption_column: Column of the caption, or of a list of captions; None likewise.
        where: Keep the rows that have these values.
        file_name_only: Of the image's path only the last part counts.
        max_characters: Cut captions there; None = not at all.

    Raises:
        DataError: naming the row that cannot be used.
    """
    usual = (JSON_IMAGE_COLUMNS, JSON_CAPTION_COLUMNS) if table.is_json else (IMAGE_COLUMNS, CAPTION_COLUMNS)
    image = table.column(image_column, usual[0], option="image_column")
    column = table.column(caption_column, usual[1], option="caption_column")
    # lines of JSON need not all have the same keys
    columns = (column, *usual[1]) if caption_column is None and table.is_json else (column,)
    found: dict[str, list[str]] = {}
    blank = 0
    for place, fields in table.usable_rows():
        name, texts = _entry(fields, f"{table.path}, {place}", image, columns)
        if where is not None and any(fields.get(key) != value for key, value in where.items()):
            continue
        usable = [text for text in texts if not is_blank(text)]
        blank += len(texts) - len(usable)
        own = found.setdefault(Path(name).name if file_name_only else name, [])
        own.extend(text.strip()[:max_characters] for text in usable)
    if blank:
        logger.warning("{}: left out {} blank captions", table.path, blank)
    return found


def _entry(
    fields: Mapping[str, Any], place: str, image: str, columns: tuple[str, ...]
) -> tuple[str, list[str]]:
    name = fields.get(image)
    given = next((fields[column] for column in columns if column in fields), None)
    texts = [given] if isinstance(given, str) else given
    if not isinstance(name, str) or not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
        got = json.dumps(fields, ensure_ascii=False, default=str)
        raise DataError(
            f'{place}: expected {{"{image}": path, "{columns[0]}": text or list of texts}}; got {got[:80]}'
        )
    return name, texts
