"""From the published ``.npy`` files of hard negatives to JSONL, without running anything that is in them.

Such a file is a pickled numpy array of dicts, and a pickle is a program: it can call what it names. Here it can name
only what arrays and built-in containers are made of, and even those are stand-ins that hold data and do nothing. NumPy
itself reads none of it: its own reconstruction trusts the sizes and flags in the file.
"""

import ast
import json
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from hypvl.data.negatives import FIELDS
from hypvl.errors import DataError
from hypvl.io.files import write_atomically

_MAGIC = b"\x93NUMPY"
_HEADER_LIMIT = 10_000  # as numpy's own
_NUMBERS = frozenset("b1 i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8".split())  # noqa: SIM905
# What a broken pickle can end in, beside what we raise ourselves.
_BROKEN = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError, ImportError,
    OverflowError, RecursionError, MemoryError,
)  # fmt: skip


def convert_negatives(
    inputs: Sequence[str | Path], output: str | Path, *, progress: Callable[[Path, int], None] | None = None
) -> int:
    """Write the items of published files as one JSONL file, in order, as :mod:`hypvl.data.negatives` reads it.

    Args:
        inputs: ``.npy`` files, each an object array of dicts.
        output: File to write; there only once it is whole.
        progress: Called with each file that is done and the number of rows so far.

    Returns:
        Number of rows.

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
    """The elements of an object array in a ``.npy`` file, in C order: dicts, lists, texts and numbers only.

    Raises:
        DataError: when the file cannot be read, is not an array of objects, or names anything to run.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            _check_header(path, file)
            items = _Plain(16 * path.stat().st_size)(_Unpickler(path, file).load())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    except _BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: is not a whole pickle of data ({reason}); copy it again.") from error
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
            yield (json.dumps(item, ensure_ascii=False, allow_nan=False) + "\n").encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(f"{path}: item {i} cannot be written as JSON ({error}).") from error


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


class _Plain:
    """Replaces stand-ins by containers and numbers.

    Args:
        limit: Values there may be. A small file can name one list many times over, and lists of it again.
    """

    def __init__(self, limit: int) -> None:
        self.left = limit

    def __call__(self, value: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise ValueError("it repeats the same values over and over")
        if isinstance(value, _Array):
            items = [self(item) for item in value.items]
            return items if value.shape else items[0]  # a 0-dim array is its element
        if isinstance(value, dict):
            return {self(k): self(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self(v) for v in value]
        if isinstance(value, _StandIn):
            value.refuse("used as data")
        return value


class _StandIn:
    """Something a pickle may name. It accepts no attributes and no state, and no call unless a subclass allows it."""

    __slots__ = ()

    def __call__(self, *args: Any) -> Any:
        self.refuse("called")

    def __setstate__(self, state: Any) -> None:
        self.refuse("given a state")

    def refuse(self, what: str) -> NoReturn:
        raise pickle.UnpicklingError(f"{type(self).__name__.strip('_')} {what}")


class _ArrayType(_StandIn):
    """numpy.ndarray."""

    __slots__ = ()


class _Reconstruct(_StandIn):
    """numpy's maker of empty arrays, filled by their state."""

    __slots__ = ()

    def __call__(self, *args: Any) -> "_Array":
        if not args or not isinstance(args[0], _ArrayType):
            self.refuse("called with something else than an array type")
        return _Array()


class _DtypeType(_StandIn):
    """numpy.dtype."""

    __slots__ = ()

    def __call__(self, *args: Any) -> "_Dtype":
        if not args or not isinstance(args[0], str):
            self.refuse("called without a name")
        return _Dtype(args[0])


class _Dtype(_StandIn):
    """A data type: a name such as ``i8`` or ``O8``, and a byte order."""

    __slots__ = ("name", "order")

    def __init__(self, name: str) -> None:
        self.name, self.order = name, "="

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.order = state[1]

    def numbers(self, data: Any) -> list[Any]:
        """The numbers in these bytes."""
        if self.name not in _NUMBERS or not isinstance(data, bytes):
            self.refuse(f"{self.name!r} of {type(data).__name__}, expected bytes of numbers")
        return list(np.frombuffer(data, dtype=np.dtype(self.order + self.name)).tolist())


class _Array(_StandIn):
    """An array: its shape, and a list of objects or bytes of numbers."""

    __slots__ = ("items", "shape")

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.shape: tuple[int, ...] = (0,)

    def __setstate__(self, state: Any) -> None:
        """``(version, shape, dtype, whether in Fortran order, data)``."""
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _Dtype):
            self.refuse("with a state of another form")
        _, shape, dtype, fortran, data = state
        if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            self.refuse(f"of shape {shape!r}")
        items = data if dtype.name.startswith("O") else dtype.numbers(data)
        if not isinstance(items, list) or len(items) != math.prod(shape):
            self.refuse(f"of shape {shape} with other contents")
        if fortran and len(shape) > 1:
            self.refuse("in Fortran order, expected C order")
        self.items, self.shape = items, shape


class _Scalar(_StandIn):
    """numpy's maker of scalars."""

    __slots__ = ()

    def __call__(self, *args: Any) -> Any:
        if len(args) != 2 or not isinstance(args[0], _Dtype):
            self.refuse("called with something else than a data type and bytes")
        (number,) = args[0].numbers(args[1])
        return number


class _Encode(_StandIn):
    """How older protocols write bytes: a text in Latin-1."""

    __slots__ = ()

    def __call__(self, *args: Any) -> bytes:
        if len(args) != 2 or not isinstance(args[0], str) or args[1] not in ("latin1", "latin-1"):
            self.refuse("called with something else than a text and 'latin1'")
        return args[0].encode("latin-1")


_ALLOWED: dict[str, _StandIn] = {
    "numpy.ndarray": _ArrayType(),
    "numpy.dtype": _DtypeType(),
    "_codecs.encode": _Encode(),
    **{
        f"{module}.{name}": maker
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
        for name, maker in (("_reconstruct", _Reconstruct()), ("scalar", _Scalar()))
    },
}


class _Unpickler(pickle.Unpickler):
    """Resolves the names of :data:`_ALLOWED` and refuses every other one."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        stand_in = _ALLOWED.get(f"{module}.{name}")
        if stand_in is None:
            raise DataError(
                f"{self._path}: refused, because it asks to load {module}.{name}; expected numpy arrays, dicts, lists, "
                "texts and numbers only, so do not use this file."
            )
        return stand_in
