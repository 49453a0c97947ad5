"""Where the rows of a delimited table end: lines, a look ahead, and quoted fields of several lines."""

import hashlib
import re
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import BinaryIO

from hypvl.errors import DataError

_BOM = b"\xef\xbb\xbf"
_LARGEST_LINE = 1 << 26


def whole_row(separator: str) -> Callable[[bytes], object]:
    """Whether a line is a row by itself: faster than reading it; False for some that are."""
    if not separator.isascii():
        return lambda line: False
    sign = re.escape(separator).encode()
    field = b'(?:"[^"]*(?:""[^"]*)*"|[^"%b\r\n][^%b\r\n]*|)' % (sign, sign)
    return re.compile(b"%b(?:%b%b)*\r?\n?" % (field, sign, field)).fullmatch


def swallows(row: Sequence[str], lines: Sequence[str], separator: str) -> bool:
    """Whether a line inside a quoted field looks like a row of its own: as many fields, and files of the same kind.

    The first line holds the row's own fields before the long one, the last line those after it.
    """
    long = [i for i, value in enumerate(row) if "\n" in value]
    kinds = {i: kind for i, value in enumerate(row) if i not in long and (kind := _kind(value))}
    for number, line in enumerate(lines):
        fields = line.rstrip("\r\n").split(separator)
        if len(fields) != len(row):
            continue
        for i, kind in kinds.items():
            own = (number == 0 and i < max(long)) or (number == len(lines) - 1 and i > min(long))
            if not own and kind == _kind(fields[i].strip('"')):
                return True
    return False


def _kind(value: str) -> str:
    """The extension of a file's name; the empty text for what is none."""
    extension = PurePath(value.strip()).suffix.lower()
    return extension if 1 < len(extension) <= 6 and extension[1:].isalnum() else ""


class Lines:
    """Iterates over the lines of a file, with a look ahead; a byte order mark is left out."""

    def __init__(self, file: BinaryIO, name: Path, *, ahead: int = 0) -> None:
        self._file = file
        self._name = name
        self._read_ahead: deque[tuple[int, bytes]] = deque()
        self.start = 0  # first byte of the line given last
        self.end = 0  # the byte after the last line read, also ahead
        self.hash = hashlib.sha256()  # of what was read
        self.ahead = ahead  # lines that a reader may look ahead

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> bytes:
        pair = self._read_ahead.popleft() if self._read_ahead else self._read()
        if pair is None:
            raise StopIteration
        self.start, line = pair
        return line

    def peek(self, i: int) -> bytes | None:
        """The i-th line after the one given last, i from 0; None behind the end."""
        while len(self._read_ahead) <= i:
            pair = self._read()
            if pair is None:
                return None
            self._read_ahead.append(pair)
        return self._read_ahead[i][1]

    def skip(self, count: int) -> None:
        """Skip lines that were looked at."""
        for _ in range(count):
            self._read_ahead.popleft()

    def _read(self) -> tuple[int, bytes] | None:
        """(first byte, line) of the next line of the file."""
        line = self._file.readline(_LARGEST_LINE)
        if not line:
            return None
        self.hash.update(line)
        start, self.end = self.end, self.end + len(line)
        if len(line) >= _LARGEST_LINE:
            raise DataError(f"{self._name}: has a line above {_LARGEST_LINE} bytes; is it a table?")
        if start == 0 and line.startswith(_BOM):
            return len(_BOM), line[len(_BOM) :]
        return start, line


class Feed:
    """A line, and as many of the next ones as a reader takes and a field may span.

    Bytes that are not UTF-8 are replaced, which keeps every separator and quotation mark.
    """

    def __init__(self, line: bytes, following: Lines) -> None:
        self.lines = [line.decode(errors="replace")]
        self._following = following
        self._given = 0

    @property
    def taken(self) -> int:
        """Lines read beyond the first."""
        return max(0, self._given - 1)

    def __iter__(self) -> "Feed":
        return self

    def __next__(self) -> str:
        if self._given == len(self.lines):
            more = self._given < self._following.ahead
            line = self._following.peek(self._given - 1) if more else None
            if line is None:
                raise StopIteration
            self.lines.append(line.decode(errors="replace"))
        self._given += 1
        return self.lines[self._given - 1]
