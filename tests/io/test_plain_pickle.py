"""Pickles of plain data: what data sets hold comes out; tests/negatives/test_convert.py has forged ones."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hypvl.io.plain_pickle import load_plain


def through(tmp_path: Path, value: Any, **settings: Any) -> Any:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(value, protocol=settings.pop("protocol", 4)))
    with path.open("rb") as file:
        return load_plain(path, file, **settings)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_numbers_keep_shape_order_and_type(tmp_path: Path, protocol: int, order: Any) -> None:
    array = np.asarray(np.arange(6, dtype=">u2").reshape(2, 3), order=order)
    read = through(tmp_path, {"data": array, "pair": (1, "a")}, protocol=protocol)
    np.testing.assert_array_equal(read["data"], array)
    assert read["data"].dtype.itemsize == 2 and read["pair"] == [1, "a"]


def test_texts_of_python_2_as_bytes() -> None:
    """As CIFAR was written: str is bytes, also in names of types."""
    forged = (
        b"\x80\x02}q\x00U\x04dataq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85"
        b"U\x01b\x87R(K\x01K\x01K\x02\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff"
        b"\xff\xff\xffK\x00tb\x89U\x02\x07\x08tbs."
    )
    path = Path(__file__)  # its size bounds the number of values
    read = load_plain(path, io.BytesIO(forged), encoding="bytes")
    assert read[b"data"].tolist() == [[7, 8]]
