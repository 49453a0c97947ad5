"""The command that converts published hard negatives."""

import json
from pathlib import Path

import pytest

from hypvl.cli.common import run_main
from hypvl.cli.convert_hard_negatives import main
from tests.negatives.test_convert import ITEM, save


def test_converts_and_prints_the_number_of_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(2):
        save(tmp_path / f"{i}.npy", [{**ITEM, "id": i}])
    output = tmp_path / "out.jsonl"
    flags = ["--input", str(tmp_path / "*.npy"), "--output", str(output)]
    assert main(flags) == 0
    assert capsys.readouterr().out.endswith(f"{output}: 2 rows\n")
    assert [json.loads(line)["id"] for line in output.read_text().splitlines()] == [0, 1]
    assert run_main(main, flags) == 2
    assert "exists; give another name, or --overwrite" in capsys.readouterr().err
    assert main([*flags, "--overwrite", "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_missing_and_broken_input_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.npy").write_text("no")
    for name, code, words in (("b.npy", 2, "names no file"), ("a.npy", 1, "is not a .npy file")):
        flags = ["--input", str(tmp_path / name), "--output", str(tmp_path / "out.jsonl")]
        assert run_main(main, flags) == code
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()
