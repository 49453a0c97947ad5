"""Few bytes that claim or become very many: refused before memory is taken."""

import io
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hypvl.data.negatives import HardNegativeMapper
from hypvl.datasets.classification.original_files import cifar, flowers102
from hypvl.datasets.hierarchy.is_a import read_is_a
from hypvl.errors import DataError

HEAD = b"MATLAB 5.0 MAT-file".ljust(116) + bytes(8) + struct.pack("<HH", 0x0100, 0x4D49)


def element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(kind: int, shape: tuple[int, ...], rest: bytes = b"") -> bytes:
    """A variable of MATLAB of a kind (1 cell, 2 struct, 4 text, 5 sparse, 6 doubles) and of any shape."""
    sizes = element(5, struct.pack(f"<{len(shape)}i", *shape))
    return element(14, element(6, struct.pack("<II", kind, 0)) + sizes + element(1, b"tstid") + rest)


def saved(**variables: Any) -> bytes:
    from scipy.io import savemat

    out = io.BytesIO()
    savemat(out, variables)
    return out.getvalue()


def packed(data: bytes) -> bytes:
    small = zlib.compress(data, 9)
    return struct.pack("<II", 15, len(small)) + small


FLOWERS: dict[str, Callable[[], bytes]] = {
    "cells": lambda: HEAD + matrix(1, (2**28, 1)),
    "more cells": lambda: HEAD + matrix(1, (2**31 - 1, 1)),
    "structs": lambda: (
        HEAD + matrix(2, (2**30, 1), element(5, struct.pack("<i", 8)) + element(1, b"a".ljust(8, b"\0")))
    ),
    "sparse": lambda: HEAD + matrix(5, (2**31 - 1, 2**31 - 1)),
    "text": lambda: saved(tstid="abc"),
    "compressed zeros": lambda: HEAD + packed(matrix(6, (2**23, 1), element(9, bytes(2**26)))),
    "infinity": lambda: saved(tstid=[float("inf")]),
    "no number": lambda: saved(tstid=[float("nan")]),
    "an image before the first": lambda: saved(tstid=[-1]),
    "an image behind the last": lambda: saved(tstid=[4]),
    "another variable": lambda: saved(other=[1]),
}


@pytest.mark.parametrize("name", FLOWERS)
def test_matlab_files(tmp_path: Path, name: str) -> None:
    (tmp_path / "jpg").mkdir()
    (tmp_path / "setid.mat").write_bytes(FLOWERS[name]())
    (tmp_path / "imagelabels.mat").write_bytes(saved(labels=[1, 2, 3]))
    with pytest.raises(DataError, match=r"setid\.mat.*(is damaged|names images or classes beyond)"):
        flowers102(tmp_path, split="test", classes=["a"] * 102)


@pytest.mark.parametrize("label", [10, -1, 10**30, "x", None, 1.5])
def test_labels_of_cifar(tmp_path: Path, label: Any) -> None:
    content = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, label]}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content))
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"a"] * 10}))
    with pytest.raises(
        DataError, match="its labels do not belong to its 2 images; expected one for each, from 0 to 9"
    ):
        cifar(tmp_path, split="test", classes=10)


def test_names_of_cifar(tmp_path: Path) -> None:
    content = {b"data": np.zeros((1, 3072), np.uint8), b"labels": [0]}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content))
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"label_names": [3] * 10}))
    with pytest.raises(DataError, match="has no 10 label_names"):
        cifar(tmp_path, split="test", classes=10)


def test_a_hierarchy_whose_ancestors_are_the_square_of_its_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hypvl.metrics.hierarchy.MOST_ANCESTORS", 10_000)
    (tmp_path / "a.txt").write_text("".join(f"n{i} n{i + 1}\n" for i in range(200)))
    with pytest.raises(DataError, match="more than 10,000 ancestors of all nodes together"):
        read_is_a(tmp_path / "a.txt")


@pytest.mark.parametrize(
    "pattern",
    ["{image_id:2000000000d}", "{image_id:{w}}", "{image_id:>100}", "{image_id!r:999}", "{image_id:.999f}"],
)
def test_patterns_of_paths(pattern: str) -> None:
    with pytest.raises(ValueError, match="of at most 99 characters"):
        HardNegativeMapper(image_pattern=pattern)
