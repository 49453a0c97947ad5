"""JSON lists that may be far larger than memory: their elements one after the other, and where they stand."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from hypvl.errors import DataError
from hypvl.io.json_text import parse_json

_BOM = "\xef\xbb\xbf"  # of UTF-8, read as Latin-1
_BLANKS = " \t\r\n"
_WINDOW = 1 << 22  # bytes read at a time
_LARGEST_ELEMENT = 1 << 26  # bytes; what does not end by then is broken
_DECODER = json.JSONDecoder()


class JsonList:
    """Iterates over the elements of a JSON list, a window of the file at a time, and knows where they stand.

    The text is decoded as Latin-1, which keeps every byte and, over UTF-8, every sign of JSON, so that places in the
    text are places in the file; elements with signs beyond ASCII are decoded once more.

    Args:
        file: Opened for reading bytes, at its start.
        name: To name in messages.

    Attributes:
        hash: SHA-256 of the whole file, once it has been iterated over.
    """

    def __init__(self, file: BinaryIO, name: Path) -> None:
        self._file = file
        self._name = name
        self._text = ""
        self._start = 0  # where the text begins in the file
        self._at = 0  # in the text
        self.hash = hashlib.sha256()

    def __iter__(self) -> Iterator[tuple[int, int, Any]]:
        """(first byte, byte after the last, value) of each element.

        Raises:
            DataError: when the file is no JSON list, breaks off, or goes on after the list.
        """
        self._read()
        self._at = len(_BOM) if self._text.startswith(_BOM) else 0
        if self._next_sign() != "[":
            begin = self._text[self._at : self._at + 20]
            raise DataError(f"{self._name}: is no JSON list, it begins with {begin!r}; expected [.")
        self._at += 1
        while (sign := self._next_sign()) != "]":
            if sign == ",":
                self._at += 1
                continue
            value, end = self._element()
            raw = self._text[self._at : end]
            if not raw.isascii():
                with contextlib.suppress(ValueError):  # no UTF-8: whoever reads the element finds out
                    value = parse_json(raw.encode("latin-1"))
            yield self._start + self._at, self._start + end, value
            self._at = end
        self._at += 1
        if self._next_sign():
            raise DataError(
                f"{self._name}: goes on after its JSON list, at byte {self._start + self._at}; expected one list, or "
                "one object in each line."
            )

    def _element(self) -> tuple[Any, int]:
        """The element that starts here, and where it ends in the text."""
        while True:
            try:
                return _DECODER.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:  # broken, or not all of it read yet
                if len(self._text) - self._at > _LARGEST_ELEMENT or not self._read():
                    raise DataError(
                        f"{self._name}: is no whole JSON list, it breaks after byte {self._start + self._at} "
                        f"({error}); copy it again."
                    ) from error

    def _next_sign(self) -> str:
        """Go to the next sign that is no blank; the empty text at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANKS:
                self._at += 1
            if self._at < len(self._text) or not self._read():
                return self._text[self._at : self._at + 1]

    def _read(self) -> bool:
        """Drop what is done with and append a window; False at the end of the file."""
        data = self._file.read(_WINDOW)
        self.hash.update(data)
        self._start += self._at
        self._text, self._at = self._text[self._at :] + data.decode("latin-1"), 0
        return bool(data)
