"""Image-text pairs listed in a CSV, TSV or JSONL file: a path and a caption in each row."""

import contextlib
import csv
import functools
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
from loguru import logger

from hypvl.data.augment import InModalAugment
from hypvl.data.sample import BadSample, ImageTransform, Sample, Tokenize, caption_text, finish_sample
from hypvl.data.shards import describe
from hypvl.data.storage import FileHandles
from hypvl.errors import DataError
from hypvl.io.files import read_regular
from hypvl.io.images import MAX_IMAGE_BYTES, MAX_PIXELS

_BOM = b"\xef\xbb\xbf"
# Rows shuffled as one block. Rows cost nothing to reach, so blocks are small: windows mix the whole file.
_BLOCK = 32
# Rows of a JSONL file whose keys are looked at to find out whether it has the columns at all.
_ROWS_CHECKED = 100


class RowMapper(Protocol):
    """From a row to what :func:`hypvl.data.sample.finish_sample` takes, ``image`` being still a path.

    Draws from the generator only; its repr tells its settings. Raises BadSample for rows that it cannot use.
    """

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the table must have."""
        ...

    def __call__(
        self, key: str, row: Mapping[str, Any], generator: np.random.Generator
    ) -> dict[str, Any]: ...


class ImageTextTable:
    """Samples listed in a table. Only the place of each row in the file is kept in memory (8 bytes a row).

    Args:
        path: ``.jsonl`` / ``.ndjson``: one JSON object a line; anything else: a table with a header line.
        image_transform: Crops the decoded image.
        tokenizer: Turns captions into token ids.
        image_column: Column (or key) with the image's path.
        caption_column: Column (or key) with the caption; in JSONL also a list, of which one is drawn.
        separator: Between columns; TAB even for ``.csv``, as in open_clip.
        quoting: "minimal": fields may be quoted; "none": a quotation mark is a sign like any other.
        images_root: Folder that paths start from; None: the folder of the table.
        shuffle_window: Samples permuted together.
        max_bad_fraction: Share of bad samples at which training stops.
        max_pixels: Larger images are bad samples.
        augment: Adds an augmented picture and caption to each sample.
        mapper: Makes a sample's fields from a row (negatives and the like), in place of the two columns.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        image_transform: ImageTransform,
        tokenizer: Tokenize,
        image_column: str = "filepath",
        caption_column: str = "title",
        separator: str = "\t",
        quoting: Literal["minimal", "none"] = "minimal",
        images_root: str | Path | None = None,
        shuffle_window: int = 4000,
        max_bad_fraction: float = 0.1,
        max_pixels: int = MAX_PIXELS,
        augment: InModalAugment | None = None,
        mapper: RowMapper | None = None,
    ) -> None:
        if len(separator) != 1:
            raise ValueError(f"separator: got {separator!r}; expected one character.")
        if quoting not in ("minimal", "none"):
            raise ValueError(f"quoting: got {quoting!r}; expected 'minimal' or 'none'.")
        self.path = Path(path).expanduser()
        self.image_transform = image_transform
        self.tokenizer = tokenizer
        self.image_column = image_column
        self.caption_column = caption_column
        self.separator = separator
        self.quoting = quoting
        self.images_root = self.path.parent if images_root is None else Path(images_root).expanduser()
        self.shuffle_window = shuffle_window
        self.max_bad_fraction = max_bad_fraction
        self.max_pixels = max_pixels
        self.augment = augment
        self.mapper = mapper
        self._handles = FileHandles(limit=1)

    def prepare(self) -> None:
        """Check the table. Raises DataError."""
        logger.info("{} rows in {}", len(self), self.path)

    def shard_sizes(self) -> list[int]:
        """Blocks of rows that are permuted as shards are."""
        full, rest = divmod(len(self), _BLOCK)
        return [_BLOCK] * full + [rest] * (rest > 0)

    def __len__(self) -> int:
        return len(self._scan[0]) - 1

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the file's content and what is made of it."""
        return hashlib.sha256(
            (
                self._scan[2]
                + describe(
                    self.image_column, self.caption_column, self.separator, self.quoting,
                    self.image_transform, self.max_pixels,
                    *(() if self.mapper is None else (self.mapper,)), augment=self.augment,
                )
            ).encode()
        ).hexdigest()  # fmt: skip

    def sample(self, row: int, generator: np.random.Generator) -> Sample:
        """The sample of a row, in [0, len).

        Raises:
            BadSample: when it cannot be used.
        """
        image_seed = int(generator.integers(2**63))
        key = f"{self.path.name}/row {row}"
        fields = self._map(key, self._fields(key, row), generator)
        image = fields["image"]
        try:
            data = read_regular(self.images_root / image, max_bytes=MAX_IMAGE_BYTES)
        except (OSError, ValueError) as error:
            raise BadSample(key, f"cannot read {self.images_root / image} ({error})") from error
        return finish_sample(
            f"{key} ({image})",
            {**fields, "image": data},
            image_transform=self.image_transform,
            tokenizer=self.tokenizer,
            image_seed=image_seed,
            max_pixels=self.max_pixels,
            augment=self.augment,
        )

    def _map(self, key: str, row: Mapping[str, Any], generator: np.random.Generator) -> dict[str, Any]:
        if self.mapper is not None:
            return self.mapper(key, row, generator)
        caption = caption_text(key, row.get(self.caption_column), self.caption_column, generator)
        image = row.get(self.image_column)
        if not isinstance(image, str) or not image:
            raise BadSample(key, f"missing {self.image_column}")
        return {"image": image, "caption": caption}

    @property
    def _is_json(self) -> bool:
        return self.path.suffix.lower() in (".jsonl", ".ndjson")

    def _fields(self, key: str, row: int) -> dict[str, Any]:
        offsets, columns, _ = self._scan
        try:
            data = self._handles.read(self.path, int(offsets[row]), int(offsets[row + 1] - offsets[row]))
            text = data.decode()
            if self._is_json:
                fields = json.loads(text)
                if not isinstance(fields, dict):
                    raise BadSample(key, f"a {type(fields).__name__}, expected a JSON object")
                return fields
            return dict(zip(columns, next(self._reader(io.StringIO(text, newline=""))), strict=False))
        except (OSError, ValueError, RecursionError, csv.Error, StopIteration) as error:
            raise BadSample(key, f"broken row ({error})") from error

    def _reader(self, lines: Iterable[str]) -> Iterator[list[str]]:
        if self.quoting == "none":
            rows = csv.reader(lines, delimiter=self.separator, quoting=csv.QUOTE_NONE)
        else:
            rows = csv.reader(lines, delimiter=self.separator)
        return (row for row in rows if row)  # blank lines belong to no row; csv gives them as empty lists

    @functools.cached_property
    def _scan(self) -> tuple[np.ndarray, list[str], str]:
        """(where each row starts and the last ends (N + 1,) int64, columns, hash of the content)."""
        try:
            with self.path.open("rb") as file:
                if file.peek(2)[:2] == b"\x1f\x8b":
                    raise DataError(f"{self.path}: is compressed with gzip; unpack it (gunzip) first.")
                lines = _Lines(file)
                offsets, columns = self._scan_json(lines) if self._is_json else self._scan_table(lines)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror}); check dataset.path.") from error
        if len(offsets) < 2:
            raise DataError(f"{self.path}: has no rows.")
        needed = (self.image_column, self.caption_column) if self.mapper is None else self.mapper.columns
        for column in needed:
            if column not in columns:
                one = (
                    ""
                    if len(columns) != 1
                    else f" (with separator {self.separator!r}: set dataset.separator?)"
                )
                raise DataError(f"{self.path}: has no column {column!r}; it has {', '.join(columns)}{one}.")
        return np.asarray(offsets, dtype=np.int64), columns, lines.hash.hexdigest()

    def _scan_table(self, lines: "_Lines") -> tuple[list[int], list[str]]:
        reader = self._reader(lines)
        try:
            columns = next(reader, [])
            if columns:  # names may be of any script; rows are decoded when they are read
                columns = [name.encode("latin-1").decode(errors="replace") for name in columns]
            offsets = [lines.end]
            for _ in reader:
                offsets.append(lines.end)
        except csv.Error as error:
            raise DataError(
                f"{self.path}: the row at byte {lines.end} is broken ({error}); a quotation mark that never "
                "closes? Then set dataset.quoting=none."
            ) from error
        return offsets, columns

    def _scan_json(self, lines: "_Lines") -> tuple[list[int], list[str]]:
        offsets = [0]
        columns: dict[str, None] = {}
        for line in lines:
            if not line.strip():
                continue
            if len(offsets) == 1:
                offsets[0] = lines.start
            if len(offsets) <= _ROWS_CHECKED:
                with contextlib.suppress(ValueError):  # a broken row is a bad sample, not a bad table
                    found = json.loads(line.encode("latin-1"))
                    columns.update(dict.fromkeys(found if isinstance(found, dict) else ()))
            offsets.append(lines.end)
        if len(offsets) > 1 and not columns:
            raise DataError(
                f"{self.path}: none of its first lines is a JSON object; expected one in each line."
            )
        return offsets, list(columns)

    def __repr__(self) -> str:
        return f"ImageTextTable({str(self.path)!r})"


class _Lines:
    """Iterates the lines of a file and knows where it stands.

    Lines come in Latin-1, which keeps every byte and, over UTF-8, every separator and quotation mark: rows can
    be told apart without decoding them.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.start = self.end = 0
        self.hash = hashlib.sha256()

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.hash.update(line)
            self.start, self.end = self.end, self.end + len(line)
            if self.start == 0 and line.startswith(_BOM):
                self.start, line = len(_BOM), line[len(_BOM) :]
            yield line.decode("latin-1")
