"""Arrays of numbers in ``.npy`` files: no objects, which are pickles, and no more than the file holds."""

import math
import tokenize
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy_format

_CHUNK = 1 << 24


def read_npy(file: BinaryIO) -> np.ndarray:
    """The array of numbers or texts that begins here in a file; what follows it stays unread.

    Unlike :func:`numpy.load`, it takes no other kind of file, and allocates nothing that the file does not hold.

    Raises:
        ValueError: when it is no ``.npy`` file, holds objects, or is shorter than its header says.
    """
    try:
        version = npy_format.read_magic(file)
        if version == (1, 0):
            shape, by_columns, dtype = npy_format.read_array_header_1_0(file)
        else:
            shape, by_columns, dtype = npy_format.read_array_header_2_0(file)
    except (TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError, OverflowError) as error:
        raise ValueError(f"its header is broken ({type(error).__name__})") from error
    if dtype.hasobject:
        raise ValueError("it holds objects; expected numbers")
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or not 0 <= size < 1 << 62:
        raise ValueError(f"its header says the shape {shape}")
    data = bytearray()
    while len(data) < size and (part := file.read(min(_CHUNK, size - len(data)))):  # no more than there is
        data += part
    if len(data) < size:
        raise ValueError(f"it ends after {len(data)} of {size} bytes")
    array = np.frombuffer(data, dtype=dtype) if dtype.itemsize else np.zeros(math.prod(shape), dtype)
    return array.reshape(shape, order="F" if by_columns else "C")
