"""Published pickles become JSONL; whatever asks to run something is refused and does not run."""

import json
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hypvl.errors import DataError
from hypvl.negatives.convert import convert_negatives, read_npy_items

ITEM = {
    "image_id": 391895,
    "id": 1,
    "caption": "a man on a bike, übel",
    "relation_aug_caption": "###",
    "adj_aug_caption": "a big man on a bike",
    "noun_aug_caption": "a man on a horse",
    "verb_aug_caption": "a man under a bike",
    "valid_caption": [1, 0, 1, 1, 1],
}


def save(path: Path, items: Sequence[Any]) -> Path:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    np.save(path, array)
    return path


def with_pickle(path: Path, data: bytes, *, kind: str = "|O", shape: str = "(1,)") -> Path:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data)
    return path


def test_items_come_out_as_they_went_in(tmp_path: Path) -> None:
    items = [ITEM, {**ITEM, "caption": "b"}]
    assert read_npy_items(save(tmp_path / "a.npy", items)) == items
    np.save(tmp_path / "list.npy", np.array(items))  # numpy makes the same array of a list of dicts
    assert read_npy_items(tmp_path / "list.npy") == items
    nested = np.empty((), dtype=object)
    nested[()] = items
    np.save(tmp_path / "nested.npy", nested)
    assert read_npy_items(tmp_path / "nested.npy") == items


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_and_numpy_numbers(tmp_path: Path, protocol: int) -> None:
    flags = np.array([1, 0, 1, 1, 300], dtype=">i2")
    item = {**ITEM, "image_id": np.int64(-7), "weight": np.float32(0.5), "good": np.bool_(True)}
    array = np.empty(1, dtype=object)
    array[0] = {**item, "valid_caption": flags}
    path = with_pickle(tmp_path / "a.npy", pickle.dumps(array, protocol=protocol))
    convert_negatives([path], tmp_path / "a.jsonl")
    row = json.loads((tmp_path / "a.jsonl").read_text(encoding="utf-8"))
    assert row["image_id"] == -7 and row["weight"] == 0.5 and row["good"] is True
    assert row["caption"] == ITEM["caption"] and row["valid_caption"] == [1, 0, 1, 1, 300]


class Runs:
    """Calls ``target(*args)`` when it is unpickled."""

    def __init__(self, target: Any, *args: Any) -> None:
        self.call = (target, args)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("name", ["posix.system", "builtins.eval", "builtins.exec", "os.mkdir", "numpy.load"])
def test_hostile_files_do_not_run(tmp_path: Path, name: str) -> None:
    mark = tmp_path / "was_here"
    hostile = {
        "posix.system": Runs(os.system, f"touch {mark}"),
        "builtins.eval": Runs(eval, f"open({str(mark)!r}, 'w')"),
        "builtins.exec": Runs(exec, f"open({str(mark)!r}, 'w')"),
        "os.mkdir": Runs(os.mkdir, str(mark)),
        "numpy.load": Runs(np.load, str(mark)),
    }[name]
    path = save(tmp_path / "bad.npy", [ITEM, {**ITEM, "caption": hostile}])
    output = tmp_path / "out.jsonl"
    module = "posix" if name == "os.mkdir" else name.rpartition(".")[0]
    with pytest.raises(DataError, match=rf"bad.npy: refused, because it asks to load {module}\.") as error:
        convert_negatives([save(tmp_path / "good.npy", [ITEM]), path], output)
    assert str(error.value).count("\n") == 0
    assert not mark.exists()
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".npy"] == []  # no half-written output either
    if name == "os.mkdir":  # the same file does run where pickles are trusted
        np.load(path, allow_pickle=True)
        assert mark.exists()


# Opcodes by hand: GLOBAL c, REDUCE R, BUILD b, TUPLE t, MARK (, STOP ., NEWOBJ \\x81, INST i.
@pytest.mark.parametrize(("code", "words"), [
    (b"cos\nsystem\n(S'true'\ntR.", "asks to load os.system"),
    (b"(S'true'\nios\nsystem\n.", "asks to load os.system"),
    (b"cnumpy\nload\n.", "asks to load numpy.load"),
    (b"cnumpy.core.multiarray\nfromstring\n.", "asks to load numpy.core.multiarray.fromstring"),
    (b"c_codecs\ndecode\n.", "asks to load _codecs.decode"),
    (b"cnumpy\nndarray.__class__\n.", "asks to load numpy.ndarray.__class__"),
    (b"cnumpy\nndarray\n)R.", "numpy.ndarray called"),
    (b"cnumpy\nndarray\n)\x81.", "NEWOBJ"),
    (b"cnumpy\nndarray\n.", "numpy.ndarray used as data"),
    (b"cnumpy\nndarray\n}S'a'\nI1\nsb.", "numpy.ndarray given a state"),
    (b"cnumpy.core.multiarray\n_reconstruct\n(S'os'\ntR.", "something else than an array type"),
    (b"cnumpy.core.multiarray\n_reconstruct\n(NN}S'__call__'\nI1\nstb.", "_reconstruct given a state"),
    (b"cnumpy.core.numeric\n_frombuffer\n(S'x'\ntR.", "missing 3 required positional arguments"),
    (b"c_codecs\nencode\n(S'x'\nS'zip'\ntR.", "something else than a text and 'latin1'"),
    (b"Pid\n.", "persistent"),
    (b"\x82\x01.", "extension"),
    (b"(lp0\ng0\na.", "recursion"),
    (b"", "Ran out of input"),
    (b"\x80\x04]", "whole pickle"),
])  # fmt: skip
def test_forged_pickles_are_one_sentence(tmp_path: Path, code: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words) as error:
        read_npy_items(with_pickle(tmp_path / "a.npy", code))
    assert "\n" not in str(error.value)


def test_small_file_of_many_values_is_refused(tmp_path: Path) -> None:
    """Lists of ten times the same list, nested: 10^12 values in under 200 bytes."""
    value: Any = "a"
    for _ in range(12):
        value = [value] * 10
    with pytest.raises(DataError, match="repeats the same values over and over"):
        read_npy_items(with_pickle(tmp_path / "a.npy", pickle.dumps(value)))


def test_arrays_whose_state_lies_are_refused(tmp_path: Path) -> None:
    """An object array that says it holds bytes would be read as pointers by numpy."""
    array = np.empty(1, dtype=object)
    reduced: Any = array.__reduce__()
    rebuild, arguments, state = reduced

    class Forged:
        def __init__(self, *change: Any) -> None:
            self.state = tuple(
                new if new is not None else old for new, old in zip(change, state, strict=True)
            )

        def __reduce__(self) -> Any:
            return rebuild, arguments, self.state

    for change, words in (
        ((None, None, None, None, b"\x01" * 8), "with other contents"),
        ((None, (9,), None, None, None), "with other contents"),
        ((None, (-1,), None, None, None), "of shape"),
        ((None, None, np.dtype("i8"), None, [1]), "expected bytes of numbers"),
        ((None, None, np.dtype("M8[s]"), None, b"\x01" * 8), "expected bytes of numbers"),
        ((None, (1, 1), None, True, [{}]), "Fortran order"),
    ):
        with pytest.raises(DataError, match=words):
            read_npy_items(with_pickle(tmp_path / "a.npy", pickle.dumps(Forged(*change), protocol=4)))


def test_other_files_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "numbers.npy", np.zeros(3))
    (tmp_path / "text.npy").write_text("caption")
    (tmp_path / "header.npy").write_bytes(b"\x93NUMPY\x01\x00\x04\x00abcd")
    (tmp_path / "long.npy").write_bytes(b"\x93NUMPY\x02\x00\xff\xff\xff\x7f")
    for name, words in (
        ("numbers.npy", "is an array of type '<f8'; expected one of objects"),
        ("text.npy", r"is not a \.npy file"),
        ("header.npy", r"broken \.npy header"),
        ("long.npy", "header of 2,147,483,647 bytes"),
        ("absent.npy", "cannot be read"),
    ):
        with pytest.raises(DataError, match=words):
            read_npy_items(tmp_path / name)


def test_conversion_joins_files_in_order(tmp_path: Path) -> None:
    paths = [
        save(tmp_path / f"{i}.npy", [{**ITEM, "id": 2 * i}, {**ITEM, "id": 2 * i + 1}]) for i in range(2)
    ]
    calls: list[tuple[str, int]] = []
    output = tmp_path / "new" / "all.jsonl"
    assert convert_negatives(paths, output, progress=lambda path, n: calls.append((path.name, n))) == 4
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == [0, 1, 2, 3]
    assert {**rows[0], "id": 1} == ITEM
    assert calls == [("0.npy", 2), ("1.npy", 4)]
    assert "übel" in output.read_text(encoding="utf-8")


@pytest.mark.parametrize(("items", "words"), [
    ([ITEM, "text"], "item 1 is not a dict with a caption"),
    ([{**ITEM, "caption": None}], "item 0 is not a dict with a caption"),
    ([{"caption": "a", "other": 1}], "item 0 has none of relation_aug_caption, .* only caption, other"),
    ([{**ITEM, "extra": b"bytes"}], "item 0 cannot be written as JSON"),
    ([{**ITEM, "extra": float("nan")}], "item 0 cannot be written as JSON"),
])  # fmt: skip
def test_wrong_items_are_named(tmp_path: Path, items: list[Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        convert_negatives([save(tmp_path / "a.npy", items)], tmp_path / "out.jsonl")
    with pytest.raises(DataError, match="inputs: got no file"):
        convert_negatives([], tmp_path / "out.jsonl")
