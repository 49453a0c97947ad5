"""`hypvl convert`: a checkpoint becomes a folder without a training run's state, or a file of published names."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

import hypvl
from hypvl.cli.common import run_main
from hypvl.cli.convert import main
from hypvl.config import LazyConfig
from tests.cli.test_image_traversals import checkpoint
from tests.test_house import ROOT


def test_a_folder_holds_the_model_and_loads_without_a_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = checkpoint(tmp_path, "meru", optimizer={"state": {}})
    assert run_main(main, [str(source), "--to", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]
    weights = torch.load(source, weights_only=True)["model"]
    model = hypvl.from_pretrained(tmp_path / "out")
    assert set(model.state_dict()) == set(weights)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert "hypvl.from_pretrained(" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_holds_the_published_names_and_comes_back(tmp_path: Path, suffix: str) -> None:
    config = LazyConfig.load(ROOT / "configs/train_meru_vit_s.py")
    config.model.visual.update({"arch": "vit_tiny_patch16_224", "image_size": 32})
    config.model.textual.arch = "L1_W64"
    LazyConfig.save(OmegaConf.create({"model": config.model}), tmp_path / "config.yaml")
    original = hypvl.create_model(tmp_path / "config.yaml").state_dict()
    torch.save({"model": original}, tmp_path / "source.pth")
    flags = ["--train-config", str(tmp_path / "config.yaml"), "--to"]

    out = tmp_path / f"official{suffix}"
    assert run_main(main, [str(tmp_path / "source.pth"), *flags, str(out)]) == 0
    named = load_file(out) if suffix == ".safetensors" else torch.load(out, weights_only=True)["model"]
    assert {"visual_proj.weight", "textual_proj.weight", "curv", "logit_scale"} <= set(named)
    assert not any(name.startswith("visual.trunk") for name in named)

    assert run_main(main, [str(out), *flags, str(tmp_path / "back")]) == 0
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert back.keys() == original.keys()
    assert all(torch.equal(tensor, back[name]) for name, tensor in original.items())


def test_nothing_is_overwritten_and_places_are_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = checkpoint(tmp_path, "clip")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for place, reason in [
        (tmp_path / "full", "exists; name another place"),
        (source, "exists; name another place"),
        (tmp_path / "weights.onnx", "expected a folder, or a file that ends in .pth or .safetensors"),
    ]:
        assert run_main(main, [str(source), "--to", str(place)]) == 2
        assert reason in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
