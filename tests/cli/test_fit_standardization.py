"""Fitting means and evaluating with them, through the commands."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open

from hypvl.cli.common import run_main
from hypvl.cli.evaluate import main as evaluate
from hypvl.cli.fit_standardization import main as fit
from hypvl.config import LazyConfig, instantiate
from hypvl.diagnostics.gap import centroid_distance
from hypvl.evaluation.mean_removal import load
from hypvl.models.hub import create_model
from tests.cli.test_evaluate import captions, colors, config, run
from tests.data.helpers import redcaps, write_tar

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained small CLIP with its config, data included, inside."""
    folder = tmp_path_factory.mktemp("run")
    write_tar(folder / "0.tar", [m for i in range(12) for m in redcaps(f"s{i}", i)])
    config = LazyConfig.load(ROOT / "configs" / "train_clip_demo.py")
    changes = ["model.visual.width=16", "model.visual.depth=1", "model.visual.heads=2", "model.visual.patch_size=16",
               "model.textual.arch=L1_W16_A2", "model.visual_head.out_features=8", "model.textual_head.out_features=8",
               f"dataset.tarfiles=[{folder}/*.tar]", "train.objective={}",
               "++dataset.mapper={_target_: hypvl.data.mappers.RedCapsMapper}"]  # fmt: skip
    config = LazyConfig.apply_overrides(config, changes)
    torch.manual_seed(0)
    model = instantiate(config.model)
    content = {
        "format_version": 1, "model": model.state_dict(), "iteration": 7, "config": LazyConfig.to_yaml(config),
        "root": torch.ones(8), "optimizer": {},
    }  # fmt: skip
    torch.save(content, folder / "checkpoint_final.pth")
    (folder / "last_checkpoint.txt").write_text("checkpoint_final.pth\n")
    return folder / "checkpoint_final.pth"


def run_fit(checkpoint: Path, *more: str) -> int:
    given = ["--checkpoint-path", str(checkpoint), "--device", "cpu", "--num-workers", "0"]
    return run_main(fit, [*given, *more])


@pytest.fixture
def sets(tmp_path: Path) -> str:
    return config(tmp_path, colors=colors(tmp_path / "colors"), pairs=captions(tmp_path / "pairs"))


def test_fitted_beside_the_checkpoint_and_used(
    checkpoint: Path, sets: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "copy.pth"
    shutil.copy(checkpoint, path)
    assert run_fit(path, "--config", sets, "--only", "pairs") == 0
    beside = tmp_path / "copy_standardization.safetensors"
    assert f"{beside}: means of 2 images and 2 texts (pairs of" in capsys.readouterr().out
    with safe_open(beside, framework="pt") as file:
        assert file.metadata()["images"] == "2" and len(file.metadata()["model"]) == 64
    code, report = run(sets, path, tmp_path / "file", "--standardize", str(beside))
    assert code == 0
    used = report["results"]["colors"]["meta"]["standardization"]
    assert (used["source"], used["shift"], used["set"]) == ("file", None, f"pairs of {sets}")
    assert report["provenance"]["standardize"] == str(beside)
    _, plain = run(sets, path, tmp_path / "plain")
    _, transductive = run(sets, path, tmp_path / "own", "--standardize", "transductive")
    scores = [r["results"]["colors"]["items"]["score"] for r in (plain, report, transductive)]
    assert scores[0] != scores[1] != scores[2] != scores[0]
    # The file was fitted on the pairs: on them, transductive is the same.
    ranks = [r["results"]["pairs"]["items"] for r in (report, transductive)]
    assert ranks[0] == ranks[1]
    assert transductive["results"]["pairs"]["meta"]["standardization"]["source"] == "transductive"


def test_the_model_is_itself_again_after_each_evaluation(checkpoint: Path, sets: str, tmp_path: Path) -> None:
    one = run(sets, checkpoint, tmp_path / "a", "--standardize", "transductive", "--only", "pairs")[1]
    both = run(sets, checkpoint, tmp_path / "b", "--standardize", "transductive")[1]
    assert one["results"]["pairs"]["items"] == both["results"]["pairs"]["items"]


@pytest.mark.slow
def test_inside_a_checkpoint_it_needs_no_flag(checkpoint: Path, sets: str, tmp_path: Path) -> None:
    inside, means = tmp_path / "new" / "inside.pth", tmp_path / "means.pt"
    given = ["--config", sets, "--only", "pairs", "--output", str(means), "--checkpoint-output", str(inside)]
    assert run_fit(checkpoint, *given) == 0
    assert [p.name for p in inside.parent.iterdir()] == ["inside.pth"]  # no draft, no pointer for --resume
    model = create_model(inside)
    result = load(means)
    torch.testing.assert_close(model.transforms("text")[0].mean, result.text_mean.float())
    content = torch.load(inside, weights_only=True)
    assert content["iteration"] == 7 and content["standardization"] == result.meta()
    assert "root" not in content and "optimizer" not in content
    _, flag = run(sets, checkpoint, tmp_path / "flag", "--standardize", str(means))
    _, without = run(sets, inside, tmp_path / "inside")
    for name in ("colors", "pairs"):
        assert flag["results"][name]["items"] == without["results"][name]["items"]
    # A second time on what is there: one transform after the other.
    twice = tmp_path / "twice.pth"
    assert (
        run_fit(inside, *given[:4], "--output", str(tmp_path / "m2.pt"), "--checkpoint-output", str(twice))
        == 0
    )
    assert len(create_model(twice).transforms("image")) == 2


def test_a_checkpoint_with_a_custom_loss_works(
    checkpoint: Path, sets: str, tmp_path: Path, capsys: Any
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    config = yaml.safe_load(content["config"])
    config["train"]["objective"] = {"_target_": "mine.Loss"}
    config["dataset"]["mapper"]["_target_"] = "mine.Mapper"
    own, inside = tmp_path / "own.pth", tmp_path / "inside.pth"
    torch.save(content | {"config": yaml.safe_dump(config)}, own)
    assert run(sets, own, tmp_path / "out")[0] == 0
    given = ["--output", str(tmp_path / "m.pt"), "--checkpoint-output", str(inside)]
    assert run_fit(own, "--config", sets, "--only", "pairs", *given) == 0
    kept = yaml.safe_load(torch.load(inside, weights_only=True)["config"])
    assert kept["train"]["objective"] == {"_target_": "mine.Loss"} and "image_transforms" in kept["model"]
    assert run_fit(own, "--train-samples", "3", *given) == 2  # here the data are used
    assert "'mine.Mapper' at 'dataset.mapper._target_'" in capsys.readouterr().err
    config["model"]["geometry"]["_target_"] = "mine.Geometry"
    torch.save(content | {"config": yaml.safe_dump(config)}, own)
    assert run(sets, own, tmp_path / "none")[0] == 2
    assert "'mine.Geometry' at 'model.geometry._target_'" in capsys.readouterr().err


@pytest.mark.slow
def test_training_data_as_calibration(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "means.safetensors"
    assert run_fit(checkpoint, "--train-samples", "10", "--batch-size", "4", "--output", str(path)) == 0
    result = load(path)
    assert result.meta() | {"model": ""} == {
        "model": "", "set": "10 samples of the training data", "images": 10, "texts": 10
    }  # fmt: skip
    assert run_fit(checkpoint, "--train-samples", "10", "--output", str(tmp_path / "again.pt")) == 0
    torch.testing.assert_close(
        load(tmp_path / "again.pt").image_mean, result.image_mean, rtol=1e-6, atol=1e-7
    )
    assert "samples in 1 shards" not in capsys.readouterr().out  # that is a log line, not the result


def test_a_shift_of_the_whole_gap_closes_it_in_flat_coordinates(
    checkpoint: Path, sets: str, tmp_path: Path
) -> None:
    code, report = run(sets, checkpoint, tmp_path / "a", "--shift", "0.25")
    assert code == 0
    used = report["results"]["pairs"]["meta"]["standardization"]
    assert (used["source"], used["shift"]) == ("transductive", 0.25)
    _, zero = run(sets, checkpoint, tmp_path / "b", "--shift", "0")
    _, plain = run(sets, checkpoint, tmp_path / "c")
    assert zero["results"]["pairs"]["items"] == plain["results"]["pairs"]["items"]
    assert used["centroid_distance"] > 0.1


@pytest.mark.slow
def test_results_with_and_without_are_kept_apart(checkpoint: Path, sets: str, tmp_path: Path) -> None:
    for more in ([], ["--standardize", "transductive"], ["--shift", "1"], ["--shift", "-1"]):
        run(sets, checkpoint, tmp_path / "out", *more)
    names = sorted(p.name for p in (tmp_path / "out").glob("*.json"))
    assert names == ["results.json", "results_1.json", "results_2.json", "results_3.json"]
    last = json.loads((tmp_path / "out" / "results.json").read_text())
    assert last["provenance"]["shift"] == -1.0


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--standardize", "gone.pt"], 1, "gone.pt: no such file"),
        (["--standardize", "transductiv"], 2, "got 'transductiv'; expected `transductive` or a file"),
        (["--shift", "nan"], 2, "--shift: got nan; expected a finite number"),
        (["--shift", "1", "--standardize", "gone.safetensors"], 1, "gone.safetensors: no such file"),
    ],
)
def test_wrong_flags_write_nothing(
    more: list[str], code: int, message: str, checkpoint: Path, sets: str, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    given = [
        "--config",
        sets,
        "--checkpoint-path",
        str(checkpoint),
        "--device",
        "cpu",
        "--output-dir",
        str(out),
    ]
    assert run_main(evaluate, [*given, *more]) == code
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_means_of_another_model_are_refused(
    checkpoint: Path, sets: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["model"]["scorer.log_scale"] += 0.1
    torch.save(content, tmp_path / "other.pth")
    means = str(tmp_path / "means.pt")
    assert run_fit(tmp_path / "other.pth", "--config", sets, "--only", "pairs", "--output", means) == 0
    code, _ = run(sets, checkpoint, tmp_path / "out", "--standardize", means)
    assert code == 1 and "was fitted for another model (fingerprint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "give either --config with an evaluation, or --train-samples"),
        (["--config", "SETS", "--train-samples", "3"], "give either --config"),
        (["--config", "SETS"], "--only: missing; "),
        (["--config", "SETS", "--only", "pear"], "'pear' is not in"),
        (["--train-samples", "0"], "--train-samples: got 0; expected a whole number of at least 1"),
        (["--train-samples", "4", "--output", "means.npy"], "means.npy: ends in '.npy'"),
    ],
)
def test_wrong_requests(
    more: list[str], message: str, checkpoint: Path, sets: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_fit(checkpoint, *[sets if x == "SETS" else x for x in more]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_on_the_sphere_the_gap_is_nearly_closed(checkpoint: Path, sets: str, tmp_path: Path) -> None:
    """What the means are for: fitted on many samples, the modalities share their centre."""
    inside = tmp_path / "inside.pth"
    given = ["--train-samples", "12", "--output", str(tmp_path / "m.pt"), "--checkpoint-output", str(inside)]
    assert run_fit(checkpoint, *given) == 0
    plain, centred = create_model(checkpoint), create_model(inside)
    generator = torch.Generator().manual_seed(0)
    features = {m: torch.randn(200, 8, generator=generator) for m in ("image", "text")}
    for modality, sign in (("image", 1.0), ("text", -1.0)):
        features[modality] += sign * 0.7
    flat = {m: plain.embed(x, modality=m).mean(0) for m, x in features.items()}  # type: ignore[arg-type]
    for modality, mean in flat.items():
        centred.transforms(modality)[0].fill_(mean)  # type: ignore[operator,arg-type]
    gaps = [
        centroid_distance(*(model.embed(features[m], modality=m) for m in ("image", "text")))  # type: ignore[arg-type]
        for model in (plain, centred)
    ]
    assert gaps[1] < 0.1 * gaps[0]
