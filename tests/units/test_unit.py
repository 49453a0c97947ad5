"""Units: made once, whole or not at all, by one process."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hypvl.errors import ConfigError, DataError, UserError
from hypvl.units.engines import Engine, run_units, slurm_share
from hypvl.units.unit import Made, Unit, UnitFolder, UnitResult
from tests.units.clusters import ray_of_two

ROOT = Path(__file__).resolve().parents[2]


def shout(argument: Any, folder: Path, tick: Any) -> Made:
    """The text of a file in capitals; a file that says ``no`` cannot be used."""
    text = Path(argument).read_text()
    tick(len(text))
    if text == "no":
        raise DataError(f"{argument}: says no.")
    name = f"{Path(argument).stem}.out"
    (folder / name).write_text(text.upper())
    return Made([name], {"letters": len(text)})


def inputs(folder: Path, **texts: str) -> list[Unit]:
    units = []
    for name, text in texts.items():
        path = folder / f"{name}.txt"
        path.write_text(text)
        units.append(Unit(name, (str(path),), str(path)))
    return units


def go(units: list[Unit], folder: Path, *, settings: Any = None, **more: Any) -> list[UnitResult]:
    output = UnitFolder(folder, command="shout", settings=settings or {"loud": 1})
    return sorted(run_units(units, shout, folder=output, **more), key=lambda result: result.name)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_unit_is_made_once_and_its_manifest_says_from_what(tmp_path: Path) -> None:
    units = inputs(tmp_path, a="hello", b="you")
    ticks: list[int] = []
    first = go(units, tmp_path / "out", on_tick=ticks.append)
    assert first == [
        UnitResult("a", "made", ("a.out",), {"letters": 5}), UnitResult("b", "made", ("b.out",), {"letters": 3}),
    ]  # fmt: skip
    assert ticks[-1] == 8
    assert (tmp_path / "out" / "a.out").read_text() == "HELLO"
    record = json.loads((tmp_path / "out" / "units" / "manifests" / "a.json").read_text())
    status = (tmp_path / "a.txt").stat()
    assert record["inputs"] == [{"place": str(tmp_path / "a.txt"), "size": 5, "mtime_ns": status.st_mtime_ns}]
    assert record["outputs"]["a.out"]["sha256"].startswith("3733cd977ff8eb18b987357e22ced99f")  # of HELLO
    assert record["settings"] == {"loud": 1} and record["counts"] == {"letters": 5}
    before = contents(tmp_path / "out")
    assert [result.status for result in go(units, tmp_path / "out")] == ["existed", "existed"]
    assert contents(tmp_path / "out") == before
    assert not list((tmp_path / "out" / "units" / "claims").iterdir())
    assert not list((tmp_path / "out" / "units" / "work").iterdir())


def test_a_changed_input_or_a_lost_output_is_made_again(tmp_path: Path) -> None:
    units = inputs(tmp_path, a="hello", b="you")
    go(units, tmp_path / "out")
    inputs(tmp_path, a="other")
    (tmp_path / "out" / "b.out").write_text("cut")
    (tmp_path / "out" / "b.out").unlink()
    assert [result.status for result in go(units, tmp_path / "out")] == ["made", "made"]
    assert (tmp_path / "out" / "a.out").read_text() == "OTHER"
    (tmp_path / "moved").mkdir()
    (tmp_path / "a.txt").rename(tmp_path / "moved" / "a.txt")
    moved = Unit("a", (str(tmp_path / "moved" / "a.txt"),), str(tmp_path / "moved" / "a.txt"))
    assert [result.status for result in go([moved], tmp_path / "out")] == ["existed"]


def test_other_settings_are_refused(tmp_path: Path) -> None:
    units = inputs(tmp_path, a="hello")
    go(units, tmp_path / "out")
    with pytest.raises(
        DataError, match=r"out: was made with other settings \(loud was 1, now it is 2\); name"
    ):
        go(units, tmp_path / "out", settings={"loud": 2})
    own = Unit("a", units[0].inputs, units[0].argument, {"rows": 3})
    (result,) = go([own], tmp_path / "out")
    assert result.status == "failed" and "(rows was None, now it is 3)" in result.error


def test_a_failed_unit_stops_no_other_and_is_tried_again(tmp_path: Path) -> None:
    units = inputs(tmp_path, a="no", b="you")
    units.append(Unit("c", (str(tmp_path / "c.txt"),), str(tmp_path / "c.txt")))
    first, second, third = go(units, tmp_path / "out")
    assert first == UnitResult("a", "failed", error=f"{tmp_path}/a.txt: says no.")
    assert second.status == "made" and "c.txt: cannot be read (No such file" in third.error
    inputs(tmp_path, a="yes")
    assert go(units[:1], tmp_path / "out")[0].status == "made"


def test_files_that_no_unit_made_are_never_replaced(tmp_path: Path) -> None:
    units = inputs(tmp_path, a="hello")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.out").write_text("mine")
    (result,) = go(units, tmp_path / "out")
    assert "a.out: is in the way" in result.error and (tmp_path / "out" / "a.out").read_text() == "mine"


def test_names_and_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name: got 'a/b'; expected 1 to 200 characters"):
        Unit("a/b")
    with pytest.raises(DataError, match="a: two inputs have this name"):
        go([*inputs(tmp_path, a="x"), Unit("a")], tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file.*cannot be written"):
        go(inputs(tmp_path, a="x"), tmp_path / "file" / "out")
    with pytest.raises(ValueError, match="claim_minutes: got 0"):
        UnitFolder(tmp_path, command="x", settings={}, claim_minutes=0)


@pytest.mark.parametrize("shares", [1, 2, 3])
def test_shares_and_processes_give_the_same_bytes(tmp_path: Path, shares: int) -> None:
    units = inputs(tmp_path, a="hello", b="you", c="there")
    go(units, tmp_path / "one")
    for index in range(shares):
        done = go(units, tmp_path / "other", engine=Engine("slurm-array", index=index, count=shares))
        assert len(done) == len(units[index::shares])
    assert contents(tmp_path / "other") == contents(tmp_path / "one")


def test_several_processes_give_the_same_bytes(tmp_path: Path) -> None:
    units = inputs(tmp_path, a="hello", b="you", c="there", d="no")
    one = go(units, tmp_path / "one")
    assert go(units, tmp_path / "two", engine=Engine(workers=2, start_method="fork")) == one
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_the_share_of_a_slurm_task() -> None:
    base = {"SLURM_ARRAY_TASK_ID": "8", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "4"}
    assert slurm_share({**base, "SLURM_ARRAY_TASK_STEP": "2"}) == (2, 4)
    for wrong in ({}, {"SLURM_ARRAY_TASK_ID": "x", "SLURM_ARRAY_TASK_COUNT": "4"}):
        with pytest.raises(
            ConfigError, match=r"SLURM_ARRAY_TASK_ID is (not set|'x'); expected a number: start the command"
        ):
            slurm_share(wrong)
    with pytest.raises(ConfigError, match="task 8 of an array with gaps"):
        slurm_share(base)


def test_tasks_that_are_tried_again_keep_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ID", "7"), ("COUNT", "2"), ("MIN", "3"), ("STEP", "1")):  # sbatch --array=3,7
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    with pytest.raises(ConfigError, match="an array with gaps"):
        Engine("slurm-array")
    assert Engine("slurm-array", count=10).share(range(20)) == [7, 17]
    assert Engine("slurm-array", index=1).share(range(5)) == [1, 3]
    monkeypatch.delenv("SLURM_ARRAY_TASK_COUNT")
    assert Engine("slurm-array", count=10).index == 7
    with pytest.raises(ConfigError, match="SLURM_ARRAY_TASK_COUNT is not set"):
        Engine("slurm-array", index=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "slurm-array", "index": 3, "count": 3}, "--index: got 3; expected 0 to 2"),
        ({"name": "local", "index": 0, "count": 3}, "they need --engine slurm-array, not local"),
    ],
)
def test_shares_that_cannot_be(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Engine(**arguments)


def test_without_ray_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"Ray, which is not installed: pip install 'hypvl\[ray\]'"):
        go(inputs(tmp_path, a="x"), tmp_path / "out", engine=Engine("ray"))


RACE = """
import os, sys, time
from pathlib import Path
from hypvl.units.unit import Made, Unit, UnitFolder
from hypvl.units.engines import run_units

folder, log, start = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])

def make(argument, work, tick):
    with log.open("a") as file:
        file.write(f"{argument}\\n")
    time.sleep(0.002)
    (work / f"{argument}.out").write_text(str(argument))
    return Made([f"{argument}.out"])

units = [Unit(f"{i}", (), i) for i in range(30)]
time.sleep(max(0, start - time.time()))
done = list(run_units(units, make, folder=UnitFolder(folder, command="race", settings={})))
assert {one.status for one in done} <= {"made", "existed"} and len(done) == 30, done
"""


def test_racing_processes_never_make_the_same_unit(tmp_path: Path) -> None:
    log, start = tmp_path / "log", time.time() + 1.0
    racers = [
        subprocess.Popen([sys.executable, "-c", RACE, str(tmp_path / "out"), str(log), str(start)], cwd=ROOT)
        for _ in range(3)
    ]
    assert [racer.wait(60) for racer in racers] == [0, 0, 0]
    assert sorted(log.read_text().split(), key=int) == [str(i) for i in range(30)]
    assert len(list((tmp_path / "out").glob("*.out"))) == 30


KILLED = """
import os, signal, sys, time
from pathlib import Path
from hypvl.units.unit import Made, Unit, UnitFolder
from hypvl.units.engines import run_units

def make(argument, work, tick):
    (work / f"{argument}.out").write_text("half")
    if argument == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    (work / f"{argument}.out").write_text(f"whole {argument}")
    return Made([f"{argument}.out"])

units = [Unit(f"{i}", (), i) for i in range(4)]
folder = UnitFolder(Path(sys.argv[1]), command="killed", settings={})
print(sum(one.status == "made" for one in run_units(units, make, folder=folder)))
"""


def test_killed_twice_it_continues_and_the_folder_is_the_same(tmp_path: Path) -> None:
    def run(folder: Path, killed_at: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", KILLED, str(folder), str(killed_at)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    disturbed = tmp_path / "disturbed"
    assert run(disturbed, 1).returncode == -9 and run(disturbed, 2).returncode == -9
    assert sorted(path.name for path in disturbed.glob("*.out")) == ["0.out", "1.out"]
    assert run(disturbed, 9).stdout == "2\n"
    assert run(tmp_path / "whole", 9).stdout == "4\n"
    assert contents(disturbed) == contents(tmp_path / "whole")
    assert not list((disturbed / "units" / "work").iterdir())


def test_units_of_another_process_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hypvl.units.engines._POLL_SECONDS", 0.01)
    units = inputs(tmp_path, a="hello", b="you", c="there")
    output = UnitFolder(tmp_path / "out", command="shout", settings={"loud": 1})
    results = []
    with contextlib.ExitStack() as others:
        for name in ("a", "b"):
            others.enter_context(output.claims.hold(name))
        for result in run_units(units, shout, folder=output, on_tick=lambda n: others.close() if n else None):
            results.append((result.name, result.status))
    assert results == [("c", "made"), ("a", "made"), ("b", "made")]


@pytest.mark.slow
def test_ray_gives_the_same_bytes(tmp_path: Path) -> None:
    units = inputs(tmp_path, a="hello", b="you", c="there", d="no")
    one = go(units, tmp_path / "one")
    with ray_of_two():
        assert go(units, tmp_path / "two", engine=Engine("ray")) == one
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_a_cluster_that_does_not_start_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")

    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup.\nMore.")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(
        UserError, match=r"cannot be used \(The current node timed out during startup\.\); check RAY"
    ):
        go(inputs(tmp_path, a="x"), tmp_path / "out", engine=Engine("ray"))
