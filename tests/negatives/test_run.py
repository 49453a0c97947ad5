"""The whole job: parallel = serial, resumed = uninterrupted, and what stands in its way."""

import dataclasses
import fcntl
import json
from pathlib import Path

import numpy as np
import pytest

from hypvl.data.negatives import HardNegativeMapper
from hypvl.errors import DataError, UserError
from hypvl.negatives import run
from hypvl.negatives.backends.base import BuiltinArguments
from hypvl.negatives.entries import SourceArguments
from hypvl.negatives.generate import Settings
from hypvl.negatives.run import Result, make_hard_negatives
from tests.negatives.fakes import Refusing

CAPTIONS = [
    f"A {color} {animal} {verb} on a {place}."
    for color in ("red", "black", "white")
    for animal in ("dog", "cat", "horse", "zorb")
    for verb in ("sitting", "standing")
    for place in ("bed", "table")
]


@pytest.fixture
def source(tmp_path: Path) -> SourceArguments:
    path = tmp_path / "captions.jsonl"
    lines = [{"image": f"{i}.jpg", "caption": caption} for i, caption in enumerate(CAPTIONS)]
    path.write_text("\n".join(map(json.dumps, lines)))
    return SourceArguments((str(path),))


def make(source: SourceArguments, output: Path, **changes) -> Result:
    settings = {"backend": BuiltinArguments(), "settings": Settings(), "part_size": 7, **changes}
    return make_hard_negatives(source, output, **settings)


def test_lines_in_order_and_counts_that_add_up(source, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    result = make(source, tmp_path / "out.jsonl", progress=lambda done, total: calls.append((done, total)))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["caption"] for line in lines] == CAPTIONS
    assert [line["image"] for line in lines] == [f"{i}.jpg" for i in range(48)]
    assert calls[0] == (7, 47) and calls[-1] == (48, 48)  # the last line has no line end, so about 47
    counts = result.counts
    assert result.written and counts.captions == 48
    for i, kind in enumerate(("relation", "attribute", "object", "action")):
        valid = sum(line["valid_caption"][i + 1] for line in lines)
        assert counts.made[kind] == valid
        assert valid + sum(counts.refused[kind].values()) == 48
    summary = json.loads((tmp_path / "out.jsonl.summary.json").read_text())
    assert summary["types"]["attribute"]["valid"] == counts.made["attribute"] == 48
    assert summary["plan"]["seed"] == 0 and summary["plan"]["backend"] == "builtin"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "captions.jsonl", "out.jsonl", "out.jsonl.summary.json",
    ]  # fmt: skip


@pytest.mark.slow
def test_parallel_is_serial(source, tmp_path: Path) -> None:
    make(source, tmp_path / "serial.jsonl")
    make(source, tmp_path / "parallel.jsonl", num_workers=2)
    assert (tmp_path / "parallel.jsonl").read_bytes() == (tmp_path / "serial.jsonl").read_bytes()
    summaries = [(tmp_path / f"{name}.jsonl.summary.json").read_bytes() for name in ("serial", "parallel")]
    assert summaries[0] == summaries[1]


def test_part_size_does_not_matter_for_the_lists(source, tmp_path: Path) -> None:
    make(source, tmp_path / "a.jsonl", part_size=1)
    make(source, tmp_path / "b.jsonl", part_size=1000)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


@pytest.mark.parametrize("after", [0, 1, 3, 6])
def test_resumed_is_uninterrupted(
    source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    make(source, whole)
    original, calls = run.make_negatives, []

    def stops(*args):
        calls.append(args)
        if len(calls) > after:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(run, "make_negatives", stops)
    with pytest.raises(KeyboardInterrupt):
        make(source, broken)
    assert not broken.exists()
    parts = tmp_path / "broken.jsonl.parts"
    assert len(list(parts.glob("part-*.jsonl"))) == after
    (parts / ".part-000006.jsonl.1234.part").write_text("half a line")  # what a crash while writing leaves

    monkeypatch.setattr(run, "make_negatives", lambda *args: calls.append("again") or original(*args))
    make(source, broken)
    assert calls.count("again") == 7 - after
    assert broken.read_bytes() == whole.read_bytes()
    kept = (tmp_path / "broken.jsonl.summary.json").read_bytes()
    assert kept == (tmp_path / "whole.jsonl.summary.json").read_bytes()


def test_a_part_without_its_counts_is_made_again(
    source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.jsonl"
    parts = tmp_path / "out.jsonl.parts"
    monkeypatch.setattr(run.PartsWriter, "finish", lambda *_: pytest.fail("stop here"))
    with pytest.raises(pytest.fail.Exception):
        make(source, output)
    monkeypatch.undo()
    (parts / "part-000002.json").unlink()
    (parts / "part-000002.jsonl").write_text("garbage")
    make(source, output)
    make(source, tmp_path / "whole.jsonl")
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_second_call_does_nothing(source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make(source, tmp_path / "out.jsonl")
    monkeypatch.setattr(run, "make_negatives", lambda *_: pytest.fail("was made again"))
    again = make(source, tmp_path / "out.jsonl")
    assert not again.written and again.counts.to_json() == first.counts.to_json()


def test_other_settings_are_refused_or_replace(source, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    make(source, output)
    before = output.read_bytes()
    with pytest.raises(DataError, match=r"seed was 0, now it is 1.*--overwrite"):
        make(source, output, settings=Settings(seed=1))
    assert output.read_bytes() == before
    make(source, output, settings=Settings(seed=1), overwrite=True)
    assert output.read_bytes() != before
    (tmp_path / "out.jsonl.summary.json").unlink()
    with pytest.raises(DataError, match="nothing says how it was made"):
        make(source, output)


def test_other_captions_are_named_by_their_files(source, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    make(source, output)
    (old,) = source.places
    other = tmp_path / "other.csv"
    other.write_text("image,caption\n1.jpg,a red dog\n")
    with pytest.raises(
        DataError, match=rf"\(captions were of {old}, now they are of {other}\); name another"
    ):
        make(dataclasses.replace(source, places=(str(other),)), output)
    Path(old).write_text("image,caption\n1.jpg,a red dog on a bed\n")
    with pytest.raises(DataError, match=rf"\(the captions of {old}, or how they are read, have changed\)"):
        make(source, output)
    summary = tmp_path / "out.jsonl.summary.json"  # of an earlier version
    content = json.loads(summary.read_text())
    del content["plan"]["files"]
    summary.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"\(the captions of {other}, or how they are read, have changed\)"):
        make(dataclasses.replace(source, places=(str(other),)), output)


def test_unfinished_output_of_other_settings(source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out.jsonl"
    monkeypatch.setattr(run.PartsWriter, "finish", lambda *_: pytest.fail("stop here"))
    with pytest.raises(pytest.fail.Exception):
        make(source, output)
    monkeypatch.undo()
    with pytest.raises(DataError, match="was begun with other settings"):
        make(source, output, settings=Settings(seed=5))
    make(source, output, settings=Settings(seed=5), overwrite=True)
    make(source, tmp_path / "whole.jsonl", settings=Settings(seed=5))
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_two_runs_at_once(source, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.parts").mkdir()
    with (tmp_path / "out.jsonl.parts" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another run is writing it"):
            make(source, tmp_path / "out.jsonl")


def test_files_of_others_stay(source, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.parts").mkdir()
    (tmp_path / "out.jsonl.parts" / "mine.txt").write_text("mine")
    make(source, tmp_path / "out.jsonl")
    assert [path.name for path in (tmp_path / "out.jsonl.parts").iterdir()] == ["mine.txt"]


def test_nothing_to_read_and_nowhere_to_write(source, tmp_path: Path) -> None:
    empty = tmp_path / "empty.csv"
    empty.write_text("image,caption\na,\n")
    with pytest.raises(DataError, match=r"has no captions \(1 x no caption\)"):
        make(SourceArguments((str(empty),)), tmp_path / "out.jsonl")
    empty.write_text("image,words\na,b\n")
    with pytest.raises(DataError, match=r"has no column .* set --caption-column"):
        make(SourceArguments((str(empty),)), tmp_path / "out.jsonl")
    assert not list(tmp_path.glob("out*"))  # nothing that the next run would take for a beginning
    with pytest.raises(DataError, match="is a folder; name a file"):
        make(source, tmp_path)
    with pytest.raises(DataError, match="cannot be written"):
        make(source, empty / "out.jsonl")
    with pytest.raises(ValueError, match="part_size: got 0"):
        make(source, tmp_path / "out.jsonl", part_size=0)


@pytest.mark.slow  # two pools of processes
def test_errors_of_workers_arrive(source, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model; get one"):
        make(source, tmp_path / "out.jsonl", backend=Refusing("raises"), num_workers=1)
    with pytest.raises(DataError, match=r"a worker process has died \(exit code 9\); its own"):
        make(source, tmp_path / "out2.jsonl", backend=Refusing("dies"), num_workers=1)


def test_the_reader_of_training_reads_the_lines(source, tmp_path: Path) -> None:
    make(source, tmp_path / "out.jsonl")
    mapper = HardNegativeMapper()
    for line in (tmp_path / "out.jsonl").read_text().splitlines():
        row = json.loads(line)
        fields = mapper("key", row, np.random.default_rng(0))
        assert fields["image"] == row["image"] and fields["caption"] == row["caption"]
        assert fields["negative_mask"].int().tolist() == row["valid_caption"][1:]
        assert fields["negative_text"][1] == row["adj_aug_caption"]
        row.pop("negatives")  # the published fields alone say the same
        again = mapper("key", row, np.random.default_rng(0))
        assert again["negative_text"] == fields["negative_text"]
    relation_only = HardNegativeMapper(types=["relation"])("key", json.loads(line), np.random.default_rng(0))
    assert len(relation_only["negative_text"]) == 1
