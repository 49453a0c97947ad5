"""Arrays of numbers out of MATLAB files of version 5. scipy's reader of them crashes on damaged files.

Source: MathWorks, *MAT-File Format* (version 5).
"""

import math
import struct
import zlib
from collections.abc import Iterator

import numpy as np

_HEADER = 128
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_TYPES = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
_NUMERIC = range(6, 16)  # classes of arrays: double, single, integers
_COMPLEX = 0x0800


def matlab_numbers(data: bytes, name: str, *, max_numbers: int) -> np.ndarray:
    """The numbers of a variable in the content of a file, (N,), column by column.

    Args:
        data: The content.
        name: Of the variable.
        max_numbers: More are refused before they are unpacked.

    Raises:
        ValueError: when it is no such file, is damaged, has no such variable, or one that is no real array of numbers.
    """
    if len(data) < _HEADER or data[126:128] not in (b"IM", b"MI"):
        raise ValueError("it is no MATLAB file of version 5")
    order = "<" if data[126:128] == b"IM" else ">"
    most = 8 * max_numbers + 1024  # bytes of an array and what is said about it
    try:
        for kind, content in _elements(data[_HEADER:], order):
            if kind == _COMPRESSED:
                unpacker = zlib.decompressobj()
                content = unpacker.decompress(content, most)
                if unpacker.unconsumed_tail:
                    continue  # too large to be the variable
                (kind, content), *_ = _elements(content, order)
            if kind == _MATRIX and (numbers := _array(content, order, name)) is not None:
                if len(numbers) > max_numbers:
                    raise ValueError(f"{name} has {len(numbers)} numbers, expected at most {max_numbers}")
                return numbers
    except (struct.error, zlib.error) as error:
        raise ValueError(str(error)) from error
    raise ValueError(f"it has no variable {name} of at most {max_numbers} numbers")


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, content) of each data element."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:  # a small one: its size and type share four bytes
            size, kind, start, after = kind >> 16, kind & 0xFFFF, at + 4, at + 8
        else:
            start = at + 8
            after = start + size + (0 if kind == _COMPRESSED else -size % 8)
        if start + size > len(data) or (after == at + 8 and size > 4 and start == at + 4):
            raise ValueError(f"an element of {size} bytes reaches behind its end")
        yield kind, data[start : start + size]
        at = after


def _array(content: bytes, order: str, wanted: str) -> np.ndarray | None:
    """The numbers of an array; None for one of another name."""
    parts = list(_elements(content, order))
    kinds = [kind for kind, _ in parts[:3]]
    if kinds != [_UINT32, _INT32, _INT8] or len(parts[0][1]) != 8 or len(parts[1][1]) % 4:
        raise ValueError("an array does not begin with its class, shape and name")
    if parts[2][1].decode("latin-1") != wanted:
        return None
    (flags,) = struct.unpack_from(f"{order}I", parts[0][1])
    shape = np.frombuffer(parts[1][1], dtype=f"{order}i4").tolist()
    if flags & 0xFF not in _NUMERIC or flags & _COMPLEX or len(parts) != 4 or parts[3][0] not in _TYPES:
        raise ValueError(f"{wanted} is no array of real numbers")
    kind, values = parts[3]
    dtype = np.dtype(order + _TYPES[kind])
    if min(shape, default=-1) < 0 or math.prod(shape) * dtype.itemsize != len(values):
        raise ValueError(f"{wanted} has {len(values)} bytes for an array of shape {shape}")
    return np.frombuffer(values, dtype=dtype)
