"""Files of torch.save, read without running anything in them; other plain data is read beside the tensors.

torch's ``weights_only`` reader gives tensors and plain Python values. Training scripts often save other types as well:
NumPy numbers and arrays, ``argparse.Namespace``, paths and ``defaultdict``. These are built by the functions below
instead of the named ones, because NumPy's own would take types and buffers from the file unchecked.
"""

import argparse
import pickle
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch

from hypvl.checks import natural_number
from hypvl.errors import CheckpointError
from hypvl.io.archives import zip_damage

# What arrays may hold: booleans, integers, unsigned ones, floats, complex numbers, texts; no objects, no records.
_KINDS = "biufcUS"


class _Dtype:
    """Stands in for ``numpy.dtype``: a plain kind of number, in the byte order of the file."""

    def __init__(self, name: Any, *_: Any) -> None:
        if isinstance(name, bytes):
            name = name.decode("ascii")
        if not (isinstance(name, str) and name[:1] in _KINDS and natural_number(name[1:]) is not None):
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
    """Stands in for ``numpy.ndarray``; :func:`_plain` puts the array itself in its place."""

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


def _named(function: Callable[..., Any], *names: str) -> list[tuple[Callable[..., Any], str]]:
    return [(function, name) for name in names]


_SAFE: list[Any] = [
    *_named(_Dtype, "numpy.dtype"),
    *_named(_Array, "numpy.ndarray"),
    *_named(_number, "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    *_named(_reconstruct, "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
    *_named(_plain_dict, "collections.defaultdict"),
    *_named(PurePosixPath, "pathlib.PosixPath", "pathlib.PurePosixPath", "pathlib._local.PosixPath"),
    *_named(PurePosixPath, "pathlib._local.PurePosixPath"),
    *_named(PureWindowsPath, "pathlib.WindowsPath", "pathlib.PureWindowsPath", "pathlib._local.WindowsPath"),
    *_named(PureWindowsPath, "pathlib._local.PureWindowsPath"),
    argparse.Namespace,
    *_named(
        _factory, *(f"builtins.{name}" for name in ("dict", "list", "int", "float", "str", "bool", "tuple"))
    ),
    *_named(_empty, "builtins.bytes"),
    frozenset,
]
_PLAIN = "tensors, numbers, texts, lists, mappings, NumPy numbers and arrays, paths and argparse.Namespace"


def read_torch(path: Path) -> Any:
    """The content of a file of torch.save, on the CPU; nothing in it is executed.

    NumPy arrays of numbers come as arrays, a ``defaultdict`` as a dict, paths as pure ones.

    Raises:
        CheckpointError: No such file, truncated, or with other objects in it, which are named.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if not start.startswith(
        (b"PK", b"\x80")
    ):  # the archive that torch.save writes, and the pickle it once wrote
        raise CheckpointError(
            f"{path}: no checkpoint ({path.stat().st_size} bytes that start with {start!r}); "
            "expected a file written by torch.save."
        )
    if (
        start.startswith(b"PK") and (damage := zip_damage(path)) is not None
    ):  # torch.load takes changed tensors
        raise CheckpointError(
            f"{path}: truncated or damaged ({path.stat().st_size} bytes; {damage}); "
            "expected a whole file written by torch.save, copy or download it again."
        )
    try:
        with torch.serialization.safe_globals(_SAFE):
            return _plain(torch.load(path, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: a pickle with more than tensors and plain values ({_others(path) or _culprit(str(error))}); "
            f"it was refused and not executed; expected {_PLAIN}; save it anew without the rest."
        ) from error
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
    ) as error:
        if "TorchScript" in str(error):
            raise CheckpointError(
                f"{path}: a TorchScript archive, which holds code (OpenAI publishes its weights so); it was "
                "refused and not executed; expected tensors, save the state_dict of the one that open_clip makes of it."
            ) from error
        raise CheckpointError(
            f"{path}: truncated or no checkpoint ({path.stat().st_size} bytes; {_culprit(str(error))}); "
            "expected a whole file written by torch.save, copy or download it again."
        ) from error


def _plain(value: Any) -> Any:
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


def _others(path: Path) -> str:
    """The types in a file that are refused."""
    try:
        with torch.serialization.safe_globals(_SAFE):
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # noqa: BLE001  # a second look at a broken file: torch's first message is shown
        return ""
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more


def _culprit(message: str) -> str:
    """The line of torch's long message that says what is wrong."""
    _, _, telling = message.partition("WeightsUnpickler error:")
    lines = [line.strip() for line in (telling.strip() or message).splitlines() if line.strip()]
    return (lines or ["unreadable"])[0][:160]
