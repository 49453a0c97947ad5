"""The command that checks what is there."""

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from hypvl.cli import doctor
from hypvl.cli.common import run_main
from hypvl.cli.doctor import main
from hypvl.config import LazyConfig, instantiate
from tests.evaluation.fakes import broken
from tests.evaluation.miniatures import classification, elevater

ROOT = Path(__file__).resolve().parents[2]
ZERO_SHOT = str(ROOT / "configs" / "eval_zero_shot_classification.py")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = run_main(main, [*arguments, "--json"])
    out = capsys.readouterr().out
    return code, json.loads(out) if out else {}


def test_an_incomplete_suite_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classification.cars(tmp_path)
    classification.dtd(tmp_path)
    arguments = ["--config", ZERO_SHOT, f"roots.eval={tmp_path}", "--only"]
    code, report = run(capsys, *arguments, "cars")
    (result,) = report["suites"][ZERO_SHOT]
    assert (code, result["name"], result["status"], result["items"], result["looked_at"]) == (
        0,
        "cars test",
        "ok",
        4,
        4,
    )
    assert report["ok"] and not report["broken"]
    code, report = run(capsys, *arguments, "dtd, aircraft", "--images", "2")
    aircraft, dtd = report["suites"][ZERO_SHOT]
    assert code == 1 and (dtd["status"], dtd["looked_at"]) == ("incomplete", 2)
    assert "has 4 images; expected 1,880" in dtd["detail"]
    assert aircraft["status"] == "missing" and "images_variant_{train,val,test}.txt" in aircraft["detail"]
    assert report["broken"] == [
        "eval_zero_shot_classification: aircraft test", "eval_zero_shot_classification: dtd test",
    ]  # fmt: skip
    broken(next((tmp_path / "dtd" / "dtd" / "images").rglob("*test*")))
    code, report = run(capsys, *arguments, "dtd", "--all-images")
    assert code == 1 and report["suites"][ZERO_SHOT][0]["status"] == "damaged"


def test_each_data_set_is_looked_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elevater.make_set(tmp_path, "dtd")
    target = "hypvl.datasets.classification.elevater.elevater_set"
    train, test = (
        {"_target_": target, "name": "dtd", "root": "${root}", "split": s} for s in ("train", "test")
    )
    probe = {"_target_": "hypvl.evaluation.probes.linear_probe.LinearProbe", "train": train, "test": test}
    zero_shot = {"_target_": "hypvl.evaluation.zero_shot.ZeroShotClassification", "dataset": test}
    (tmp_path / "suite.json").write_text(
        json.dumps(
            {"root": str(tmp_path), "evaluate": {"a": probe, "b": zero_shot, "c": {**probe, "seeds": [1, 2]}}}
        )
    )
    suite = str(tmp_path / "suite.json")
    code, report = run(capsys, "--config", suite)
    result = {finding["name"]: finding["items"] for finding in report["suites"][suite]}
    assert code == 0 and result == {"dtd train": 8, "dtd test": 4}


def test_without_arguments_missing_data_are_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").mkdir()
    text = {"evaluate": {"a": {"_target_": "hypvl.evaluation.zero_shot.ZeroShotClassification", "dataset": {
        "_target_": "hypvl.datasets.classification.folders.ImageFolderSet", "root": "./gone"}}}}  # fmt: skip
    (tmp_path / "configs" / "eval_one.py").write_text(f"evaluate = {text['evaluate']!r}\n")
    monkeypatch.chdir(tmp_path)
    code, report = run(capsys)
    assert code == 0 and report["suites"]["configs/eval_one.py"][0]["status"] == "missing"
    assert run_main(main, []) == 0
    out = capsys.readouterr().out
    assert "no data set is here, with their number of sets: one (1)\n" in out
    assert "hypvl doctor --config one" in out and "gone" not in out
    assert run_main(main, ["--config", "one"]) == 1
    assert "a: missing: gone: is not there" in capsys.readouterr().out
    (tmp_path / "gone" / "cat").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "gone" / "cat" / "1.png")
    assert run_main(main, []) == 0
    out = capsys.readouterr().out
    assert "configs/eval_one.py" in out and "no data set is here" not in out
    assert run_main(main, ["key=1"]) == 2
    for flags in (["--only", "b"], ["--download"]):
        assert run(capsys, *flags)[0] == 2


def test_the_bar_counts_data_sets_and_leaves_the_screen_to_downloads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[tuple[bool, int, str]] = []

    @contextmanager
    def bar(label: str, *, shown: bool) -> Iterator[Callable[..., None]]:
        yield lambda done, text: moves.append((shown, done, text))

    monkeypatch.setattr(doctor, "terminal_bar", bar)
    data = {
        "_target_": "hypvl.datasets.classification.folders.ImageFolderSet",
        "root": str(tmp_path / "gone"),
    }
    evaluator = {"_target_": "hypvl.evaluation.zero_shot.ZeroShotClassification", "dataset": data}
    other = {**evaluator, "dataset": {**data, "root": str(tmp_path / "away")}}
    suite = tmp_path / "suite.json"
    suite.write_text(json.dumps({"evaluate": {"a": evaluator, "b": other}, "download": False}))
    run(capsys, "--config", str(suite))
    run(capsys, "--config", str(suite), "--download")
    assert moves == [
        (shown, done, f"data sets: {name}") for shown in (True, False) for done, name in enumerate("ab", 1)
    ]


def test_the_environment(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tar = tmp_path / "a.tar"
    with tarfile.open(tar, "w") as out:
        entry = tarfile.TarInfo("1.txt")
        entry.size = 3
        out.addfile(entry, io.BytesIO(b"red"))
    code, report = run(capsys, "--shards", str(tar))
    packages = {package["name"]: package for package in report["environment"]["packages"]}
    assert packages["torch"]["version"] == torch.__version__.split("+")[0] and packages["torch"]["required"]
    assert report["environment"]["gpus"] == [] or torch.cuda.is_available()
    assert run_main(main, ["--shards", str(tar)]) == 1
    listed = capsys.readouterr().out.splitlines()[1].split(", ")
    assert len(listed) == len(set(listed)) and f"torch {packages['torch']['version']}" in listed
    assert report["suites"] == {}  # shards were asked for, suites were not
    assert code == 1 and "has no image" in report["shards"][0]["problems"][0]
    code, report = run(capsys, "--shards", str(tmp_path / "none.tar"))
    assert code == 1 and report["broken"] == [str(tmp_path / "none.tar")]


def test_a_folder_that_was_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    from hypvl.cli.doctor import check_environment, requirements

    def lost(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", lost)
    assert any(text.startswith("torch>=") for text in requirements())
    packages = check_environment()["packages"]
    assert all(package["required"] and package["version"] for package in packages)


def test_a_package_that_is_missing_or_old(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    from hypvl.cli.doctor import check_environment

    wanted = ["torch>=99", "no-such-package>=2", "no-such-extra; extra == 'wandb'", "numpy>=1"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: wanted)
    old, lost, extra, fine = check_environment()["packages"]
    assert old["problem"] == f"is {old['version']}; expected >=99" and old["required"]
    assert lost["problem"] == "not installed: pip install 'no-such-package>=2'"
    assert (extra["required"], extra["extra"], fine["problem"]) == (False, "wandb", None)


def test_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.pth"
    torch.save({"model": {"w": torch.ones(2, 3), "b": torch.ones(4)}, "iteration": 5}, path)
    code, report = run(capsys, "--checkpoint-path", str(path))
    assert code == 0 and report["checkpoint"]["parameters"] == 10 and report["checkpoint"]["iteration"] == 5
    torch.save({"model": {"w": torch.tensor([1.0, float("nan")])}}, path)
    code, report = run(capsys, "--checkpoint-path", str(path))
    assert code == 1 and "1 tensors are not finite, such as w" in report["checkpoint"]["problem"]
    path.write_bytes(path.read_bytes()[:100])
    assert run_main(main, ["--checkpoint-path", str(path)]) == 1
    output = capsys.readouterr()
    assert "a.pth" in output.out and "error: 1 broken" in output.err


def test_a_checkpoint_must_fit_its_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = LazyConfig.load(ROOT / "hypvl" / "models" / "zoo" / "meru_vit_s.json")
    config.model.textual.arch = "L1_W32_A2"
    config.model.visual.arch, config.model.visual.image_size = "vit_tiny_patch16_224", 32
    config.model.visual.timm_args = {"depth": 1, "embed_dim": 32, "num_heads": 2}
    weights = instantiate(config.model).state_dict()
    path = tmp_path / "a.pth"
    torch.save({"model": weights, "config": LazyConfig.to_yaml(config)}, path)
    code, report = run(capsys, "--checkpoint-path", str(path))
    assert code == 0 and report["checkpoint"]["fits"] == "the config inside"
    weights.pop("scorer.log_scale")
    torch.save({"model": weights, "config": LazyConfig.to_yaml(config)}, path)
    code, report = run(capsys, "--checkpoint-path", str(path))
    assert code == 1 and "scorer.log_scale" in report["checkpoint"]["problem"]


def test_wrong_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(main, ["--images", "0"]) == 2
    assert "--images: got 0; expected a whole number of at least 1" in capsys.readouterr().err
