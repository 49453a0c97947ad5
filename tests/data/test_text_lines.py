"""Texts alone: lines of a file as samples, bad lines, workers."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from hypvl.data.loader import Loader
from hypvl.data.sample import BadSample
from hypvl.data.text_lines import TextLines
from hypvl.errors import DataError
from tests.data.helpers import Letters, text_of


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def lines(folder: Path, content: bytes) -> TextLines:
    (folder / "texts.txt").write_bytes(content)
    return TextLines(folder / "texts.txt", tokenizer=Letters())


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_every_line_is_a_sample(tmp_path: Path, end: bytes) -> None:
    data = lines(tmp_path, "ein Bär\r\n two \nthree".encode() + end)
    assert len(data) == 3
    samples = [data.sample(row, generator()) for row in range(3)]
    assert [sample["key"] for sample in samples] == [f"texts.txt/line {i}" for i in (1, 2, 3)]
    assert [text_of(sample["text"]) for sample in samples] == ["ein Bär", "two", "three"]
    assert "image" not in samples[0]


def test_lines_that_cannot_be_used_are_bad_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hypvl.data.text_lines._LONGEST", 12)
    data = lines(tmp_path, b"good\n \n\xff\xfe\n" + b"x" * 20 + b"\n")
    for row, reason in ((1, "empty text"), (2, "is not UTF-8"), (3, "has 21 bytes, more than 12")):
        with pytest.raises(BadSample, match=rf"line {row + 1}: {reason}"):
            data.sample(row, generator())


def test_a_change_of_the_file_changes_the_fingerprint(tmp_path: Path) -> None:
    first, again = lines(tmp_path, b"a\nb\n").fingerprint, lines(tmp_path, b"a\nb\n").fingerprint
    assert first == again != lines(tmp_path, b"a\nc\n").fingerprint


def test_workers_read_what_one_process_reads(tmp_path: Path) -> None:
    data = lines(tmp_path, "".join(f"text {i}\n" for i in range(40)).encode())
    data.sample(0, generator())
    assert "_bytes" not in pickle.loads(pickle.dumps(data)).__dict__
    batches = []
    for workers in (0, 1):
        loader = Loader(data, global_batch_size=8, rank=0, world_size=1, num_workers=workers, seed=0)
        with loader:
            batches.append([[text_of(row) for row in next(loader)["text"]] for _ in range(3)])
    assert batches[0] == batches[1] and len({text for batch in batches[0] for text in batch}) == 24


def test_files_without_texts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"texts\.txt: is empty; expected a text in each line"):
        lines(tmp_path, b"").prepare()
    with pytest.raises(DataError, match=r"none\.txt: cannot be read \(No such file or directory\)"):
        TextLines(tmp_path / "none.txt").prepare()
