"""The command that builds the demo data."""

from pathlib import Path

import pytest

from hypvl.cli.common import run_main
from hypvl.cli.make_demo_data import main


def test_builds_once_and_then_prints_up_to_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [
        "--output-dir",
        str(tmp_path / "demo"),
        "--num-train",
        "12",
        "--num-test",
        "4",
        "--num-digits",
        "100",
    ]
    assert main(flags) == 0
    assert capsys.readouterr().out.endswith(f"{tmp_path / 'demo'}: written\n")
    assert main(flags) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'demo'}: up to date\n"
    assert main([*flags, "--quiet"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("below", ["", "x"])
def test_a_file_as_output_folder_is_refused(
    below: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.md").write_text("mine")
    assert run_main(main, ["--output-dir", str(tmp_path / "notes.md" / below)]) == 1
    captured = capsys.readouterr()
    assert "name a folder" in captured.err or "(Not a directory); name another folder" in captured.err
    assert captured.err.count("\n") == 1


def test_a_folder_of_someone_else_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert run_main(main, ["--output-dir", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: output folder")
    assert captured.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
