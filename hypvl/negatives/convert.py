"""From the published ``.npy`` files of hard negatives, pickled arrays of dicts, to JSONL."""

import ast
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hypvl.data.negatives import FIELDS
from hypvl.errors import DataError
from hypvl.io.files import open_regular, write_atomically
from hypvl.io.plain_pickle import load_plain

_MAGIC = b"\x93NUMPY"
_HEADER_LIMIT = 10_000  # as numpy's own


def convert_negatives(
    inputs: Sequence[str | Path], output: str | Path, *, progress: Callable[[Path, int], None] | None = None
) -> int:
    """Write the items of published files as one JSONL file, in order, as :mod:`hypvl.data.negatives` reads it.

    The inputs are ``.npy`` files, each an object array of dicts. The output is there only once it is whole.
    ``progress`` is called with each file that is done and the number of rows so far. Returns the number of rows.

    Raises:
        DataError: for a file that is not what it should be; one that names anything to run is refused.
    """
    if not inputs:
        raise DataError("inputs: got no file; give the .npy files to convert.")
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    count = 0

    def write(file: BinaryIO) -> None:
        nonlocal count
        for path in map(Path, inputs):
            for line in _lines(path):
                file.write(line)
                count += 1
            if progress is not None:
                progress(path, count)

    write_atomically(output, write)
    return count


def read_npy_items(path: str | Path) -> list[Any]:
    """The elements of an object array in a ``.npy`` file, in C order: dicts, lists, texts, numbers and arrays of them.

    Raises:
        DataError: when the file cannot be read, is not an array of objects, or names anything to run.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            _check_header(path, file)
            items = load_plain(path, file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    while isinstance(items, list) and len(items) == 1 and isinstance(items[0], list):
        items = items[0]  # a list that was saved as one object
    if not isinstance(items, list):
        raise DataError(f"{path}: holds one {type(items).__name__}; expected an array of dicts.")
    return [item for row in items for item in (row if isinstance(row, list) else [row])]


def _lines(path: Path) -> Iterator[bytes]:
    """JSON lines of the items of a file."""
    known = {"caption", *FIELDS.values()}
    for i, item in enumerate(read_npy_items(path)):
        if not isinstance(item, dict) or not isinstance(item.get("caption"), str):
            raise DataError(
                f"{path}: item {i} is not a dict with a caption; expected {', '.join(sorted(known))}."
            )
        if not item.keys() & set(FIELDS.values()):
            raise DataError(
                f"{path}: item {i} has none of {', '.join(FIELDS.values())}, only {', '.join(map(str, item))}."
            )
        try:
            line = json.dumps(item, ensure_ascii=False, allow_nan=False, default=_as_list)
            yield f"{line}\n".encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(f"{path}: item {i} cannot be written as JSON ({error}).") from error


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"a value of type {type(value).__name__}")


def _check_header(path: Path, file: BinaryIO) -> None:
    """Read up to the pickle. Raises DataError unless it is an object array."""
    magic = file.read(8)
    if magic[:6] != _MAGIC or len(magic) < 8:
        raise DataError(f"{path}: is not a .npy file (it begins with {magic[:6]!r}).")
    size_bytes = 2 if magic[6] == 1 else 4
    size = int.from_bytes(file.read(size_bytes), "little")
    if size > _HEADER_LIMIT:
        raise DataError(f"{path}: has a header of {size:,} bytes; expected at most {_HEADER_LIMIT:,}.")
    try:
        header = ast.literal_eval(file.read(size).decode("latin-1").strip())
        kind = header["descr"]
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise DataError(f"{path}: has a broken .npy header ({error}); copy it again.") from error
    if kind not in ("|O", "O"):
        raise DataError(f"{path}: is an array of type {kind!r}; expected one of objects (dicts).")
