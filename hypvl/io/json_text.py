"""JSON that came from outside is read within bounds, every failure a ``ValueError``; JSON of ours is always UTF-8."""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from hypvl.errors import DataError
from hypvl.io.files import read_regular

T = TypeVar("T")
_ESCAPED = re.compile(
    r"[\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_BOM = "\xef\xbb\xbf"  # of UTF-8, read as Latin-1
_BLANKS = " \t\r\n"
_WINDOW = 1 << 22  # bytes read at a time
_LARGEST_ELEMENT = 1 << 26  # bytes; what does not end by then is broken
_DECODER = json.JSONDecoder()


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError for one that is not JSON, not UTF-8, or nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("brackets are nested too deeply for JSON data") from error


def read_object(path: Path, *, expected: str) -> dict[str, Any]:
    """A file that holds one JSON object; anything else is a DataError, which says what is expected."""
    try:
        content = parse_json(read_regular(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); expected {expected}.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}; expected {expected}.")
    return content


def json_bytes(value: Any, *, indent: int | None = None, sort_keys: bool = False) -> bytes:
    r"""A value as JSON in UTF-8 with a line end; :func:`parse_json` gives back an equal value.

    Text that is not valid Unicode, as in file names, and terminal control characters are escaped, as in ``\udcff``.

    Raises:
        ValueError: for NaN and infinities.
        TypeError: for what JSON cannot hold.
    """
    text = json.dumps(value, indent=indent, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False)
    # They stand inside strings only; json escapes those below U+0020 itself.
    return (_ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n").encode()


def by_id(entries: Iterable[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], T]) -> dict[Any, T]:
    """A value of each entry by its ``id``, as in COCO's files. An entry may occur twice with the same value.

    Raises:
        ValueError: naming an id with two values: annotations that name it could mean either.
        KeyError, TypeError: when an entry lacks its id.
    """
    values: dict[Any, T] = {}
    for entry in entries:
        one = value(entry)
        if values.setdefault(entry["id"], one) != one:
            raise ValueError(f"the id {entry['id']!r} twice, for {values[entry['id']]!r} and {one!r}")
    return values


@contextlib.contextmanager
def expecting(place: object, layout: str) -> Iterator[None]:
    """While values are taken out of parsed JSON: what is missing or of another kind becomes a DataError.

    Its message begins with ``place``, the file or the place in it, and ends with the ``layout`` that is expected there.
    """
    try:
        yield
    except KeyError as error:
        raise DataError(f"{place}: lacks {error}; expected {layout}.") from error
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{place}: cannot be used ({reason}); expected {layout}.") from error


class JsonList:
    """Iterates over the elements of a JSON list, a window of the file at a time, and knows the position of each.

    The text is decoded as Latin-1, which keeps every byte and, over UTF-8, every character of JSON's syntax, so that
    places in the text are places in the file; elements with characters beyond ASCII are decoded once more. The file is
    opened for reading bytes, at its start; messages call it ``name``.
    """

    def __init__(self, file: BinaryIO, name: Path) -> None:
        self._file = file
        self._name = name
        self._text = ""
        self._start = 0  # where the text begins in the file
        self._at = 0  # in the text
        self.hash = hashlib.sha256()  # of the whole file, once it has been iterated over

    def __iter__(self) -> Iterator[tuple[int, int, Any]]:
        """(first byte, byte after the last, value) of each element.

        Raises:
            DataError: when the file is not a JSON list, is cut off, or goes on after the list.
        """
        self._read()
        self._at = len(_BOM) if self._text.startswith(_BOM) else 0
        if self._next_sign() != "[":
            begin = self._text[self._at : self._at + 20]
            raise DataError(f"{self._name}: is not a JSON list, it begins with {begin!r}; expected [.")
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
                        f"{self._name}: is not a whole JSON list, it breaks after byte {self._start + self._at} "
                        f"({error}); copy it again."
                    ) from error

    def _next_sign(self) -> str:
        """Go to the next character that is not a blank; the empty text at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANKS:
                self._at += 1
            if self._at < len(self._text) or not self._read():
                return self._text[self._at : self._at + 1]

    def _read(self) -> bool:
        """Drop what was read and append a window; False at the end of the file."""
        data = self._file.read(_WINDOW)
        self.hash.update(data)
        self._start += self._at
        self._text, self._at = self._text[self._at :] + data.decode("latin-1"), 0
        return bool(data)
