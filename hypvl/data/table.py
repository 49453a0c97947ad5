"""Image-text pairs listed in a CSV, TSV or JSONL file: a path and a caption in each row."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from loguru import logger

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.data.augment import InModalAugment
from hypvl.data.boxes import Boxes, boxes_of_row, check_boxes
from hypvl.data.sample import BadSample, ImageTransform, PairReader, Sample, Tokenize, caption_text
from hypvl.data.storage import FileHandles, user_cache
from hypvl.io.files import path_below, read_regular
from hypvl.io.filesystem import read_below, remote_file, scheme_of
from hypvl.io.images import MAX_IMAGE_BYTES, MAX_PIXELS, ImageError, decode_image
from hypvl.io.redact import redact_url
from hypvl.io.table_text import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    MAX_FIELD_LINES,
    Quoting,
    RowError,
    TableText,
)


class RowMapper(Protocol):
    """From a row to what :func:`hypvl.data.sample.finish_sample` takes, ``image`` being still a path.

    Draws from the generator only; its repr shows its settings. Raises BadSample for rows that it cannot use.
    """

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the table must have."""
        ...

    def __call__(
        self, key: str, row: Mapping[str, Any], generator: np.random.Generator
    ) -> dict[str, Any]: ...


@configurable("dataset")
@dataclasses.dataclass(eq=False, repr=False)
class ImageTextTable(PairReader):
    """Samples listed in a table. Only the place of each row in the file is kept in memory (8 bytes a row).

    Args:
        path: A CSV or TSV with a header line, ``.jsonl``, or a JSON list, see :class:`hypvl.io.table_text.TableText`.
            Of an address (http, s3, hf ...) a copy is kept in the user's cache folder, and images are read beside it.
        image_column: Column (or key) with the image's path; None: the first of
            :data:`hypvl.io.table_text.IMAGE_COLUMNS` there is (``filepath``, ``image`` ...).
        caption_column: Column (or key) with the caption, in JSON also a list, of which one is drawn; None: the first
            of :data:`hypvl.io.table_text.CAPTION_COLUMNS` (``title``, ``caption`` ...).
        separator: Between columns; None: TAB where the header line has one (even in ``.csv``, as in open_clip), else
            comma, else semicolon.
        quoting: "minimal": fields may be quoted; "none": a quotation mark is a sign like any other.
        max_field_lines: Lines that a quoted field may take; more are a broken row, a bad sample.
        images_root: Folder that paths start from; an image outside it, by an absolute path or ``..``, is a bad
            sample. Or an address. None: the folder of the table, and paths may lead anywhere.
        mapper: Makes a sample's fields from a row (negatives and the like), in place of the two columns.
        boxes: Also boxes cut out of the image, ``box_image``, and their phrases, ``box_text``, from the key ``boxes``
            of JSON rows, ``[{"box": [left, top, right, bottom], "phrase": "..."}]``, corners in fractions of the image:
            ``"one"``, drawn evenly; ``"first"`` or ``"random"``, at most ``max_boxes``; or ``"all"``. With more than
            one there are ``box_owner`` and ``box_corners`` too, see :func:`hypvl.data.boxes.box_fields`, and a row may
            have none. None: no boxes.
        max_boxes: Most boxes for ``"first"`` and ``"random"``, at least 1; None for the others.
        allow_http: Allow plain http, which anybody on the way can change; a config that is data cannot say so.

    The others: :class:`hypvl.data.sample.PairReader`.
    """

    path: str | Path
    _: dataclasses.KW_ONLY
    image_transform: ImageTransform
    tokenizer: Tokenize | None = None
    image_column: str | None = None
    caption_column: str | None = None
    separator: str | None = None
    quoting: Quoting = "minimal"
    max_field_lines: int = MAX_FIELD_LINES
    images_root: str | Path | None = None
    shuffle_window: int = 4000
    max_bad_fraction: float = 0.1
    max_pixels: int = MAX_PIXELS
    augment: InModalAugment | None = None
    mapper: RowMapper | None = None
    boxes: Boxes | None = None
    max_boxes: int | None = None
    allow_http: bool = False

    def __post_init__(self) -> None:
        one_of("boxes", self.boxes, Boxes | None)
        super().__post_init__()
        if self.boxes is not None:
            check_boxes(self.boxes, self.max_boxes)
        elif self.max_boxes is not None:
            raise ValueError(f"max_boxes: got {self.max_boxes}, but boxes is None; set boxes.")
        self._root: str | Path | None = None if self.images_root is None else _place(str(self.images_root))
        table = _place(str(self.path))
        self._name = Path(table).name
        if isinstance(table, str):  # read from a copy; its images stay where they are
            self._file = remote_file(table, allow_http=self.allow_http).download(user_cache() / "tables")
            self._root = table.rpartition("/")[0] if self._root is None else self._root
        else:
            self._file = table
        self._text = TableText(
            self._file, separator=self.separator, quoting=self.quoting, max_field_lines=self.max_field_lines
        )
        self._handles = FileHandles(limit=1)

    def prepare(self) -> None:
        """Check the table. Raises DataError."""
        logger.info("{} rows in {}", len(self), self._file)

    def __len__(self) -> int:
        return len(self._checked)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the file's content and what is made of it."""
        index, text = self._checked.index, self._text
        if self.mapper is None:
            columns: tuple[str, ...] = self._columns
        else:  # it takes others; what is described here stays what it was
            columns = (self.image_column or IMAGE_COLUMNS[0], self.caption_column or CAPTION_COLUMNS[0])
        separator = index.separator or text.separator or "\t"
        return hashlib.sha256(
            (
                index.digest
                + self.describe(
                    *columns, separator, text.quoting, self.image_transform, self.max_pixels,
                    *(() if self.mapper is None else (self.mapper,)),
                    *((index.unclosed,) if index.unclosed else ()),
                    *(() if self.boxes is None else (f"boxes={self.boxes!r}, max_boxes={self.max_boxes}",)),
                )
            ).encode()
        ).hexdigest()  # fmt: skip

    def sample(self, row: int, generator: np.random.Generator) -> Sample:
        """The sample of a row, in [0, len). Raises BadSample when it cannot be used."""
        image_seed = int(generator.integers(2**63))
        key = f"{self._name}/row {row}"
        columns = self._fields(key, row)
        fields = self._map(key, columns, generator)
        image = fields["image"]
        try:
            data = self._read_image(image)
        except (OSError, ValueError) as error:
            raise BadSample(key, f"cannot read {image} ({error})") from error
        key = f"{key} ({image})"
        if self.boxes is None:
            return self.finish(key, {**fields, "image": data}, image_seed=image_seed)
        try:
            whole = decode_image(data, max_pixels=self.max_pixels)
        except ImageError as error:
            raise BadSample(key, f"image: {error}") from error
        parts = boxes_of_row(
            key, columns, whole, boxes=self.boxes, max_boxes=self.max_boxes, generator=generator
        )
        return self.finish(key, {**fields, "image": whole, **parts}, image_seed=image_seed)

    def _read_image(self, image: str) -> bytes:
        """Raises OSError, or ValueError for one outside the root."""
        if isinstance(self._root, str):
            return read_below(self._root, image, max_bytes=MAX_IMAGE_BYTES, allow_http=self.allow_http)
        place = self._file.parent / image if self._root is None else path_below(self._root, image)
        return read_regular(place, max_bytes=MAX_IMAGE_BYTES)

    def _map(self, key: str, row: Mapping[str, Any], generator: np.random.Generator) -> dict[str, Any]:
        if self.mapper is not None:
            return self.mapper(key, row, generator)
        image_column, caption_column = self._columns
        caption = caption_text(key, row.get(caption_column), caption_column, generator)
        image = row.get(image_column)
        if not isinstance(image, str) or not image:
            raise BadSample(key, f"missing {image_column}")
        return {"image": image, "caption": caption}

    @functools.cached_property
    def _columns(self) -> tuple[str, str]:
        """Names of the image and the caption column."""
        return (
            self._text.column(self.image_column, IMAGE_COLUMNS, option="image_column"),
            self._text.column(self.caption_column, CAPTION_COLUMNS, option="caption_column"),
        )

    @functools.cached_property
    def _checked(self) -> TableText:
        """The table, which has the columns that are needed."""
        if self.boxes is not None:
            self._text.column("boxes", (), option="boxes")
        if self.mapper is None:
            self._columns  # noqa: B018 (raises)
        else:
            for column in self.mapper.columns:
                self._text.column(column, (), option="mapper")
        return self._text

    def _fields(self, key: str, row: int) -> dict[str, Any]:
        start, end = (int(place) for place in self._text.index.places[row : row + 2])
        try:
            return self._text.parse(self._handles.read(self._file, start, end - start))
        except RowError as error:
            raise BadSample(key, f"broken row: {error}") from error
        except OSError as error:
            raise BadSample(key, f"cannot read {self._file} ({error})") from error

    def __repr__(self) -> str:
        return f"ImageTextTable({redact_url(str(self.path))!r})"


def _place(text: str) -> str | Path:
    """An address as it is, or a path."""
    return text if scheme_of(text) is not None else Path(text).expanduser()
