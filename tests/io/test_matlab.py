"""Arrays of numbers out of MATLAB's files: those of scipy's writer, and nothing but an error out of damaged ones."""

import contextlib
import io
import random
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from hypvl.io.matlab import matlab_numbers


def saved(*, do_compression: bool = False, **variables: Any) -> bytes:
    out = io.BytesIO()
    savemat(out, variables, do_compression=do_compression)
    return out.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_numbers_are_those_that_were_written(kind: str, compressed: bool) -> None:
    values = np.array([0, 1, 2, 100, 127], dtype=kind)
    content = saved(other="text", first=values[:2], a=values, do_compression=compressed)
    assert matlab_numbers(content, "a", max_numbers=5).tolist() == values.tolist()
    assert matlab_numbers(content, "first", max_numbers=5).tolist() == [
        0,
        1,
    ]  # few bytes are written another way
    table = saved(t=values[:4].reshape(2, 2), do_compression=compressed)
    assert matlab_numbers(table, "t", max_numbers=5).tolist() == values[[0, 2, 1, 3]].tolist()  # by columns


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no MATLAB file of version 5"),
        (saved(b=[1]), "has no variable a"),
        (saved(a="x"), "a is no array of real numbers"),
        (saved(a={"b": 1}), "a is no array of real numbers"),
        (saved(a=[1j]), "a is no array of real numbers"),
        (saved(a=np.arange(6)), "a has 6 numbers, expected at most 5"),
        (saved(a=np.zeros(10**6), do_compression=True), "has no variable a of at most 5 numbers"),
        (saved(a=[1])[:-8], "reaches behind its end"),
    ],
)
def test_what_is_no_such_variable(content: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        matlab_numbers(content, "a", max_numbers=5)


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_files_give_numbers_or_an_error(compressed: bool) -> None:
    whole = saved(b=np.arange(9), a=np.arange(100.0), do_compression=compressed)
    generator = random.Random(0)
    for _ in range(3000):
        damaged = bytearray(whole[: generator.randrange(len(whole))] if generator.random() < 0.2 else whole)
        for _ in range(generator.randrange(1, 6)):
            if damaged:
                damaged[generator.randrange(len(damaged))] = generator.choice(
                    [0, 1, 14, 15, 127, 255, generator.randrange(256)]
                )
        with contextlib.suppress(ValueError):
            assert len(matlab_numbers(bytes(damaged), "a", max_numbers=200)) <= 200
