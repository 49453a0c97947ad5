"""`hypvl chaos`: runs that are killed at every moment end as undisturbed ones, and what differs is said."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from hypvl.cli.chaos import _differences, main
from hypvl.cli.common import run_main
from hypvl.cli.killed_runs import Run, plans


def test_kills_are_of_every_moment_and_half_of_them_of_one_rank() -> None:
    planned = plans(12, ranks=3, seed=1)
    assert Counter(moment for moment, _ in planned) == {"start": 4, "step": 4, "write": 4}
    assert sorted(len(ranks) for _, ranks in planned) == [1] * 6 + [3] * 6
    assert planned == plans(12, ranks=3, seed=1) != plans(12, ranks=3, seed=2)
    assert {ranks for _, ranks in plans(12, ranks=1, seed=0)} == {(0,)}


def test_a_folder_with_something_in_it_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").touch()
    assert run_main(main, ["--output-dir", str(tmp_path)]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert run_main(main, ["--kills", "0"]) == 2
    assert "--kills: got 0" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "kills", "more"), [(1, 6, []), (2, 6, []), (2, 4, ["train.parallel=fsdp"])]
)
def test_killed_runs_end_as_undisturbed_ones(
    ranks: int, kills: int, more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "chaos"
    argv = ["--kills", str(kills), "--ranks", str(ranks), "--output-dir", str(folder), "--json", *more]
    assert run_main(main, argv) == 0, (folder / "log.txt").read_text()
    report = json.loads(capsys.readouterr().out)
    assert report["equal"] and report["differences"] == {"checkpoint": [], "records": [], "files": []}
    assert len(report["kills"]) >= kills - 1 and report["starts"] == len(report["kills"]) + 1
    assert report["by_moment"]["write"]["kills"] >= 1  # a kill at a step may hit a write, too
    assert not list((folder / "killed").glob(".*.part"))

    # What is not equal is found, and said.
    path = folder / "killed" / "checkpoint_final.pth"
    state = torch.load(path, weights_only=True)
    state["optimizer"]["state"][0]["exp_avg"].view(-1)[0] += 1e-6
    torch.save(state, path)
    metrics = folder / "killed" / "metrics.jsonl"
    metrics.write_bytes(b"".join(metrics.read_bytes().splitlines(keepends=True)[:-1]))
    (folder / "killed" / ".metrics.jsonl.7.part").touch()
    runs = [Run(None, folder / name, ranks=1, log=folder / "log.txt") for name in ("undisturbed", "killed")]  # type: ignore[arg-type]
    assert _differences(*runs) == {
        "checkpoint": ["optimizer.state.0.exp_avg"],
        "records": ["records"],
        "files": [".metrics.jsonl.7.part"],
    }
