"""Types that checkpoints hold beside tensors, built without calling what the file names.

torch's ``weights_only`` reader gives tensors and plain Python values. Training scripts often save other types as well:
NumPy numbers and arrays, ``argparse.Namespace``, paths and ``defaultdict``. These are built by the functions below
instead of the named ones, because NumPy's own would take types and buffers from the file unchecked.
"""

import argparse
import pickle
from collections.abc import Callable
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from hypvl.checks import natural_number

# What arrays may hold: booleans, integers, unsigned ones, floats, complex numbers, texts; no objects, no records.
_KINDS = "biufcUS"
_WIDEST = 1 << 20  # letters of a text in an array; NumPy 1 wraps the size of wider ones around


def plain(value: Any) -> Any:
    """The content with arrays in place of their stand-ins; containers may occur more than once."""
    seen: dict[int, Any] = {}

    def convert(item: Any) -> Any:
        if isinstance(item, _Array):
            return item.values
        if isinstance(item, _Dtype):
            return item.dtype
        if type(item) is tuple:
            return tuple(convert(part) for part in item)
        if id(item) in seen or not isinstance(item, dict | list | argparse.Namespace):
            return item
        seen[id(item)] = item
        if isinstance(item, list):
            item[:] = [convert(part) for part in item]
        else:
            mapping = item if isinstance(item, dict) else vars(item)
            for key in list(mapping):
                mapping[key] = convert(mapping[key])
        return item

    return convert(value)


class _Dtype:
    """Stands in for ``numpy.dtype``: a plain kind of number, in the byte order of the file."""

    def __init__(self, name: Any, *_: Any) -> None:
        if isinstance(name, bytes):
            name = name.decode("ascii")
        width = natural_number(name[1:]) if isinstance(name, str) and name[:1] in _KINDS else None
        if width is None or width > _WIDEST:
            raise pickle.UnpicklingError(f"an array of {name!r:.40}, which are neither numbers nor texts")
        try:
            self.dtype = np.dtype(name)
        except (TypeError, ValueError) as error:
            raise pickle.UnpicklingError(f"an array of {name!r:.40}, a type that is none") from error

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order in ("<", b"<"):
            self.dtype = self.dtype.newbyteorder("<")
        elif order in (">", b">"):
            self.dtype = self.dtype.newbyteorder(">")


class _Array:
    """Stands in for ``numpy.ndarray``; :func:`plain` puts the array itself in its place."""

    values: np.ndarray

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, by_columns, data = state
        self.values = _numbers(dtype, data).reshape(shape, order="F" if by_columns is True else "C")


def _numbers(dtype: Any, data: Any) -> np.ndarray:
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
        raise pickle.UnpicklingError(f"an array made of {type(data).__name__}, not of numbers or texts")
    return np.frombuffer(bytearray(data), dtype=dtype.dtype)


def _number(dtype: Any, data: Any) -> Any:
    """Stands in for ``numpy.core.multiarray.scalar``."""
    return _numbers(dtype, data)[0]


def _reconstruct(*_: Any) -> _Array:
    """Stands in for ``numpy.core.multiarray._reconstruct``."""
    return _Array()


def _plain_dict(*_: Any) -> dict[Any, Any]:
    """Stands in for ``collections.defaultdict``: what it holds, without its factory."""
    return {}


def _factory(*_: Any) -> None:
    """Stands in for the types that a ``defaultdict`` names as its factory."""
    raise pickle.UnpicklingError("a call of a built-in type")


def _empty(*given: Any) -> bytes:
    """Stands in for ``bytes``, which nothing but empty ones calls."""
    if given:
        _factory()
    return b""


_STAND_INS: dict[Callable[..., Any], tuple[str, ...]] = {
    _Dtype: ("numpy.dtype",),
    _Array: ("numpy.ndarray",),
    _number: ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    _reconstruct: ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
    _plain_dict: ("collections.defaultdict",),
    _factory: tuple(f"builtins.{name}" for name in ("dict", "list", "int", "float", "str", "bool", "tuple")),
    _empty: ("builtins.bytes",),
    PurePosixPath: tuple(f"pathlib.{name}" for name in (
        "PosixPath", "PurePosixPath", "_local.PosixPath", "_local.PurePosixPath",
    )),
    PureWindowsPath: tuple(f"pathlib.{name}" for name in (
        "WindowsPath", "PureWindowsPath", "_local.WindowsPath", "_local.PureWindowsPath",
    )),
}  # fmt: skip
SAFE: list[Any] = [argparse.Namespace, frozenset]
SAFE += [(function, name) for function, names in _STAND_INS.items() for name in names]
PLAIN = "tensors, numbers, texts, lists, mappings, NumPy numbers and arrays, paths and argparse.Namespace"
