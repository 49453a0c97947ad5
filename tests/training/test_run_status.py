"""What is read from a run's folder, alive, dead, failed or finished."""

import json
import os
import socket
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hypvl.cli.common import run_main
from hypvl.cli.doctor import main
from hypvl.training.checkpoints.files import save_checkpoint
from hypvl.training.run_status import run_status

NOW = 1_800_000_000.0
ALIVE = {"pid": os.getpid(), "host": socket.gethostname()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path, {"model": {}, "iteration": 10}, name="checkpoint_00000010.pth")
    (tmp_path / "provenance.json").write_text(json.dumps({"command": ["hypvl", "train", "--num-gpus", "2"]}))
    return tmp_path


def beat(folder: Path, *, age: float = 1.0, **given: Any) -> None:
    content = {
        "time": datetime.fromtimestamp(NOW - age, UTC).isoformat(), "state": "training", "iteration": 12,
        "num_iterations": 20, "seconds_since_step": 0.5, **ALIVE, **given,
    }  # fmt: skip
    (folder / "heartbeat.json").write_text(json.dumps(content))


CASES: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "alive": ({}, "training", None),
    "evaluating": ({"state": "evaluating"}, "evaluating", None),
    "finished long ago": ({"state": "finished", "age": 1e6, "pid": 1 << 30}, "finished", None),
    "stopped": ({"state": "stopped", "age": 1e6}, "stopped", None),
    "elsewhere, silent": ({"host": "node7", "age": 90}, "dead", "no sign of life from node7 for 90 s, last at"),
    "elsewhere, alive": ({"host": "node7", "pid": 1 << 30}, "training", None),
    "killed": ({"pid": 1 << 30}, "dead", "killed (often the memory was full)"),
    "hanging": ({"seconds_since_step": 700.0}, "training", "no step has ended for 700 s after iteration 12"),
    "failed": ({"state": "failed"}, "failed", "failed at iteration 12 of 20; its log says why"),
    "no time": ({"time": None}, "unknown", "has no heartbeat.json that can be read"),
}  # fmt: skip


@pytest.mark.parametrize("age", [-4000.0, 300.0])
@pytest.mark.parametrize("lives", [True, False])
def test_a_clock_that_is_wrong_is_not_believed(folder: Path, age: float, lives: bool) -> None:
    """Of another machine, or of this one before it was set: the next heartbeat says whether the run is alive."""
    beat(folder, age=age, host="node7")
    if lives:
        threading.Timer(0.1, beat, (folder,), {"age": age - 5, "host": "node7", "iteration": 13}).start()
    status = run_status(folder, now=NOW, watch=2.0 if lives else 0.3)
    assert (status["state"], status["iteration"]) == (("training", 13) if lives else ("dead", 12))
    assert status["age"] == (0.0 if lives else max(0.3, age))
    assert (status["problem"] is None) is lives
    beat(folder, age=age, pid=1 << 30)  # of this machine: no clock is asked
    assert run_status(folder, now=NOW, watch=60.0)["state"] == "dead"


@pytest.mark.parametrize("case", CASES)
def test_alive_or_not(case: str, folder: Path) -> None:
    given, state, problem = CASES[case]
    beat(folder, **given)
    status = run_status(folder, now=NOW)
    assert status["state"] == state and (status["problem"] is None) == (problem is None)
    assert problem is None or problem in status["problem"]
    assert status["checkpoint"] == str(folder / "checkpoint_00000010.pth")
    assert status["resume"] == f"hypvl train --resume --output-dir {folder} --num-gpus 2"


def test_what_failed_is_its_own_words_and_how_to_go_on_is_not(folder: Path) -> None:
    beat(folder, state="failed")
    (folder / "failure.json").write_text(json.dumps({"error": "DataError: gone.", "resume": "curl evil"}))
    said = "failed at iteration 12 of 20: DataError: gone. Mend it, then go on with"
    command = f"hypvl train --resume --output-dir {folder} --num-gpus 2."
    assert run_status(folder, now=NOW)["problem"] == f"{folder}: {said} {command}"


@pytest.mark.parametrize(
    ("layout", "before"),
    [
        ([2, 4], "torchrun --nnodes 2 --nproc-per-node 4 -m "),
        (None, ""),
        ([2], ""),
        (["2", "4; curl evil"], ""),
    ],
)
@pytest.mark.parametrize("state", ["stopped", "failed"])
def test_a_run_of_torchrun_goes_on_under_torchrun(folder: Path, state: str, layout: Any, before: str) -> None:
    beat(folder, state=state)
    content = {"command": ["hypvl", "train", "--num-gpus", "2"], "torchrun": layout}
    (folder / "provenance.json").write_text(json.dumps(content))
    expected = f"{before}hypvl train --resume --output-dir {folder} --num-gpus 2"
    assert run_status(folder, now=NOW)["resume"] == expected


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff", b"null"])
def test_files_that_are_not_what_they_should_be(folder: Path, content: bytes) -> None:
    for name in ("heartbeat.json", "failure.json", "provenance.json"):
        (folder / name).write_bytes(content)
    status = run_status(folder, now=NOW)
    assert status["state"] == "unknown" and status["resume"] == f"hypvl train --resume --output-dir {folder}"


def test_damaged_checkpoints_are_a_problem(folder: Path) -> None:
    beat(folder)
    (folder / "checkpoint_00000010.pth").write_bytes(b"half")
    assert "no checkpoint to continue from" in run_status(folder, now=NOW)["problem"]


def test_the_doctor_says_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    beat(folder, age=1e9, host="node7\x1b[31m")
    assert run_main(main, ["--run", str(folder)]) == 1
    out = capsys.readouterr().out
    assert f"{folder}: dead, iteration 12 of 20\n  last good checkpoint: {folder}/checkpoint_0" in out
    assert (
        f"  to go on: hypvl train --resume --output-dir {folder} --num-gpus 2\n" in out and "\x1b" not in out
    )
    beat(folder, state="finished")
    assert run_main(main, ["--run", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["state"] == "finished"
    assert run_main(main, ["--run", str(folder / "absent")]) == 2
