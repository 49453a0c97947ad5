"""Lists of (caption, web address): Conceptual Captions' TSV without a header, CSV, TSV, JSONL and Parquet with one."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from hypvl.checks import one_of
from hypvl.data.order import SUBSET, keyed_bits, permutation
from hypvl.errors import DataError, UserError
from hypvl.io.files import open_regular
from hypvl.io.redact import printable
from hypvl.io.table_text import CAPTION_COLUMNS, Quoting, RowError, TableText, find_column

#: Columns with the address, where none is named.
URL_COLUMNS = ("url", "URL", "image_url")
#: Columns with the caption, where none is named.
TEXT_COLUMNS = (*CAPTION_COLUMNS, "TEXT")
_ADDRESS = re.compile(r"(?i)https?://\S+")
_BLOCK = 1 << 24
_LONGEST_LINE = 1 << 20


class Pair(NamedTuple):
    """A row of a list; ``error`` says why it cannot be used, empty where it can."""

    row: int  # from 0, a header not counted
    url: str
    caption: str
    error: str = ""


@dataclass(frozen=True)
class ListOptions:
    """How a list is read.

    Args:
        path: ``.parquet``; ``.jsonl`` and others of :class:`hypvl.io.table_text.TableText`; else a table of text.
        url_column: Column or key of the address; None: the first of ``URL_COLUMNS`` there is.
        caption_column: Of the caption; None: the first of ``TEXT_COLUMNS``.
        separator, quoting: As in :class:`hypvl.io.table_text.TableText`.

    A table of text whose first line holds an address has no header: the field with the address is the address, the
    first other one the caption, fields are separated by TABs, and quotation marks are ordinary characters.
    """

    path: Path
    url_column: str | None = None
    caption_column: str | None = None
    separator: str | None = None
    quoting: Quoting = "minimal"

    def __post_init__(self) -> None:
        one_of("quoting", self.quoting, Quoting)


class PairList(Protocol):
    """The rows of a list."""

    def __len__(self) -> int: ...

    def read(self, rows: Sequence[int]) -> list[Pair]:
        """These rows, in ascending order. Raises DataError when the list cannot be read."""
        ...


@functools.lru_cache(maxsize=4)
def open_list(options: ListOptions) -> PairList:
    """The list. Raises DataError when it cannot be read, has no rows or lacks a column."""
    if options.path.suffix.lower() == ".parquet":
        return _ParquetList(options)
    text = TableText(options.path, separator=options.separator, quoting=options.quoting)
    if not text.is_json and (first := _first_line(options.path)) is not None:
        return _PlainList(options, first)
    return _TableList(options, text)


def choose_rows(total: int, *, subset: int | None, seed: int) -> np.ndarray:
    """The rows that are gathered, ascending: all of them, or ``subset`` drawn by ``seed``, the same every time.

    Raises:
        DataError: for a subset of more rows than there are.

    Example:
        >>> choose_rows(10, subset=3, seed=0).tolist() == choose_rows(10, subset=3, seed=0).tolist()
        True
    """
    if subset is None:
        return np.arange(total)
    if not 1 <= subset <= total:
        raise DataError(f"--subset: got {subset}, but the list has {total} rows; expected 1 to {total}.")
    return np.sort(permutation(keyed_bits(SUBSET, seed, 0, 0), total)[:subset])


def _checked(row: int, url: Any, caption: Any) -> Pair:
    url = url.strip() if isinstance(url, str) else ""
    if not isinstance(caption, str) or not caption.strip():
        return Pair(row, url, "", "no caption")
    if not _ADDRESS.fullmatch(url):
        return Pair(row, url, caption, "no http(s) address")
    return Pair(row, url, caption.strip())


def _first_line(path: Path) -> list[str] | None:
    """The fields of the first line if one is an address, so that there is no header; else None."""
    try:
        with open_regular(path) as file:
            line = file.readline(_LONGEST_LINE)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    fields = line.decode("utf-8-sig", "replace").rstrip("\r\n").split("\t")
    return fields if any(_ADDRESS.fullmatch(field.strip()) for field in fields) else None


class _PlainList:
    """A TSV without a header: only the place of each line is kept in memory."""

    def __init__(self, options: ListOptions, first: list[str]) -> None:
        self._path = options.path
        if options.url_column is not None or options.caption_column is not None:
            raise DataError(
                f"{options.path}: its first line holds an address, so it has no header with the columns that are "
                "named; leave --url-column and --caption-column out, or add a header."
            )
        if len(first) < 2:
            raise DataError(
                f"{options.path}: its first line has one field; expected a caption, a TAB and an address in each line."
            )
        self._fields = len(first)
        self._url = next(i for i, field in enumerate(first) if _ADDRESS.fullmatch(field.strip()))
        self._caption = next(i for i in range(len(first)) if i != self._url)
        ends: list[np.ndarray] = []
        with open_regular(self._path) as file:
            at = 0
            while data := file.read(_BLOCK):
                ends.append(np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n")) + at + 1)
                at += len(data)
        places = np.concatenate([np.zeros(1, dtype=np.int64), *ends])
        self._places = places if places[-1] == at else np.append(places, at)

    def __len__(self) -> int:
        return len(self._places) - 1

    def read(self, rows: Sequence[int]) -> list[Pair]:
        with open_regular(self._path) as file:
            return [self._row(file, int(row)) for row in rows]

    def _row(self, file: Any, row: int) -> Pair:
        start, end = (int(place) for place in self._places[row : row + 2])
        file.seek(start)
        data = file.read(min(end - start, _LONGEST_LINE))
        try:
            fields = data.decode("utf-8-sig" if row == 0 else "utf-8").rstrip("\r\n").split("\t")
        except UnicodeDecodeError:
            return Pair(row, "", "", "no valid Unicode")
        if len(fields) != self._fields:
            return Pair(row, "", "", "another number of fields than the first line")
        return _checked(row, fields[self._url], fields[self._caption])


class _TableList:
    """A table of text with a header, or JSON objects."""

    def __init__(self, options: ListOptions, text: TableText) -> None:
        self._text = text
        self._url = text.column(options.url_column, URL_COLUMNS, option="--url-column")
        self._caption = text.column(options.caption_column, TEXT_COLUMNS, option="--caption-column")

    def __len__(self) -> int:
        return len(self._text)

    def read(self, rows: Sequence[int]) -> list[Pair]:
        places, result = self._text.index.places, []
        with open_regular(self._text.path) as file:
            for row in map(int, rows):
                file.seek(int(places[row]))
                try:
                    fields = self._text.parse(file.read(int(places[row + 1] - places[row])))
                except RowError as error:
                    result.append(Pair(row, "", "", f"broken row: {error.kind}"))
                else:
                    result.append(_checked(row, fields.get(self._url), fields.get(self._caption)))
        return result


class _ParquetList:
    """A Parquet file; of it one row group at a time is in memory."""

    def __init__(self, options: ListOptions) -> None:
        try:
            from pyarrow import ArrowException, parquet
        except ImportError as error:
            raise UserError(
                f"{options.path}: Parquet needs pyarrow, which is not installed: pip install 'hypvl[parquet]'."
            ) from error
        try:
            with parquet.ParquetFile(options.path) as file:
                columns = file.schema_arrow.names
                sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        except (OSError, ArrowException) as error:
            raise DataError(f"{options.path}: cannot be read as Parquet ({error}).") from error
        self._path = options.path
        self._url = find_column(options.path, columns, options.url_column, URL_COLUMNS, option="--url-column")
        self._caption = find_column(
            options.path, columns, options.caption_column, TEXT_COLUMNS, option="--caption-column"
        )
        self._ends = np.cumsum(sizes, dtype=np.int64)
        if not sizes or min(sizes) < 0 or self._ends[-1] == 0:
            raise DataError(f"{options.path}: has no rows.")

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, rows: Sequence[int]) -> list[Pair]:
        from pyarrow import ArrowException

        try:
            return self._read(rows)
        except (OSError, ArrowException, ValueError, LookupError, OverflowError) as error:
            reason = printable(" ".join(str(error).split()))
            raise DataError(f"{self._path}: is damaged ({reason}); download it again.") from error

    def _read(self, rows: Sequence[int]) -> list[Pair]:
        from pyarrow import parquet

        result: list[Pair] = []
        chosen = np.asarray(rows, dtype=np.int64)
        groups = np.searchsorted(self._ends, chosen, side="right")
        with parquet.ParquetFile(self._path) as file:
            for group in np.unique(groups):
                table = file.read_row_group(int(group), columns=[self._url, self._caption])
                own = chosen[groups == group]
                first = int(self._ends[group]) - len(table)
                part = table.take(own - first)
                urls, captions = (part.column(name).to_pylist() for name in (self._url, self._caption))
                result += [_checked(int(row), *pair) for row, *pair in zip(own, urls, captions, strict=True)]
        return result
