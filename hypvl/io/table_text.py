"""Tables of images, captions and the like: CSV and TSV with a header line, JSON Lines, and JSON lists of objects.

One reader for everything that reads such a file. A row whose fields do not fit the header, and an opening quotation
mark that would swallow the next rows, are broken rows, not other captions.
"""

import contextlib
import csv
from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypeAlias

import numpy as np

from hypvl.checks import one_of, setting, whole_number
from hypvl.errors import DataError
from hypvl.io.files import open_regular
from hypvl.io.json_text import JsonList, parse_json
from hypvl.io.table_rows import Feed, Lines, swallows, whole_row

Layout: TypeAlias = Literal["delimited", "json"]

Quoting: TypeAlias = Literal["minimal", "none"]
#: Names tried, in this order, when no column is named.
IMAGE_COLUMNS = ("filepath", "image", "image_path", "file_name", "filename", "image_id")
CAPTION_COLUMNS = ("title", "caption", "captions", "text")
#: The same for JSON files of evaluation, where these were always the usual ones.
JSON_IMAGE_COLUMNS = ("image", "filepath", "image_path", "file_name", "filename", "image_id")
JSON_CAPTION_COLUMNS = ("captions", "caption", "title", "text")
#: Lines that a quoted field may take: captions of several lines are rarely longer, tables that never close one are.
MAX_FIELD_LINES = 20
JSON_SUFFIXES = (".json", ".jsonl", ".ndjson", ".jsonlines")
#: Suffixes of tables; of those that end otherwise only who names a layout knows it.
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".jsonlines")

_SEPARATORS = ("\t", ",", ";")  # the first one in the header line, where none is named
_BOM = b"\xef\xbb\xbf"
NO_UNICODE = "no valid Unicode"  # RowError.kind of a row that is not UTF-8
_WIDE = (b"\xff\xfe", b"\xfe\xff")  # the first bytes of UTF-16 and UTF-32
# Rows of a JSON file whose keys are looked at to find out which columns there are.
_ROWS_CHECKED = 100


def checked_separator(separator: str | None) -> str | None:
    """A separator as :class:`TableText` takes it, else ValueError; the two characters ``\\t`` are TAB, None is None."""
    if separator == "\\t":
        return "\t"
    if separator is not None and (len(separator) != 1 or separator in '"\r\n'):
        raise ValueError(
            f'separator: got {separator!r}; expected one character (no quotation mark, no line break), "\\t" for TAB, '
            "or null to find out."
        )
    return separator


def find_column(
    path: Path,
    columns: Sequence[str],
    given: str | None,
    usual: Sequence[str],
    *,
    option: str,
    single: str = "",
) -> str:
    """The name of one of the columns of a file: the one ``given``, else the first of ``usual`` that is there.

    Raises:
        DataError: when it is not there (then ``option`` is the argument to set, and ``single`` a hint for a file that
            has one column only), or is there twice.
    """
    wanted = usual if given is None else (given,)
    name = next((name for name in wanted if name in columns), None)
    if name is None:
        raise DataError(
            f"{path}: has no column {' or '.join(map(repr, wanted))}; it has {', '.join(columns) or 'none'}"
            f"{single if len(columns) == 1 else ''}; set {setting(option)}."
        )
    if columns.count(name) > 1:
        raise DataError(f"{path}: has {columns.count(name)} columns {name!r}; expected one.")
    return name


class RowError(ValueError):
    """A row that cannot be used: what is wrong, in the same words for all rows of the kind, and more of it."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.kind} ({self.detail})" if self.detail else self.kind


class Row(NamedTuple):
    """A row of the file: where ("line 3", "entry 2"), and its fields or what is wrong with it."""

    where: str
    fields: dict[str, Any] | RowError


class Index(NamedTuple):
    """Where the rows are in the file."""

    places: np.ndarray  # (N + 1,) int64: the first byte of each row, and the byte after the last
    columns: tuple[str, ...]  # names, in order; of a JSON file the keys of its first rows
    separator: str  # between columns; the empty text in a JSON file
    digest: str  # SHA-256 of the file's content
    unclosed: int  # rows whose quotation mark would have swallowed other rows


class TableText:
    """The rows of a table. Only the place of each is kept in memory, 8 bytes a row.

    Args:
        path: ``.json``, ``.jsonl``, ``.ndjson``, ``.jsonlines``: objects, one a line or in a list; anything else: a
            table with a header line. UTF-8.
        separator: Between columns; None: TAB where the header line has one, else comma, else semicolon. The two
            characters ``\\t`` mean TAB.
        quoting: "minimal": fields may be quoted, as in RFC 4180; "none": a quotation mark is a sign like any other.
        max_field_lines: Lines that a quoted field may take. One that does not close within them, or whose lines look
            like rows of their own, is a broken row of one line.
        layout: What the file is; None: by its suffix.

    Raises:
        ValueError: for an option that is none.
    """

    def __init__(
        self,
        path: Path,
        *,
        separator: str | None = None,
        quoting: Quoting = "minimal",
        max_field_lines: int = MAX_FIELD_LINES,
        layout: Layout | None = None,
    ) -> None:
        one_of("layout", layout, Layout | None)
        self.path = path
        self.quoting = one_of("quoting", quoting, Quoting)
        self.max_field_lines = whole_number("max_field_lines", max_field_lines, least=1)
        self.separator = checked_separator(separator)
        by_suffix = "json" if path.suffix.lower() in JSON_SUFFIXES else "delimited"
        self._layout = by_suffix if layout is None else layout

    @property
    def is_json(self) -> bool:
        """Whether rows are JSON objects."""
        return self._layout == "json"

    @cached_property
    def index(self) -> Index:
        """Where the rows are. Raises DataError when the file cannot be read, is not a table, or has no rows."""
        try:
            with open_regular(self.path) as file:
                return self._scan(file)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror}); check the path.") from error

    def __len__(self) -> int:
        return len(self.index.places) - 1

    def column(self, given: str | None, usual: Sequence[str], *, option: str) -> str:
        """The name of a column, see :func:`find_column`."""
        hint = (
            "" if self.is_json else f" (with separator {self.index.separator!r}: set {setting('separator')}?)"
        )
        return find_column(self.path, self.index.columns, given, usual, option=option, single=hint)

    def parse(self, data: bytes) -> dict[str, Any]:
        """The fields of a row from its bytes in the file. Raises RowError when it is broken."""
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise RowError(NO_UNICODE, f"not UTF-8: {error.reason}") from error
        if self.is_json:
            try:
                fields = parse_json(text.strip(" \t\r\n,"))
            except ValueError as error:
                raise RowError("broken JSON", str(error)) from error
            if not isinstance(fields, dict):
                raise RowError("no JSON object", f"a {type(fields).__name__}")
            return fields
        columns = self.index.columns
        lines = [f"{line}\n" for line in text.split("\n")]  # csv would take a lone \r for the end of the row
        try:
            values = next(row for row in self._reader(iter(lines), self.index.separator) if row)
        except StopIteration as error:
            raise RowError("an empty row") from error
        except csv.Error as error:
            raise RowError(*_in_words(error)) from error
        if len(values) != len(columns):
            raise RowError(
                "another number of fields than the header",
                f"{len(values)}, expected {len(columns)}; a field that holds {self.index.separator!r} must be quoted",
            )
        return dict(zip(columns, values, strict=True))

    def rows(self) -> Iterator[Row]:
        """All rows in order. Raises DataError as :attr:`index`."""
        places, line = self.index.places, 1
        listed = self.is_json and self._is_list
        try:
            with open_regular(self.path) as file:
                line += file.read(int(places[0])).count(b"\n")
                for number in range(len(self)):
                    data = file.read(int(places[number + 1] - places[number]))
                    where = f"entry {number + 1}" if listed else f"line {line}"
                    line += data.count(b"\n")
                    try:
                        yield Row(where, self.parse(data))
                    except RowError as error:
                        yield Row(where, error)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror}); check the path.") from error

    def usable_rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(where, fields) of all rows, for readers that cannot do without any: DataError for the first broken one."""
        for where, fields in self.rows():
            if isinstance(fields, RowError):
                other = "" if self.is_json or self.quoting == "none" else setting("quoting", value="none")
                remedy = f"mend the row, or set {other}" if other else "mend the row"
                if fields.kind == NO_UNICODE:  # most often a whole file of Excel's
                    remedy = "expected UTF-8: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW"
                raise DataError(f"{self.path}, {where}: cannot be used: {fields}; {remedy}.") from fields
            yield where, fields

    @cached_property
    def _is_list(self) -> bool:
        with open_regular(self.path) as file:
            data = file.read(1 << 16)
        return data.removeprefix(_BOM).lstrip()[:1] == b"["

    def _reader(self, lines: Iterator[str], separator: str) -> Iterator[list[str]]:
        if self.quoting == "none":
            return csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE)
        return csv.reader(lines, delimiter=separator, strict=True)

    def _scan(self, file: BinaryIO) -> Index:
        start = file.read(4)
        file.seek(0)
        if start[:2] == b"\x1f\x8b":
            raise DataError(f"{self.path}: is compressed with gzip; unpack it (gunzip) first.")
        if start[:2] in _WIDE or b"\0" in start:
            raise DataError(
                f"{self.path}: is UTF-16, or no text; expected UTF-8: iconv -f UTF-16 -t UTF-8 OLD > NEW."
            )
        lines = Lines(file, self.path, ahead=self.max_field_lines)
        index = self._scan_json(file, lines) if self.is_json else self._scan_delimited(lines)
        if len(index.places) < 2:
            raise DataError(f"{self.path}: has no rows; expected at least one.")
        return index

    def _scan_json(self, file: BinaryIO, lines: Lines) -> Index:
        places, columns, end = array("q"), dict[str, None](), 0
        source = JsonList(file, self.path) if self._is_list else lines
        rows = _json_rows(lines) if isinstance(source, Lines) else source
        for start, end, value in rows:  # noqa: B007 (the last end is kept)
            if len(places) < _ROWS_CHECKED:
                columns.update(dict.fromkeys(value if isinstance(value, dict) else ()))
            places.append(start)
        if places and not columns:
            which, expected = (
                ("entries", "objects") if self._is_list else ("lines", "one in each line, or a list of them")
            )
            raise DataError(f"{self.path}: none of its first {which} is a JSON object; expected {expected}.")
        places.append(end if self._is_list else lines.end)
        return Index(np.array(places), tuple(columns), "", source.hash.hexdigest(), 0)

    def _scan_delimited(self, lines: Lines) -> Index:
        separator, header = self._header(lines)
        places, unclosed, quoted = array("q"), 0, self.quoting != "none"
        whole = whole_row(separator)
        for line in lines:
            if quoted and b'"' in line and not whole(line):
                more = self._extra_lines(line, lines, separator, len(header))
                unclosed += more is None
                lines.skip(more or 0)
            elif line.isspace() and not line.strip(b"\r\n"):  # blank lines belong to no row
                continue
            places.append(lines.start)
        places.append(lines.end)
        return Index(np.array(places), header, separator, lines.hash.hexdigest(), unclosed)

    def _header(self, lines: Lines) -> tuple[str, tuple[str, ...]]:
        line = next((line for line in lines if line.strip(b"\r\n")), None)
        if line is None:
            return self.separator or "\t", ()
        if b"\0" in line:
            raise DataError(f"{self.path}: holds NUL bytes; is it UTF-16, or no text? Expected UTF-8.")
        if b"\r" in line.rstrip(b"\r\n"):
            raise DataError(
                f"{self.path}: has lines that end in CR alone; make it LF: tr '\\r' '\\n' < OLD > NEW."
            )
        text = line.decode(errors="replace")
        separator = self.separator
        if separator is None:
            separator = next((sign for sign in _SEPARATORS if sign in text), "\t")
        feed = Feed(line, lines)
        try:
            names = next(self._reader(feed, separator))
        except (csv.Error, StopIteration) as error:
            raise DataError(
                f"{self.path}: its header line is broken ({error}); expected column names."
            ) from error
        lines.skip(feed.taken)
        return separator, tuple(names)

    def _extra_lines(self, line: bytes, lines: Lines, separator: str, columns: int) -> int | None:
        """How many more lines a row with quotation marks takes; None: one opens that never closes its field."""
        feed = Feed(line, lines)
        try:
            row = next(self._reader(feed, separator))
        except (csv.Error, StopIteration):
            return None if feed.taken else 0
        if feed.taken and (len(row) != columns or swallows(row, feed.lines, separator)):
            return None
        return feed.taken

    def __repr__(self) -> str:
        return f"TableText({str(self.path)!r})"


def _json_rows(lines: Lines) -> Iterator[tuple[int, int, Any]]:
    """(first byte, byte after the last, value) of each line that is not blank; values of the first rows only."""
    count = 0
    for line in lines:
        if line.strip():
            row = None
            if count < _ROWS_CHECKED:
                with contextlib.suppress(ValueError):  # a broken row is a bad sample, not a bad table
                    row = parse_json(line)
            count += 1
            yield lines.start, lines.end, row


def _in_words(error: csv.Error) -> tuple[str, str]:
    message = str(error)
    if "field limit" in message:
        return "a field that is too long", f"more than {csv.field_size_limit()} characters"
    if "unexpected end" in message:
        return (
            "a quotation mark that opens a field and does not close it",
            'before the next row; in a quoted field a quotation mark is written twice ("")',
        )
    if "expected after" in message:
        return "a quotation mark inside a quoted field", 'it must be written twice (""), not as \\"'
    return "a broken row", message
