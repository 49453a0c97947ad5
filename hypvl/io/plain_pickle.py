"""Pickles of plain data, read without running anything that is in them.

A pickle is a program: it can call what it names. Here it can name only what arrays and built-in containers are made
of, and even those are stand-ins that hold data and do nothing. NumPy itself reads no state of an array: its own
reconstruction trusts the sizes and flags in the file.
"""

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from hypvl.checks import one_of
from hypvl.errors import DataError

_NUMBERS = frozenset("b1 i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8".split())  # noqa: SIM905
# What a broken pickle can end in, beside what is raised here.
_BROKEN = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError, ImportError,
    OverflowError, RecursionError, MemoryError,
)  # fmt: skip
# Values that a file may hold for each of its bytes: a small one can name one list many times over, and lists of it.
_VALUES_PER_BYTE = 16


def load_plain(path: Path, file: BinaryIO, *, encoding: Literal["ASCII", "bytes"] = "ASCII") -> Any:
    """What a pickle holds: dicts, lists (also for tuples and arrays of objects), texts, bytes, numbers, arrays of them.

    ``file`` is open for reading bytes, at the start of the pickle, ``path`` for messages and its size. With the
    ``encoding`` "bytes" texts of Python 2 come as ``bytes``.

    Raises:
        DataError: when it is not a whole pickle of such data; one that names anything to run is refused.
        OSError: when it cannot be read.
    """
    one_of("encoding", encoding, Literal["ASCII", "bytes"])
    try:
        value = _Unpickler(path, file, encoding=encoding).load()
        return _Plain(_VALUES_PER_BYTE * path.stat().st_size)(value)
    except _BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: is not a whole pickle of data ({reason}); copy it again.") from error


class _Plain:
    """Replaces stand-ins by what they hold; there may be at most ``limit`` values."""

    def __init__(self, limit: int) -> None:
        self.left = limit

    def __call__(self, value: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise ValueError("it repeats the same values over and over")
        if isinstance(value, _Array):
            if isinstance(value.items, np.ndarray):
                return value.items
            items = [self(item) for item in value.items]
            return items if value.shape else items[0]  # a 0-dim array is its element
        if isinstance(value, dict):
            return {self(k): self(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self(v) for v in value]
        if isinstance(value, _Named | _Dtype):
            raise pickle.UnpicklingError(f"{value} used as data")
        return value


class _Named:
    """Something a pickle may name: calls ``make`` if it is called, and takes no attributes and no state."""

    __slots__ = ("_make", "_name")

    def __init__(self, name: str, make: Callable[..., Any] | None = None) -> None:
        self._name, self._make = name, make

    def __call__(self, *args: Any) -> Any:
        if self._make is None:
            raise pickle.UnpicklingError(f"{self} called")
        return self._make(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError(f"{self} given a state")

    def __str__(self) -> str:
        return self._name


class _Dtype:
    """A data type: a name such as ``i8`` or ``O8``, and a byte order."""

    __slots__ = ("name", "order")

    def __init__(self, name: Any, *_: Any) -> None:
        if not isinstance(name, str | bytes):
            raise pickle.UnpicklingError("numpy.dtype called without a name")
        self.name, self.order = _text(name), "="

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and _text(state[1]) in ("<", ">", "|", "="):
            self.order = _text(state[1])

    def __str__(self) -> str:
        return f"a numpy.dtype {self.name!r}"


class _Array:
    """An array: a list of objects and its shape, or the numbers themselves."""

    __slots__ = ("items", "shape")

    def __init__(self, kind: Any, *_: Any) -> None:
        """Empty, as numpy's maker of arrays makes it; filled by its state."""
        if kind is not _NDARRAY:
            raise pickle.UnpicklingError("numpy's _reconstruct called with something else than an array type")
        self.items: list[Any] | np.ndarray = []
        self.shape: tuple[int, ...] = (0,)

    def __setstate__(self, state: Any) -> None:
        """``(version, shape, dtype, whether in Fortran order, data)``."""
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _Dtype):
            raise pickle.UnpicklingError("an array with a state of another form")
        _, shape, dtype, fortran, data = state
        if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            raise pickle.UnpicklingError(f"an array of shape {shape!r}")
        items = data if dtype.name.startswith("O") else _numbers(dtype, data)
        if not isinstance(items, list | np.ndarray) or len(items) != math.prod(shape):
            raise pickle.UnpicklingError(f"an array of shape {shape} with other contents")
        if isinstance(items, np.ndarray):
            items = items.reshape(shape, order="F" if fortran else "C")
        elif fortran and len(shape) > 1:
            raise pickle.UnpicklingError("an array of objects in Fortran order, expected C order")
        self.items, self.shape = items, shape


def _text(value: Any) -> Any:
    """A text of Python 2, which may come as bytes."""
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _numbers(dtype: Any, data: Any) -> np.ndarray:
    """The numbers in these bytes."""
    if not isinstance(dtype, _Dtype) or dtype.name not in _NUMBERS or not isinstance(data, bytes | bytearray):
        raise pickle.UnpicklingError(f"{dtype} with {type(data).__name__}, expected bytes of numbers")
    return np.frombuffer(data, dtype=np.dtype(dtype.order + dtype.name))


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    """Stands in for numpy's maker of arrays of numbers in protocol 5."""
    array = _Array(_NDARRAY)
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _scalar(dtype: Any, data: Any) -> Any:
    """Stands in for numpy's maker of scalars."""
    (number,) = _numbers(dtype, data).tolist()
    return number


def _encode(text: Any, codec: Any) -> bytes:
    """Stands in for ``_codecs.encode``, by which older protocols write bytes: a text in Latin-1."""
    if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("_codecs.encode called with something else than a text and 'latin1'")
    return text.encode("latin-1")


_NDARRAY = _Named("numpy.ndarray")
_CORE = (
    ("multiarray._reconstruct", _Array),
    ("multiarray.scalar", _scalar),
    ("numeric._frombuffer", _from_buffer),
)
_ALLOWED = {
    "numpy.ndarray": _NDARRAY,
    "numpy.dtype": _Named("numpy.dtype", _Dtype),
    "_codecs.encode": _Named("_codecs.encode", _encode),
    **{
        f"{core}.{name}": _Named(f"{core}.{name}", make)
        for core in ("numpy.core", "numpy._core")  # before and since NumPy 2
        for name, make in _CORE
    },
}


class _Unpickler(pickle.Unpickler):
    """Resolves the names of :data:`_ALLOWED` and refuses every other one."""

    def __init__(self, path: Path, file: BinaryIO, *, encoding: str) -> None:
        super().__init__(file, encoding=encoding)
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        stand_in = _ALLOWED.get(f"{module}.{name}")
        if stand_in is None:
            raise DataError(
                f"{self._path}: refused, because it asks to load {module}.{name}; expected numpy arrays, dicts, lists, "
                "texts and numbers only, so do not use this file."
            )
        return stand_in
