"""``hypvl diff``: two runs, checkpoints, configs, results files; what it prints and its exit code."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from hypvl.cli.common import run_main
from hypvl.cli.diff import main
from tests.evaluation.smoke import make_checkpoint

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "uncha"


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """The folder of a run, twice."""
    folders = tmp_path / "first", tmp_path / "second"
    for folder in folders:
        folder.mkdir()
        for name in ("config.yaml", "provenance.json", "metrics.jsonl", "results.json"):
            shutil.copy(GOLDEN / name, folder)
    return folders


def test_a_run_equals_its_copy(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*map(str, runs)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "config: equal",
        "provenance: equal",
        "metrics: equal",
        "results: equal",
        "equal",
    ]


def test_what_differs_is_named_with_both_values(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    second = runs[1]
    config = (second / "config.yaml").read_text()
    (second / "config.yaml").write_text(config.replace("lr: 0.0005", "lr: 0.001"))
    provenance = json.loads((second / "provenance.json").read_text())
    provenance |= {"world_size": 8, "started": "2030-01-01"}
    (second / "provenance.json").write_text(json.dumps(provenance))
    results = json.loads((second / "results.json").read_text())
    name = next(iter(results["results"]))
    entry = results["results"][name]
    metric = next(iter(entry["intervals"]))
    entry["metrics"][metric] += 1000
    entry["intervals"][metric] = [bound + 1000 for bound in entry["intervals"][metric]]
    (second / "results.json").write_text(json.dumps(results))
    with (second / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 9, "lo')  # of a killed run

    assert main([*map(str, runs)]) == 1
    printed = capsys.readouterr().out
    for words in (["optim.optimizer.lr", "0.0005", "0.001"], ["world_size", "1", "8"], [name, metric]):
        assert any(line.split()[: len(words)] == words for line in printed.splitlines()), words
    assert "more than the intervals" in printed and "metrics: equal" in printed
    last = printed.splitlines()[-1]
    assert (
        last == "different: config (1), provenance (1), results (1, 1 of them by more than their intervals)"
    )

    assert main([*map(str, runs), "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["equal"] is False and data["not_compared"] == {} and data["metrics"] == []
    assert data["config"] == [
        {"key": "optim.optimizer.lr", "first": 0.0005, "second": 0.001, "resumable": True}
    ]
    assert (data["results"][0]["verdict"], data["results"][0]["evaluation"]) == ("beyond", name)


def test_checkpoints_are_compared_with_their_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_checkpoint("clip", tmp_path)
    content = torch.load(path, weights_only=True)
    key = next(iter(content["model"]))
    content["model"][key] = content["model"][key] + 0.5
    content["iteration"] = 3
    torch.save(content, tmp_path / "other.pth")
    assert main([str(path), str(tmp_path / "other.pth"), "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert (data["weights"]["differing"], data["weights"]["iterations"]) == ([key], [0, 3])
    assert data["weights"]["largest_difference"] == pytest.approx(0.5, abs=1e-6) and data["config"] == []
    assert main([str(path), str(path)]) == 0


def test_recipes_by_name_and_results_files(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["meru_demo", "clip_demo"]) == 1
    assert "model.geometry._target_" in capsys.readouterr().out
    assert main([str(folder / "results.json") for folder in runs]) == 0


def test_what_cannot_be_compared_is_exit_code_2(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"nothing")
    for first, second, message in (
        (str(broken), str(runs[0]), "broken.pth"),
        ("meru_demo", str(runs[0] / "results.json"), "have nothing in common to compare"),
        ("meru_demp", "meru_demo", "or recipe of hypvl has this name; the closest recipe is meru_demo"),
    ):
        assert run_main(main, [first, second]) == 2
        assert message in capsys.readouterr().err


def test_no_module_that_a_config_names_is_imported(
    runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "never_import_me.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for folder in runs:
        config = (folder / "config.yaml").read_text()
        (folder / "config.yaml").write_text(
            config.replace("torch.optim.adamw.AdamW", "never_import_me.AdamW")
        )
    assert main([*map(str, runs)]) == 0


@pytest.mark.parametrize("name", ["nowhere", "nowhere.yaml", "no where/x"])
def test_a_name_of_nothing_is_named_as_typed(
    runs: tuple[Path, Path], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(main, [str(runs[0]), name]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        f"error: {name}: no folder, file or recipe of hypvl has this name; expected the folder of"
    )
    assert "--config" not in error


def test_a_file_of_another_kind_is_named(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    file = runs[0] / "metrics.jsonl"
    assert run_main(main, [str(file), str(runs[1])]) == 2
    assert f"{file}: is no side of a comparison; expected the folder of a run" in capsys.readouterr().err


def test_recipes_of_evaluations_can_be_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval_datacomp", "eval_datacomp"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "equal"
