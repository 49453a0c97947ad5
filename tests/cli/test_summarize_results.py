"""`scripts/summarize_results.py` as it is typed."""

import json
from pathlib import Path

import pytest

from hypvl.cli.common import run_main
from hypvl.cli.summarize_results import main
from tests.report.test_summary import MISSING, content, ok


def write(path: Path, **results: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    named = {name.replace("__", "/"): entry for name, entry in results.items()}
    path.write_text(json.dumps(content(named, checkpoint=f"{path.parent.name}.pth", sha=path.parent.name)))


def test_table_and_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "one" / "results.json", mnist=ok(80.0), dtd=MISSING)
    write(tmp_path / "two" / "results.json", mnist=ok(70.0), dtd=ok(50.0))
    assert main([str(tmp_path), "--markdown"]) == 0
    out = capsys.readouterr().out
    assert "| one.pth |  | 80.0 | missing | 80.00 (1/2) |" in out
    assert "| two.pth |  | 70.0 | 50.0 | 60.00 |" in out
    assert "mnist: top1_accuracy" in out and "one.pth: no result for dtd (missing)" in out
    lines = (tmp_path / "summary.csv").read_text().splitlines()
    assert lines[0] == "checkpoint,protocol,mnist,dtd,Average,sets_averaged,sets_missing"
    assert lines[1:] == ["one.pth,,80.0,,80.0,1,1", "two.pth,,70.0,50.0,60.0,2,0"]


def test_different_units_have_no_average_and_say_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "one" / "results.json", mnist=ok(80.0), radii=ok(1.5, metric="text_radius"))
    assert main([str(tmp_path)]) == 0
    output = (
        "one.pth: no average of numbers in different units (%: mnist; text_radius: radii); choose --sets or"
    )
    assert output in capsys.readouterr().out
    assert (tmp_path / "summary.csv").read_text().splitlines()[1] == "one.pth,,80.0,1.5,,0,0"


def test_many_sets_are_printed_as_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = {f"set{i}__zero_shot": ok(10.0 * i) for i in range(9)}
    write(tmp_path / "one" / "results.json", **results, set1__fine_tune=ok(99.0))
    assert main([str(tmp_path), "--markdown", "--protocol", "zero_shot"]) == 0
    out = capsys.readouterr().out
    assert "| set | one.pth zero_shot |" in out and "| set3 | 30.0 |" in out and "| Average | 40.00 |" in out
    assert "99.0" not in out


def test_a_terminal_table_and_another_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "one" / "results.json", mnist=ok(80.0), dtd=ok(1.0))
    file = tmp_path / "one" / "results.json"
    assert main([str(file), str(tmp_path), "--sets", "mnist", "--output", str(tmp_path / "x" / "s.csv")]) == 0
    assert "80.0" in capsys.readouterr().out
    assert (tmp_path / "x" / "s.csv").read_text().splitlines()[1] == "one.pth,,80.0,80.0,1,0"


def test_errors_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "one" / "results.json", mnist=ok(80.0))
    assert run_main(main, [str(tmp_path), "--protocol", "few_shot_5"]) == 1
    assert "no evaluation is called as --protocol or --sets ask for" in capsys.readouterr().err
    assert run_main(main, [str(tmp_path / "none")]) == 1
    assert "holds no results*.json" in capsys.readouterr().err


def test_datacomp(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "one" / "results.json", mnist=ok(80.0), dtd=MISSING)
    file = tmp_path / "one" / "eval_results.jsonl"
    assert main([str(tmp_path / "one"), "--datacomp", str(file)]) == 0
    assert [json.loads(line) for line in file.read_text().splitlines()] == [
        {
            "key": "mnist",
            "dataset": "MNIST",
            "metrics": {"other": 1.0, "top1_accuracy": 0.8, "main_metric": 0.8},
        }
    ]
    assert str(file) in capsys.readouterr().out
    write(tmp_path / "two" / "results.json", mnist=ok(70.0))
    assert run_main(main, [str(tmp_path), "--datacomp", str(file)]) == 1
    assert "--datacomp: got results of 2 checkpoints" in capsys.readouterr().err
