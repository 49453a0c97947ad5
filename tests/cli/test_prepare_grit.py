"""The command that cuts the boxes of raw GRIT shards out."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hypvl.cli.common import run_main
from hypvl.cli.prepare_grit import main, summary
from hypvl.data.grit.prepare import Counts
from tests.data.raw_grit import image, members, write_shard

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    for number in range(2):
        write_shard(tmp_path / "raw" / f"{number:05d}.tar", [members() for _ in range(3)])
    return tmp_path / "raw"


def flags(raw: Path, output: Path, *more: str) -> list[str]:
    return ["--tarfiles", f"{raw}/*.tar", "--output-dir", str(output), "--num-workers", "0", *more]


def test_the_summary_counts_samples_and_boxes(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(flags(raw, out)) == 0
    assert capsys.readouterr().out == (
        "6 of 6 samples written with 18 boxes; 6 boxes left out (the same phrase and box again: 6); "
        f"counts per TAR in {out / 'units'}\n"
    )
    assert main(flags(raw, out, "--quiet")) == 0
    assert capsys.readouterr().out == ""


def test_flags_reach_the_settings(raw: Path, tmp_path: Path) -> None:
    more = ["--phrases", "noun_chunks", "--min-size", "30", "--min-score", "0.8"]
    assert main(flags(raw, tmp_path / "out", *more)) == 0
    head = json.loads((tmp_path / "out" / "units" / "settings.json").read_text())
    assert head["settings"] == {"layout": 2, "phrases": "noun_chunks", "min_size": 30, "min_score": 0.8}


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--num-workers", "-1"], 2, "--workers: got -1"),
        (["--engine", "slurm-array", "--index", "2", "--count", "2"], 2, "--index: got 2; expected 0 to 1"),
        (["--min-size", "0"], 2, "--min-size: got 0"),
        (["--max-bad-fraction", "7"], 2, "--max-bad-fraction: got 7"),
        (["--tarfiles", "nowhere.tar"], 1, "nowhere.tar: no such file"),
    ],
)
def test_errors_are_one_sentence(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], code: int, message: str
) -> None:
    assert run_main(main, flags(raw, tmp_path / "out", *more)) == code
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {message}")
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_summary_names_every_reason() -> None:
    counts = Counts(samples=2000, written=1500, boxes=3000, without_box=400)
    counts.bad.update({"missing image": 60, "broken json": 40})
    assert summary(counts) == (
        "1,500 of 2,000 samples written with 3,000 boxes; 400 without a box left; 100 bad samples (missing image: "
        "60, broken json: 40)"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_ended_from_outside_it_goes_on_afterwards(raw: Path, tmp_path: Path, name: str) -> None:
    """Ctrl-C: the workers end and nothing half made stays. Killed: the workers see it and end as well."""
    large = members(jpg=image(1200, 900))
    for number in range(4):
        write_shard(raw / f"{number:05d}.tar", [large] * 20)
    out = tmp_path / "out"
    command = [sys.executable, str(ROOT / "scripts" / "prepare_grit.py"), *flags(raw, out)]
    command[-1] = "2"
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
    )
    deadline = time.monotonic() + 30
    while len(list(out.glob("units/work/*/*.tar"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.Signals[name])
    _, errors = process.communicate(timeout=20)
    if name == "SIGINT":
        assert process.returncode == 130
        assert errors == "interrupted\n"
        assert not list(out.glob("units/work/*/*.tar"))
    assert len(children) >= 2
    while any(alive(int(pid)) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(int(pid)) for pid in children)
    assert len(list(out.glob("*.tar"))) < 4
    assert main(flags(raw, out, "--quiet")) == 0
    assert len(list(out.glob("*.tar"))) == 4


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "zombie" not in Path(f"/proc/{pid}/status").read_text()
