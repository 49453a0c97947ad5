"""Arrays in .npy files: what numpy wrote comes back, what it would execute or allocate does not."""

import io

import numpy as np
import pytest

from hypvl.io.arrays import read_npy


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.array(3.5), np.zeros((0, 3)),
        np.array(["cat", "doge"]), np.arange(3, dtype=">i2"), np.zeros(2, dtype=[("a", "f4"), ("b", "i2")]),
    ],
)  # fmt: skip
def test_arrays_come_back_and_the_next_one_follows(array: np.ndarray) -> None:
    file = io.BytesIO(npy(array) + npy(np.arange(2)))
    read = read_npy(file)
    assert read.dtype == array.dtype and np.array_equal(read, array)
    assert read_npy(file).tolist() == [0, 1] and not file.read()


def header(text: str) -> bytes:
    data = text.encode().ljust(118)[:-1] + b"\n"
    return b"\x93NUMPY\x01\x00" + len(data).to_bytes(2, "little") + data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "magic|EOF|expected"),
        (b"PK\x03\x04" + bytes(100), "magic"),
        (npy(np.array([None])), "holds objects"),
        (npy(np.arange(9))[:-1], "ends after 71 of 72 bytes"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000,), }"), "ends after 0 of 8"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }"), "shape"),
        (header(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({2**70},), }}"), "shape"),
        (header("{'descr': 'no', 'fortran_order': False, 'shape': (1,), }"), "descr|dtype"),
        (header("__import__('os').system('true')"), "(?i)header|descr|dict|malformed"),
        (header("[" * 100), "(?i)header|descr|dict|malformed"),
    ],
)  # fmt: skip
def test_what_is_no_array_of_numbers(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_npy(io.BytesIO(data))
