"""The audit from arguments to a verdict, with tiny models of every geometry."""

import csv
import json
from pathlib import Path

import pytest
import torch

from hypvl.cli.audit import main
from hypvl.cli.common import run_main
from tests.cli.test_image_traversals import checkpoint
from tests.evaluation.captioned import captioned
from tests.evaluation.fakes import broken


@pytest.fixture
def data(tmp_path: Path) -> Path:
    captioned(tmp_path, bad=1, copies=3)
    return tmp_path / "set.jsonl"


def near_the_root(path: Path) -> Path:
    """The same model with features so short that the space is as good as flat."""
    content = torch.load(path, weights_only=True)
    for name in ("visual_head.log_scale", "textual_head.log_scale"):
        if name in content["model"]:
            content["model"][name].fill_(-6.0)
    torch.save(content, path)
    return path


@pytest.mark.parametrize("kind", ["clip", "meru", "atmg", "euclip"])
def test_numbers_and_a_verdict_for_every_geometry(
    kind: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, output = near_the_root(checkpoint(tmp_path, kind)), tmp_path / "out" / "audit.json"
    arguments = [
        "--checkpoint-path",
        str(model),
        "--data",
        str(data),
        "--device",
        "cpu",
        "--num-workers",
        "0",
    ]
    assert main([*arguments, "--json", "--output", str(output)]) == 0
    report = json.loads(capsys.readouterr().out)
    written = json.loads(output.read_text())
    assert {**report, "items": written["items"]} == written
    curved = kind in ("meru", "atmg")
    assert ("curv" in report["metrics"]) is curved
    assert (report["verdict"] == "no curvature") is not curved
    assert {finding["part"] for finding in report["findings"]} >= {"order", "gap", "rank"}
    assert (report["iteration"], report["meta"]["pairs"], report["meta"]["unreadable"]) == (7, 12, 1)
    assert len(written["items"]["key"]) == 12
    if curved:
        assert report["metrics"]["saturated_cones_text"] == 100.0
        assert report["verdict"] in ("idle", "partly")


def test_people_get_a_table_and_sentences(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = near_the_root(checkpoint(tmp_path, "meru"))
    main(["--checkpoint-path", str(model), "--data", str(data), "--device", "cpu", "--num-workers", "0"])
    printed = capsys.readouterr().out
    assert "radial_order_auc" in printed and "verdict: " in printed
    assert "- Almost flat: median u" in printed and "- Cones saturated: 100% of texts" in printed
    assert "1 image cannot be read" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--data", "imagenet"],
            "--data: got 'imagenet'; expected a table (.csv, .tsv, .jsonl, .json), or one of demo",
        ),
        (["--data", "absent.jsonl"], "absent.jsonl: is not there"),
        (["--data", "coco:nowhere"], "nowhere/annotations/captions_val2017.json: is not there"),
        (
            ["--data", "demo", "--images-root", "x"],
            "--images-root: goes with a table; got --data demo.",
        ),
        (
            ["--data", "demo", "--caption-column", "x"],
            "--caption-column: goes with a table; got --data demo.",
        ),
        (["--data", "absent.csv", "--separator", ", "], "--separator: got ', '; expected one character"),
        (["--limit", "1"], "--limit: got 1; expected a whole number of at least 2."),
        (["--aperture-factor", "0"], "--aperture-factor: got 0.0; expected a number above 0."),
        (["--batch-size", "0"], "--batch-size: got 0"),
    ],
)
def test_wrong_arguments_are_one_sentence(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = checkpoint(tmp_path, "meru")
    monkeypatch.chdir(tmp_path)
    assert run_main(main, ["--checkpoint-path", str(model), "--device", "cpu", *arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1


def test_a_csv_of_pairs(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    texts = [text for row in rows for text in row.get("captions", [row.get("caption")])]
    path = data.with_suffix(".csv")
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["image", "words"])
        for row in rows:
            writer.writerows([row["image"], text] for text in row.get("captions", [row.get("caption")]))
    model = checkpoint(tmp_path, "clip")
    common = ["--checkpoint-path", str(model), "--device", "cpu", "--num-workers", "0", "--json"]
    flags = ["--image-column", "image", "--caption-column", "words", "--separator", ";"]
    reports = []
    for arguments in (["--data", str(data)], ["--data", str(path), *flags]):
        assert main([*common, *arguments]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    assert reports[0]["metrics"] == reports[1]["metrics"] and len(texts) > 10


def test_an_output_that_cannot_be_written(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = checkpoint(tmp_path, "clip")
    arguments = [
        "--checkpoint-path",
        str(model),
        "--data",
        str(data),
        "--device",
        "cpu",
        "--num-workers",
        "0",
    ]
    blocked = broken(tmp_path / "file") / "audit.json"
    assert run_main(main, [*arguments, "--output", str(blocked)]) == 1
    assert "--output: " in capsys.readouterr().err
