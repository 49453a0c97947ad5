"""The report command from arguments to a page, with tiny models of every geometry."""

import json
import shutil
from pathlib import Path

import pytest

from hypvl.cli.common import run_main
from hypvl.cli.report import main
from tests.report.pages import run_folder
from tests.report.test_html import data_of

COMMON = ("--device", "cpu", "--num-workers", "0")


@pytest.mark.parametrize("kind", ["clip", "meru", "atmg", "euclip"])
def test_a_page_for_every_geometry(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_folder(tmp_path / kind, kind)
    assert main(["--run", str(run), "--traversals", "1", *COMMON]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(run / "report_data.json") and lines[-1] == str(run / "report.html")
    assert [line.split("?")[0] for line in lines[1:4]] == [
        "Is the geometry curved", "Is text above image", "Which queries fail",
    ]  # fmt: skip
    page = data_of((run / "report.html").read_text())
    model = page["run"]["model"]
    assert (model["about"]["iteration"], model["about"]["data"], model["pairs"]) == (7, "squares", 5)
    assert (model["geometry"]["curv"] is not None) is (kind in ("meru", "atmg"))
    assert (model["cones"] is not None) is (kind in ("meru", "atmg"))

    (run / "checkpoint_final.pth").unlink()  # the data are enough to draw it again
    output = tmp_path / "again.html"
    assert main(["--run", str(run), "--no-model", "--output", str(output)]) == 0
    assert data_of(output.read_text()) == page


def test_data_and_projection_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_folder(tmp_path / "run")
    (run / "results.json").unlink()
    table = str(run / "images" / "pairs.jsonl")
    assert (
        main(["--run", str(run), "--data", table, "--projection", "horopca", "--points", "3", *COMMON]) == 0
    )
    model = json.loads((run / "report_data.json").read_text())
    assert (model["plane"]["method"], len(model["plane"]["points"])) == ("horopca", 6)
    assert "no results.json" in (run / "report.html").read_text().lower()
    capsys.readouterr()


def test_images_that_cannot_be_read_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_folder(tmp_path / "run")
    table = run / "images" / "pairs.jsonl"
    row = json.loads(table.read_text().splitlines()[0])
    (table.parent / "torn.png").write_bytes(b"no image")
    for number in range(12):
        shutil.copy(table.parent / row["image"], table.parent / f"copy{number}.png")
    names = [*(f"copy{number}.png" for number in range(12)), "torn.png"]
    table.write_text("\n".join(json.dumps({**row, "image": name}) for name in names))
    assert main(["--run", str(run), "--data", str(table), *COMMON]) == 0
    assert "left out 1 image that cannot be read; the first: " in (errors := capsys.readouterr().err)
    assert "torn.png" in errors


def test_what_cannot_be_used_is_said_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_folder(tmp_path / "clip", "clip")
    table = str(run / "images" / "pairs.jsonl")
    cases = (
        (["--run", str(tmp_path / "nowhere")], "--run: "),
        (["--run", str(run), "--compare", str(tmp_path / "nowhere")], "--compare: "),
        (
            ["--run", str(run), "--data", table, "--projection", "horopca", *COMMON],
            "--projection: got 'horopca'",
        ),
        (["--run", str(run), "--points", "1"], "--points: got 1; expected a whole number of at least 2"),
    )
    for arguments, message in cases:
        assert run_main(main, arguments) != 0
        assert f"error: {message}" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run_main(main, ["--run", str(tmp_path / "empty"), *COMMON]) != 0
    assert "expected the folder of a training run" in capsys.readouterr().err
    (run / "results.json").unlink()
    assert run_main(main, ["--run", str(run), *COMMON]) != 0
    assert "name images with captions: --data pairs.csv" in capsys.readouterr().err


def test_a_target_off_the_allow_list_is_not_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_folder(tmp_path / "run")
    content = json.loads((run / "results.json").read_text())
    content["results"]["squares"]["settings"]["dataset"] = {
        "_target_": "os.mkdir",
        "path": str(tmp_path / "made"),
    }
    (run / "results.json").write_text(json.dumps(content))
    assert run_main(main, ["--run", str(run), *COMMON]) != 0
    assert "no results on images with captions" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
