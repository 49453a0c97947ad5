"""The results file: several processes and any order of runs lose nothing, and each entry says where it is from."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hypvl.errors import DataError
from hypvl.evaluation.results import ResultsFile, settings_digest
from hypvl.report.tables import results_csv

ENCODING = {"_target_": "hypvl.embedding.encode.Encoding", "batch_size": 4, "num_workers": 2}
GOOD = {"status": "ok", "metrics": {"top1_accuracy": 50.0}}
BAD = {"status": "failed", "reason": "no", "metrics": {}}


def opened(folder: Path, suite: str = "a", *, version: str = "1", name: str = "results.json") -> ResultsFile:
    origin = {"hypvl": version, "started": f"2026-0{version}-01", "config": "all of it"}
    return ResultsFile(folder / name, subject={"suite": suite}, provenance=origin, as_csv=results_csv)


def held(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_entries_of_two_open_files_are_both_written(tmp_path: Path) -> None:
    one, two = opened(tmp_path), opened(tmp_path, version="2")
    one.put("x", GOOD, digest="1")
    two.put("y", BAD, digest="2")
    one.put("z", GOOD, digest="3")
    assert list(one.results()) == list(two.results()) == ["x", "y", "z"]
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert lines[1:] == ["x,ok,top1_accuracy,50.0,,,", "y,failed,,,,,", "z,ok,top1_accuracy,50.0,,,"]


def test_two_suites_open_at_once_keep_a_file_each(tmp_path: Path) -> None:
    one = opened(tmp_path, "a")
    one.put("x", GOOD, digest="1")
    two = opened(tmp_path, "b")
    assert two.moved_to == tmp_path / "results_1.json"
    one.put("y", GOOD, digest="1")  # follows its file, which has another name now
    two.put("x", BAD, digest="1")
    assert one.path == tmp_path / "results_1.json"
    assert list(held(tmp_path / "results_1.json")["results"]) == ["x", "y"]
    assert held(tmp_path / "results.json")["results"]["x"]["status"] == "failed"
    third = opened(tmp_path, "a")
    assert third.reuse("x", "1") is not None and third.path == tmp_path / "results.json"
    assert len(list(tmp_path.glob("results*.json"))) == len(list(tmp_path.glob("results*.csv"))) == 2


def test_processes_that_write_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.evaluation.test_results import GOOD, opened\n"
        "folder, who = Path(sys.argv[1]), sys.argv[2]\n"
        "file = opened(folder, 'ab'[int(who) % 2])\n"
        "for i in range(15): file.put(f'{who}.{i}', GOOD, digest='1')\n"
    )
    root = Path(__file__).resolve().parents[2]
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(who)], cwd=root) for who in range(3)
    ]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert sorted(len(held(path)["results"]) for path in tmp_path.glob("results*.json")) == [15, 30]


def test_each_entry_keeps_the_provenance_it_was_measured_with(tmp_path: Path) -> None:
    opened(tmp_path, version="1").put("x", GOOD, digest="1", settings={"ks": [1]})
    later = opened(tmp_path, version="2")
    later.put("y", GOOD, digest="1")
    content = held(tmp_path / "results.json")
    versions = {name: entry["provenance"]["hypvl"] for name, entry in content["results"].items()}
    assert versions == {"x": "1", "y": "2"}
    assert content["results"]["x"]["settings"] == {"ks": [1]}
    assert "config" not in content["results"]["x"]["provenance"]  # once is enough
    assert content["provenance"]["hypvl"] == "2"


def test_going_back_to_earlier_settings_finds_the_earlier_result(tmp_path: Path) -> None:
    file = opened(tmp_path)
    for digest, value in (("1", 10.0), ("2", 20.0)):
        file.put("x", {"status": "ok", "metrics": {"m": value}}, digest=digest)
    assert file.results()["x"]["metrics"] == {"m": 20.0}
    result = opened(tmp_path).reuse("x", "1")
    assert result is not None and result["metrics"] == {"m": 10.0}
    assert file.results()["x"]["metrics"] == {"m": 10.0}
    assert (tmp_path / "results.csv").read_text().splitlines()[1] == "x,ok,m,10.0,,,"
    again = file.reuse("x", "2")
    assert again is not None and again["metrics"] == {"m": 20.0}
    assert file.reuse("x", "3") is None and file.reuse("y", "1") is None


def test_a_failure_does_not_remove_the_ok_entry_before_it(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.put("x", GOOD, digest="1")
    file.put("x", BAD, digest="1")
    assert file.results()["x"]["status"] == "failed"  # what the last run found
    result = file.reuse("x", "1")
    assert result is not None and result["metrics"] == GOOD["metrics"]
    file.put("x", {"status": "ok", "metrics": {"top1_accuracy": 60.0}}, digest="1")  # measured again
    assert held(tmp_path / "results.json")["other_settings"] == {}


def test_a_file_of_the_first_version_stays_beside(tmp_path: Path) -> None:
    old = {"format_version": 1, "provenance": {"hypvl": "0"}, "results": {"x": GOOD}}
    (tmp_path / "results.json").write_text(json.dumps(old))
    file = opened(tmp_path)
    assert file.reuse("x", "1") is None
    assert held(tmp_path / "results_1.json") == old


@pytest.mark.parametrize("text", ["notes", "[]", '{"results": {}}', "[" * 100_000])
def test_a_file_that_is_something_else_is_left_alone(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(DataError, match="is not a results file"):
        opened(tmp_path)
    assert (tmp_path / "results.json").read_text() == text


def test_names_that_are_not_utf8_are_kept_as_they_are(tmp_path: Path) -> None:
    name = b"\xff\xe4".decode("utf-8", "surrogateescape")
    file = opened(tmp_path)
    file.put(f"set {name}", {**GOOD, "items": {"key": [name, "ä"]}}, digest="1")
    assert file.results()[f"set {name}"]["items"] == {"key": [name, "ä"]}
    assert (tmp_path / "results.csv").read_text("utf-8").splitlines()[1].startswith("set \\udcff\\udce4,ok")
    assert '"ä"' in (tmp_path / "results.json").read_text("utf-8")


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        DataError, match=r"results\.json: cannot be written \(.*\); check that folder and .*, or name"
    ):
        opened(tmp_path / "file")


def test_the_digest_leaves_out_what_changes_only_the_speed() -> None:
    base = {"_target_": "FineTune", "batch_size": 64, "encoding": ENCODING, "train": {"download": False}}
    same = {
        "_target_": "FineTune",
        "batch_size": 64,
        "encoding": {
            **ENCODING,
            "batch_size": 8,
            "num_workers": 0,
            "progress": False,
            "store": {"folder": "x"},
        },
        "train": {"download": True},
    }
    assert settings_digest(base) == settings_digest(same)


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 32},  # of training
        {"encoding": {**ENCODING, "amp": "bf16"}},
        {"encoding": {"_target_": "mine.Sampler", "batch_size": 4, "num_workers": 2}},
        {"train": {"root": "elsewhere"}},
    ],
)
def test_the_digest_has_everything_else(change: dict[str, Any]) -> None:
    base = {"batch_size": 64, "encoding": ENCODING, "train": {"root": "here"}}
    assert settings_digest(base) != settings_digest({**base, **change})
