"""Plain data beside weights is read as plain data; nothing in a file is executed."""

import argparse
import collections
import datetime
import pickle
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch

from hypvl.errors import CheckpointError
from hypvl.models.checkpoint_io import load_checkpoint

WEIGHTS = {"scorer.log_scale": torch.ones(())}
RAN: list[str] = []


def ran(*given: Any) -> None:
    RAN.append(str(given))


class Runs:
    """A pickle that calls a function when it is read as pickles are."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (ran, ("pickle",))


class OwnClass:
    pass


def default(factory: Any) -> Any:
    made = collections.defaultdict(factory)
    made["a"] = 1
    return made


def read(path: Path, extra: Any, *, legacy: bool = False) -> Any:
    torch.save({"model": WEIGHTS, "extra": extra}, path, _use_new_zipfile_serialization=not legacy)
    return load_checkpoint(path)["extra"]


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (np.float64(2.5), 2.5), (np.float32(1.5), 1.5), (np.int64(-3), -3), (np.bool_(True), True), (np.str_("x"), "x"),
        (Path("a/b"), PurePosixPath("a/b")), (default(list), {"a": 1}), (default(int), {"a": 1}),
        (collections.OrderedDict(a=1), {"a": 1}), (collections.Counter("aab"), {"a": 2, "b": 1}), ({1, 2}, {1, 2}),
        (frozenset([1]), frozenset([1])), (1 + 2j, 1 + 2j), (b"bytes", b"bytes"),
        (argparse.Namespace(lr=np.float64(0.1), root=Path("/a")), argparse.Namespace(lr=0.1, root=PurePosixPath("/a"))),
        ({"loss": (np.float64(1.0), [np.int32(2)])}, {"loss": (1.0, [2])}),
    ],
)  # fmt: skip
def test_plain_data_is_read(tmp_path: Path, extra: Any, expected: Any, legacy: bool) -> None:
    assert read(tmp_path / "x.pth", extra, legacy=legacy) == expected


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.arange(4, dtype=">i2"),
        np.zeros((0, 3)), np.array(3.5), np.array([True, False]), np.array([1 + 2j]), np.array(["cat", "doge"]),
        np.arange(4, dtype=np.float16),
    ],
)  # fmt: skip
def test_arrays_are_read_bit_for_bit(tmp_path: Path, array: np.ndarray) -> None:
    deep = read(tmp_path / "x.pth", {"a": [array, (array, {"b": array})], "n": argparse.Namespace(c=array)})
    for result in (deep["a"][0], deep["a"][1][0], deep["a"][1][1]["b"], deep["n"].c):
        assert type(result) is np.ndarray and result.dtype == array.dtype and result.shape == array.shape
        assert np.array_equal(result, array)
    if deep["a"][0].size and deep["a"][0].dtype.kind != "U":
        deep["a"][0][...] = 0  # an array of its own, to write to


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        (OwnClass(), "tests.models.test_safe_pickle.OwnClass"),
        ([{"a": OwnClass()}], "tests.models.test_safe_pickle.OwnClass"),
        (default(OwnClass), "tests.models.test_safe_pickle.OwnClass"),
        (datetime.datetime(2020, 1, 1), "datetime.datetime"),
        (np.array([OwnClass()], dtype=object), "tests.models.test_safe_pickle.OwnClass"),
        (np.array(["a", 3], dtype=object), "an array of 'O8', which are neither numbers nor texts"),
        (np.zeros(2, dtype=[("a", "f4")]), "an array of 'V4', which are neither numbers nor texts"),
        (Runs(), "tests.models.test_safe_pickle.ran"),
        ({"a": default(list), "b": Runs()}, "tests.models.test_safe_pickle.ran"),
    ],
)
def test_everything_else_is_named_and_never_run(tmp_path: Path, extra: Any, name: str) -> None:
    with pytest.raises(
        CheckpointError, match=r"x\.pth: a pickle with more than tensors.*not executed"
    ) as caught:
        read(tmp_path / "x.pth", extra)
    assert f"({name})" in str(caught.value) and RAN == []


class Calls:
    """A pickle that reduces to a call of something that is allowed by name."""

    def __init__(self, function: Any, *given: Any) -> None:
        self.call = (function, given)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize(
    "call",
    [
        Calls(list, "abc"), Calls(int, "9"), Calls(bytes, 10), Calls(tuple, "ab"), Calls(np.dtype, "O"),
        Calls(np.dtype, "f99"), Calls(np.dtype, "i٤"), Calls(np.dtype, "U" + "9" * 5000),
        Calls(np.dtype, "U" + "9" * 18),
        Calls(np.dtype, "i4,O"), Calls(np.ndarray, (2,)), Calls(np.core.multiarray.scalar, np.dtype("f4"), b"ab"),
    ],
)  # fmt: skip
def test_allowed_names_are_stand_ins_that_make_plain_data_only(tmp_path: Path, call: Calls) -> None:
    """No built-in type is called with what a file says, no dtype is made of objects, no buffer is shorter."""
    with pytest.raises(CheckpointError, match=r"x\.pth"):
        read(tmp_path / "x.pth", call)


def test_a_plain_pickle_of_the_same_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"model": {}, "extra": Runs()}, protocol=2))
    with pytest.raises(CheckpointError, match=r"x\.pth"):
        load_checkpoint(tmp_path / "x.pth")
    assert RAN == []


def test_numbers_in_a_state_dict_are_no_reason_to_refuse_it(tmp_path: Path) -> None:
    state = {
        "scorer.log_scale": torch.ones(()),
        "epoch": 3,
        "lr": 0.1,
        "best": np.float64(2.0),
        "name": "run",
    }
    for content in (state, {"model": state}, {"state_dict": state, "epoch": 4}):
        torch.save(content, tmp_path / "x.pth")
        assert list(load_checkpoint(tmp_path / "x.pth")["model"]) == ["scorer.log_scale"]
