"""The weights that are evaluated: the model's, a teacher's, or those between two checkpoints."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from hypvl.cli.weight_choice import WeightChoice
from hypvl.config import LazyConfig, instantiate
from hypvl.errors import CheckpointError, ConfigError
from hypvl.models.checkpoint_io import load_checkpoint, teacher_weights
from hypvl.models.interpolation import interpolate_weights
from tests.cli.test_evaluate import colors, config, run

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


def definition(**textual: Any) -> DictConfig:
    cfg = LazyConfig.load(ROOT / "hypvl" / "models" / "zoo" / "meru_vit_s.json")
    cfg.model.textual.arch = "L1_W32_A2"
    cfg.model.textual.update(textual)
    cfg.model.visual.arch, cfg.model.visual.image_size = "vit_tiny_patch16_224", 32
    cfg.model.visual.timm_args = {"depth": 1, "embed_dim": 32, "num_heads": 2}
    return cfg


def save(path: Path, cfg: DictConfig, *, seed: int, **more: Any) -> Path:
    torch.manual_seed(seed)
    model = instantiate(cfg.model).state_dict()
    content = {"format_version": 1, "model": model, "iteration": seed, "config": LazyConfig.to_yaml(cfg)}
    torch.save(content | more, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``initial.pth``, ``finetuned.pth`` with a teacher "ema", and ``gelu.pth``, of another activation."""
    folder = tmp_path_factory.mktemp("weights")
    save(folder / "initial.pth", definition(grad_checkpointing=True), seed=1)
    torch.manual_seed(5)
    averaged = {f"encoder.{key}": t for key, t in instantiate(definition().model).state_dict().items()}
    ema = averaged | {"updates": torch.tensor(3)}
    save(folder / "finetuned.pth", definition(), seed=2, teachers={"ema": ema}, root=torch.zeros(512))
    save(folder / "gelu.pth", definition(activation="quick_gelu"), seed=1)
    return folder


def choice(**flags: Any) -> WeightChoice:
    given = {"weights": "model", "interpolate_from": None, "alpha": None} | flags
    return WeightChoice.of(argparse.Namespace(**given))


def weights(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = load_checkpoint(path)["model"]
    return state


@pytest.mark.parametrize(("alpha", "end"), [(0.0, "initial.pth"), (1.0, "finetuned.pth")])
def test_the_ends_are_the_two_checkpoints(folder: Path, alpha: float, end: str) -> None:
    chosen = choice(interpolate_from=folder / "initial.pth", alpha=alpha)
    model, content = chosen.load(folder / "finetuned.pth", None, device=CPU)
    assert not model.training and content["iteration"] == 2 and "root" not in content
    for name, tensor in weights(folder / end).items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_half_way_is_evaluated_as_a_checkpoint_of_these_weights_would_be(
    folder: Path, tmp_path: Path
) -> None:
    suite = config(tmp_path, colors=colors(tmp_path / "colors"))
    flags = ["--interpolate-from", str(folder / "initial.pth"), "--alpha", "0.5"]
    code, mixed = run(suite, folder / "finetuned.pth", tmp_path / "out", *flags)
    assert code == 0
    both = interpolate_weights(weights(folder / "initial.pth"), weights(folder / "finetuned.pth"), alpha=0.5)
    torch.save(load_checkpoint(folder / "finetuned.pth") | {"model": both}, tmp_path / "mixed.pth")
    _, expected = run(suite, tmp_path / "mixed.pth", tmp_path / "expected")
    assert mixed["results"]["colors"]["items"] == expected["results"]["colors"]["items"]
    assert mixed["subject"]["alpha"] == 0.5
    assert len(mixed["subject"]["interpolate_from_sha256"]) == 64
    origin = mixed["results"]["colors"]["provenance"]
    assert (origin["checkpoint"], origin["interpolate_from"], origin["alpha"]) == (
        str(folder / "finetuned.pth"), str(folder / "initial.pth"), 0.5,
    )  # fmt: skip
    assert "alpha" not in expected["subject"] and "weights" not in expected["subject"]


def test_an_average_is_evaluated_on_request(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = config(tmp_path, colors=colors(tmp_path / "colors"))
    code, report = run(suite, folder / "finetuned.pth", tmp_path / "out", "--weights", "ema")
    assert code == 0 and report["subject"]["weights"] == "ema"
    assert "finetuned.pth, weights ema" in capsys.readouterr().out
    averaged = teacher_weights(load_checkpoint(folder / "finetuned.pth"), "ema")
    torch.save(load_checkpoint(folder / "finetuned.pth") | {"model": averaged}, tmp_path / "averaged.pth")
    _, expected = run(suite, tmp_path / "averaged.pth", tmp_path / "expected")
    assert report["results"]["colors"]["items"] == expected["results"]["colors"]["items"]
    model, _ = choice().load(folder / "finetuned.pth", None, device=CPU)
    assert torch.equal(
        model.geometry.log_curv, weights(folder / "finetuned.pth")["geometry.log_curv"]
    )  # the default


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--weights", "emma"], "finetuned.pth: no teacher 'emma'; it holds the weights of model, ema."),
        (["--alpha", "0.5"], "--alpha: needs --interpolate-from beside it; give both, or neither."),
        (
            ["--interpolate-from", "initial.pth"],
            "--interpolate-from: needs --alpha beside it; give both, or neither.",
        ),
        (
            ["--interpolate-from", "initial.pth", "--alpha", "1.5"],
            "--alpha: got 1.5; expected a number of at least 0 and up to 1.",
        ),
        (
            ["--interpolate-from", "initial.pth", "--alpha", "nan"],
            "--alpha: got nan; expected a finite number",
        ),
        (["--interpolate-from", "gone.pth", "--alpha", "0.5"], "gone.pth: no such file"),
        (
            ["--interpolate-from", "gelu.pth", "--alpha", "0.5"],
            "finetuned.pth are of different models: model.textual.activation was 'quick_gelu' and is 'gelu'.",
        ),
    ],
)
def test_what_cannot_be_chosen_is_refused_before_anything_is_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    suite = config(tmp_path, colors=colors(tmp_path / "colors"))
    paths = [str(folder / word) if word.endswith(".pth") else word for word in flags]
    code, _ = run(suite, folder / "finetuned.pth", tmp_path / "out", *paths)
    err = capsys.readouterr().err
    assert code == (2 if message.startswith("--") else 1)  # of the flags alone, or of a checkpoint
    assert message in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_another_shape_is_refused(folder: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "wide.pth", definition(arch="L1_W64_A2"), seed=1)
    with pytest.raises(
        CheckpointError, match=r"different models: model\.textual\.arch was 'L1_W64_A2' and is"
    ):
        choice(interpolate_from=path, alpha=0.5).load(folder / "finetuned.pth", None, device=CPU)
    content = {key: value for key, value in load_checkpoint(path).items() if key != "config"}
    torch.save(content, path)  # without its config, the shapes tell
    with pytest.raises(
        CheckpointError, match=r"wide\.pth and .* are of different models: does not fit the model"
    ):
        choice(interpolate_from=path, alpha=0.5).load(folder / "finetuned.pth", None, device=CPU)


def test_only_one_flag() -> None:
    with pytest.raises(ConfigError, match="--alpha: needs --interpolate-from"):
        choice(alpha=0.5)
