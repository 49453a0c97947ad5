"""Entries of caption files as they stand there: an image and its captions, or a fault."""

import functools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from hypvl.checks import one_of
from hypvl.errors import DataError
from hypvl.io.files import read_regular
from hypvl.io.json_text import by_id, expecting, parse_json
from hypvl.io.table_text import (
    JSON_IMAGE_COLUMNS as IMAGE_COLUMNS,
    MAX_FIELD_LINES,
    Quoting,
    RowError,
    TableText,
    find_column,
)

Format: TypeAlias = Literal["table", "jsonl", "json", "tar"]
#: Names tried, in this order, when no column is named (images: those of :mod:`hypvl.io.table_text`).
CAPTION_COLUMNS = ("caption", "title", "captions", "text")
_ID_COLUMNS = ("image_id", "id")
_IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
_LARGEST_FILE = 1 << 32  # bytes of a JSON file


@dataclass(frozen=True)
class Entry:
    """What one line, object or TAR sample says; ``fault`` says why it says nothing."""

    image: Any = None
    captions: Sequence[Any] = ()
    ids: tuple[tuple[str, Any], ...] = ()
    others: tuple[str, ...] = ()
    fault: str | None = None


@dataclass(frozen=True)
class SourceArguments:
    """Which captions to read, and how; those of a table as :class:`~hypvl.io.table_text.TableText`."""

    places: Sequence[str]  # files of one format; TARs also as globs, brace lists and URLs
    format: Format | None = None  # None: by the suffix
    image_column: str | None = None  # column (or key); None: the first of :data:`IMAGE_COLUMNS` there is
    #: Column (or key) of the caption, a text or a list of texts; None: the first of :data:`CAPTION_COLUMNS`. In TARs
    #: None is the ``txt`` or the ``caption`` of the ``json``.
    caption_column: str | None = None
    separator: str | None = None
    quoting: Quoting = "minimal"
    max_field_lines: int = MAX_FIELD_LINES
    image_prefix: str = ""  # put before every image, e.g. "train2014/"
    limit: int | None = None  # read only so many captions; None: all

    def __post_init__(self) -> None:
        one_of("format", self.format, Format | None)
        one_of("quoting", self.quoting, Quoting)


def table_entries(path: Path, table: TableText, arguments: SourceArguments) -> Iterator[Entry]:
    """Rows of a CSV, TSV or JSON Lines file; a broken one is a fault."""
    columns = _columns(path, table.index.columns, arguments)
    for _, fields in table.rows():
        yield Entry(fault=fields.kind) if isinstance(fields, RowError) else _entry(fields, *columns)


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises DataError."""
    try:
        return parse_json(read_regular(path, max_bytes=_LARGEST_FILE))
    except ValueError as error:
        raise DataError(
            f"{path}: is not JSON ({error}); one object a line? Then use --format jsonl."
        ) from error


def json_entries(path: Path, content: Any, arguments: SourceArguments) -> Iterator[Entry]:
    """Annotations of a COCO captions file, or objects of a list."""
    if isinstance(content, list) and content and isinstance(content[0], dict):
        columns = _columns(path, list(content[0]), arguments)
        for entry in content:
            yield _entry(entry, *columns) if isinstance(entry, dict) else Entry(fault="no JSON object")
    elif isinstance(content, dict) and {"images", "annotations"} <= set(content):
        yield from _coco_entries(path, content)
    else:
        raise DataError(
            f"{path}: expected COCO captions (an object with images and annotations) or a list of objects with "
            "an image and a caption."
        )


def _coco_entries(path: Path, content: dict[str, Any]) -> Iterator[Entry]:
    layout = (
        "COCO captions: images with id and file_name, one an id, and annotations with image_id and caption (instances "
        "or keypoints are not captions)"
    )
    captions: dict[Any, list[Any]] = defaultdict(list)
    with expecting(path, layout):
        files = by_id(content["images"], lambda image: image["file_name"])
        for one in content["annotations"]:
            captions[one["image_id"]].append(one["caption"])
    for one in content["annotations"]:
        ids = tuple((name, one[name]) for name in _ID_COLUMNS if name in one)
        others = tuple(
            text for text in captions[one["image_id"]] if isinstance(text, str) and text is not one["caption"]
        )
        yield Entry(files.get(one["image_id"]), [one["caption"]], ids, others)


def tar_entries(shards: Sequence[str], arguments: SourceArguments) -> Iterator[Entry]:
    """Samples of TAR shards; an image is named ``<TAR without .tar>/<member>``."""
    from hypvl.data.shards import shard_index
    from hypvl.data.storage import FileHandles, open_source
    from hypvl.data.tar_index import MemberError, read_members

    handles = FileHandles()
    for place in shards:
        source = open_source(place, handles)
        index = shard_index(source)
        folder = source.name.removesuffix(".tar")
        for row in range(len(index)):
            members = [name for name, _, _ in index.members(row)]
            image = next((name for name in _IMAGE_EXTENSIONS if name in members), None)
            member = "txt" if "txt" in members and arguments.caption_column is None else "json"
            if not members:
                yield Entry(fault="lost with a part of the TAR")
            elif image is None or member not in members:
                yield Entry(fault="no image" if image is None else "no caption")
            else:
                try:
                    data = read_members(source.read, index, row, {member})[member]
                except (OSError, MemberError) as error:
                    raise DataError(f"{source.place}: cannot be read ({error}).") from error
                yield _tar_entry(data, member, f"{folder}/{index.key(row)}.{image}", arguments)


def _tar_entry(data: bytes, member: str, image: str, arguments: SourceArguments) -> Entry:
    if member == "txt":
        return Entry(image, [data.decode("utf-8", "surrogateescape").strip()])
    try:
        notes = parse_json(data)
    except ValueError:
        return Entry(fault="broken JSON")
    value = notes.get(arguments.caption_column or "caption") if isinstance(notes, dict) else None
    return Entry(image, value if isinstance(value, list) else [value])


def _columns(path: Path, names: Sequence[str], arguments: SourceArguments) -> tuple[str, str]:
    """The names of the image and the caption column."""
    find = functools.partial(find_column, path, names, single="; another separator? --separator")
    return (
        find(arguments.image_column, IMAGE_COLUMNS, option="--image-column"),
        find(arguments.caption_column, CAPTION_COLUMNS, option="--caption-column"),
    )


def _entry(fields: dict[str, Any], image: str, caption: str) -> Entry:
    value = fields.get(caption)
    ids = tuple((name, fields[name]) for name in _ID_COLUMNS if name in fields and name != image)
    return Entry(fields.get(image), value if isinstance(value, list) else [value], ids)
