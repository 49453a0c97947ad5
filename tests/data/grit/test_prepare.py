"""Raw GRIT TARs become processed ones: the same bytes every time, going on where it stopped."""

import json
import shutil
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hypvl.data.grit.boxes import GritSettings
from hypvl.data.grit.mapper import GritMapper
from hypvl.data.grit.prepare import Counts, Progress, grit_shard, prepare_grit
from hypvl.data.shards import ImageTextShards
from hypvl.data.transforms import Squeeze
from hypvl.errors import DataError
from hypvl.units.engines import Engine
from hypvl.units.unit import UnwritableError
from tests.data.helpers import Letters, text_of
from tests.data.raw_grit import members, write_shard

SETTINGS = GritSettings(min_size=1)
FORKED = Engine(workers=2, start_method="fork")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Three TARs of 4 samples; in the second one sample is broken and one has no box."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for number in range(3):
        samples = [
            members(caption=f"a dog in a field of flowers, with a red ball {number}{i}") for i in range(4)
        ]
        if number == 1:
            samples[1] = members(json=b"{")
            samples[2] = members(noun_chunks=[], ref_exps=[])
        write_shard(folder / f"{number:05d}.tar", samples)
    return folder


def run(raw: Path, output: Path, **changes: Any) -> Counts:
    options: dict[str, Any] = {"settings": SETTINGS, "max_bad_fraction": 0.5}
    return prepare_grit(str(raw / "*.tar"), output, **(options | changes))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def manifest(folder: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((folder / "units" / "manifests" / f"{name}.json").read_text()))


def names(path: Path) -> list[str]:
    with tarfile.open(path) as archive:
        return archive.getnames()


def test_counts_and_layout(raw: Path, tmp_path: Path) -> None:
    counts = run(raw, tmp_path / "out")
    assert (counts.samples, counts.written, counts.boxes, counts.without_box) == (12, 10, 30, 1)
    assert counts.bad == {"broken json": 1}
    assert counts.dropped_boxes == {"the same phrase and box again": 10}
    assert counts.first_bad["00001.tar/000010001"].startswith("broken json (")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "00000.tar", "00001.tar", "00002.tar", "units",
    ]  # fmt: skip
    keys = {name.split(".")[0] for name in names(tmp_path / "out" / "00001.tar")}
    assert keys == {"000010000", "000010003"}
    record = manifest(tmp_path / "out", "00001.tar")
    assert record["settings"] == {"layout": 2, "phrases": "both", "min_size": 1, "min_score": 0.0}
    assert record["counts"]["samples"] == 4 and record["counts"]["bad"] == {"broken json": 1}


def test_training_reads_what_was_written(raw: Path, tmp_path: Path) -> None:
    run(raw, tmp_path / "out")
    shards = ImageTextShards(str(tmp_path / "out" / "*.tar"), GritMapper(), Squeeze(8), Letters())
    assert len(shards) == 10
    sample = shards.sample(9, np.random.default_rng(0))
    assert text_of(sample["text"]).endswith(" 23")
    assert text_of(sample["box_text"]) in text_of(sample["text"])
    assert sample["box_image"].shape == (3, 8, 8)


def test_the_same_bytes_for_any_number_of_processes(raw: Path, tmp_path: Path) -> None:
    progress: list[Progress] = []
    counts = run(raw, tmp_path / "one")
    assert run(raw, tmp_path / "two", engine=FORKED, progress=progress.append) == counts
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    last = progress[-1]
    assert (last.shards_done, last.shards_total) == (3, 3)
    assert last.bytes_done == last.bytes_total == sum(p.stat().st_size for p in raw.iterdir())


def test_what_is_done_stays_and_the_rest_is_done(raw: Path, tmp_path: Path) -> None:
    """A run that ends in its second TAR: the first one stays, what was half made is made anew."""
    out = tmp_path / "out"
    whole = run(raw, tmp_path / "whole")

    def interrupt(state: Progress) -> None:
        if state.shards_done == 1 and state.bytes_done > 1.2 * state.bytes_total / 3:
            assert list(out.glob("units/work/*/00001.tar"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(raw, out, progress=interrupt)
    assert sorted(p.name for p in out.iterdir()) == ["00000.tar", "units"]
    assert not list(out.glob("units/work/*")) and not list(out.glob("units/claims/*"))
    first = (out / "00000.tar").stat()
    assert run(raw, out) == whole
    assert contents(out) == contents(tmp_path / "whole")
    assert (out / "00000.tar").stat().st_mtime_ns == first.st_mtime_ns
    # a third run does nothing and says the same
    assert run(raw, out) == whole


def test_a_tar_that_was_lost_or_cut_is_made_anew(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    whole = run(raw, out)
    expected = contents(out)
    (out / "00000.tar").unlink()
    (out / "00002.tar").write_bytes(expected["00002.tar"][:700])
    assert run(raw, out) == whole
    assert contents(out) == expected


def test_one_shard_is_what_the_whole_run_makes_of_it(raw: Path, tmp_path: Path) -> None:
    run(raw, tmp_path / "whole")
    for status in ("made", "existed"):
        result = grit_shard(raw / "00001.tar", tmp_path / "out", SETTINGS, max_bad_fraction=0.5)
        assert (result.status, result.files, result.counts["written"]) == (status, ("00001.tar",), 2)
    assert contents(tmp_path / "out")["00001.tar"] == contents(tmp_path / "whole")["00001.tar"]
    (raw / "bad.tar").write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(DataError, match=r"bad\.tar"):
        grit_shard(raw / "bad.tar", tmp_path / "out", SETTINGS)


def test_a_raw_tar_that_changed_is_processed_again(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(raw, out)
    write_shard(raw / "00002.tar", [members() for _ in range(9)])
    assert run(raw, out).samples == 17
    assert len({name.split(".")[0] for name in names(out / "00002.tar")}) == 9


def test_a_folder_of_an_earlier_version_is_refused(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.jsonl").write_text('{"format": 2}\n')
    with pytest.raises(DataError, match=r"out: was made by an earlier version of hypvl \(manifest\.jsonl\)"):
        run(raw, tmp_path / "out")


def test_other_settings_are_refused(raw: Path, tmp_path: Path) -> None:
    run(raw, tmp_path / "out")
    with pytest.raises(
        DataError, match=r"out: was made with other settings \(min_size was 1, now it is 20\); name another"
    ):
        run(raw, tmp_path / "out", settings=GritSettings(min_size=20))


def test_someone_elses_tar_is_not_overwritten(raw: Path) -> None:
    before = contents(raw)
    with pytest.raises(DataError, match=r"00000\.tar: is in the way"):
        run(raw, raw)
    assert contents(raw) == before


def test_too_many_bad_samples_stop_with_the_reasons(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    write_shard(raw / "a.tar", [members(noun_chunks=None, ref_exps=None) for _ in range(3)] + [members()])
    with pytest.raises(
        DataError, match=r"3 of 4 samples \(75\.0%\) .*a\.tar/a0000: json has no noun_chunks"
    ) as error:
        run(raw, tmp_path / "out", max_bad_fraction=0.1)
    assert "max_bad_fraction=0.1" in str(error.value)
    assert run(raw, tmp_path / "out", max_bad_fraction=0.8).written == 1  # what is done counts as done


def test_a_share_is_judged_during_the_run(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    write_shard(raw / "a.tar", [members(json=b"{")] * 1000)
    shutil.copy(raw / "a.tar", raw / "b.tar")
    with pytest.raises(DataError, match="1,000 of 1,000 samples"):
        run(raw, tmp_path / "out")
    assert not (tmp_path / "out" / "b.tar").exists()


def test_a_file_that_is_no_tar_does_not_stop_the_others(raw: Path, tmp_path: Path) -> None:
    (raw / "00001.tar").write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(
        DataError, match=r"1 of 3 TAR files could not be processed, the others are done: .*00001\.tar"
    ):
        run(raw, tmp_path / "out")
    assert set(contents(tmp_path / "out")) == {"00000.tar", "00002.tar"}


def test_a_tar_that_is_cut_off_gives_what_is_whole(raw: Path, tmp_path: Path) -> None:
    data = (raw / "00000.tar").read_bytes()
    (raw / "00000.tar").write_bytes(data[: len(data) // 2])
    counts = run(raw, tmp_path / "out")
    assert counts.bad == {"broken json": 1, "lost with a part of the TAR": 1}
    assert 0 < counts.written < 10


def test_an_empty_tar_stays_empty(raw: Path, tmp_path: Path) -> None:
    write_shard(raw / "00001.tar", [])
    run(raw, tmp_path / "out")
    assert names(tmp_path / "out" / "00001.tar") == []
    assert len(ImageTextShards(str(tmp_path / "out" / "*.tar"), GritMapper(), Squeeze(8), Letters())) == 8


@pytest.mark.parametrize("engine", [None, FORKED])
def test_an_output_that_cannot_be_written_ends_the_run(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine | None
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hypvl.data.grit.prepare.add_member", full)
    with pytest.raises(UnwritableError, match=r"0000[01]\.tar: cannot be written \(.*No space left"):
        run(raw, tmp_path / "out", engine=engine)
    assert not list((tmp_path / "out").glob("*.tar"))


@pytest.mark.parametrize(
    ("tarfiles", "message"),
    [
        ("nowhere/*.tar", "matches no file"),
        ("https://example.org/0.tar", "expected a file on this machine"),
        ("pipe:cat 0.tar", "expected a file on this machine"),
    ],
)
def test_inputs_that_are_none(tarfiles: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        prepare_grit(tarfiles, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_tars_of_one_name_are_refused(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    shutil.copy(raw / "00000.tar", tmp_path / "more" / "00000.tar")
    with pytest.raises(DataError, match="has the same file name as"):
        prepare_grit([str(raw / "*.tar"), str(tmp_path / "more" / "*.tar")], tmp_path / "out")


def test_an_output_that_is_a_file_is_one_sentence(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(DataError, match=r"out.*: cannot be written"):
        run(raw, tmp_path / "out")


def test_a_damaged_manifest_is_an_error(raw: Path, tmp_path: Path) -> None:
    run(raw, tmp_path / "out")
    (tmp_path / "out" / "units" / "manifests" / "00000.tar.json").write_text("{")
    with pytest.raises(DataError, match=r"00000\.tar\.json: cannot be read \(.*\); delete it"):
        run(raw, tmp_path / "out")


def test_reasons_are_counted_without_their_details(tmp_path: Path) -> None:
    source = write_shard(tmp_path / "a.tar", [members(json=b"{"), members(json=b"[1"), members(jpg=b"no")])
    counts = Counts.from_record(grit_shard(source, tmp_path / "out", max_bad_fraction=1).counts)
    assert counts.bad == Counter({"broken json": 2, "cannot decode the image": 1})
