"""The traversal command from arguments to files, with tiny models of every geometry."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from hypvl.cli.common import run_main
from hypvl.cli.image_traversals import main
from hypvl.config import LazyConfig, instantiate
from hypvl.models.dual_encoder import DualEncoder

CONFIG = """
model:
  _target_: hypvl.models.dual_encoder.DualEncoder
  visual:
    _target_: hypvl.encoders.conv_vit.ConvStemViT
    width: 16
    depth: 1
    heads: 2
    image_size: 32
    patch_size: 8
  textual: {{_target_: hypvl.encoders.text.TextTransformer, arch: L1_W64_A1}}
  visual_head: {{_target_: hypvl.encoders.heads.{head}, _partial_: true, out_features: 8}}
  textual_head: {{_target_: hypvl.encoders.heads.{head}, _partial_: true, out_features: 8}}
  geometry: {{_target_: hypvl.geometry.{geometry}}}
  scorer: {{_target_: hypvl.geometry.scorers.{scorer}}}
"""
KINDS = {
    "clip": {"head": "ProjectionHead", "geometry": "sphere.Sphere", "scorer": "Cosine"},
    "meru": {"head": "ScaledProjectionHead", "geometry": "lorentz.Lorentz", "scorer": "NegativeDistance"},
    "atmg": {"head": "ScaledProjectionHead", "geometry": "lorentz.Lorentz", "scorer": "ExteriorAngle"},
    "euclip": {"head": "ProjectionHead", "geometry": "euclidean.Euclidean", "scorer": "NegativeDistance"},
}


def checkpoint(folder: Path, kind: str, **more: Any) -> Path:
    text = CONFIG.format(**KINDS[kind])
    torch.manual_seed(0)
    model = instantiate(LazyConfig.from_yaml(text).model)
    path = folder / f"{kind}.pth"
    torch.save(
        {"format_version": 1, "model": model.state_dict(), "config": text, "iteration": 7, **more}, path
    )
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "blue.png"
    Image.new("RGB", (48, 40), (20, 40, 200)).save(path)
    return path


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    path = tmp_path / "pool.json"
    path.write_text(
        json.dumps({"captions": ["a blue square"], "nouns": ["square", "[b]"], "adjectives": ["blue"]})
    )
    return path


def run(image: Path, weights: Path, pool: Path | None, out: Path, *more: str) -> int:
    argv = [
        "--image-path",
        str(image),
        "--checkpoint-path",
        str(weights),
        "--output-dir",
        str(out),
        "--device",
        "cpu",
    ]
    return run_main(main, [*argv, *([] if pool is None else ["--text-pool", str(pool)]), *more])


@pytest.mark.parametrize("kind", KINDS)
def test_every_geometry_walks_to_the_root(
    kind: str, tmp_path: Path, image: Path, pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(image, checkpoint(tmp_path, kind), pool, out, "--steps", "9") == 0
    result = json.loads((out / "blue.json").read_text())
    assert len(result["steps"]) == 9
    assert result["texts"][-1] == "[ROOT]"
    assert set(result["texts"]) <= {"a blue square", "square", "[b]", "blue", "[ROOT]"}
    assert (result["iteration"], result["pool_size"]) == (7, 4)
    radii = [step["radius"] for step in result["steps"]]
    assert radii == sorted(radii, reverse=True)
    assert radii[-1] == 0.0
    assert (result["steps"][-1]["score"] is None) == (kind == "atmg")
    assert result["entailment_mask"] == (kind == "meru")
    with Image.open(out / "blue.png") as pil_image:
        assert pil_image.format == "PNG"
    printed = capsys.readouterr().out
    for text in result["texts"]:
        assert text in printed
    assert ("mean embedding of the text pool" in printed) == (kind == "clip")
    assert str(out / "blue.json") in printed


def test_without_a_named_text_the_reason_is_printed(
    tmp_path: Path,
    image: Path,
    pool: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_holds(geometry: object, general: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(points), len(general), dtype=torch.bool)

    with monkeypatch.context() as patch:
        patch.setattr("hypvl.evaluation.traversal.entails", none_holds)
        assert run(image, checkpoint(tmp_path, "meru"), pool, tmp_path / "out") == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "the entailment cone of none of the 4 texts holds a point" in output
    assert "Try --entailment never" in output and "--text-pool" in output
    real = DualEncoder.encode_image  # an image close to the root has the root as its neighbour

    def small(self: DualEncoder, images: torch.Tensor) -> torch.Tensor:
        return real(self, images) * 1e-3

    monkeypatch.setattr(DualEncoder, "encode_image", small)
    assert run(image, checkpoint(tmp_path, "euclip"), pool, tmp_path / "out") == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "the root is closer than any text all the way" in output and "--entailment" not in output


def test_clip_walks_to_the_root_in_the_checkpoint(
    tmp_path: Path, image: Path, pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = torch.nn.functional.normalize(torch.ones(8), dim=0)
    weights = checkpoint(tmp_path, "clip", root=root)
    assert run(image, weights, pool, tmp_path / "out", "--steps", "3") == 0
    assert json.loads((tmp_path / "out/blue.json").read_text())["root"] == "checkpoint"
    assert "stored in the checkpoint" in capsys.readouterr().out


def test_the_pool_of_hypvl_is_the_default_and_a_config_may_be_named(tmp_path: Path, image: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(**KINDS["meru"]))
    weights = checkpoint(tmp_path, "meru", config=None)
    assert (
        run(image, weights, None, tmp_path / "out", "--train-config", str(config), "--entailment", "never")
        == 0
    )
    result = json.loads((tmp_path / "out/blue.json").read_text())
    assert (result["text_pool"], len(result["steps"])) == ("everyday", 50)
    assert result["pool_size"] >= 400
    assert result["entailment_mask"] is False


def failure(capsys: pytest.CaptureFixture[str], code: int, *arguments: Any) -> str:
    assert run(*arguments) == code
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("error: ")
    return captured.err


def test_wrong_inputs_are_named_in_one_line(
    tmp_path: Path, image: Path, pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, out = checkpoint(tmp_path, "meru"), tmp_path / "out"
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG no image")
    assert "broken.png: cannot decode" in failure(capsys, 1, broken, weights, pool, out)
    assert "absent.png: cannot be read" in failure(capsys, 1, tmp_path / "absent.png", weights, pool, out)
    empty = tmp_path / "empty.json"
    empty.write_text('{"captions": []}')
    assert "empty.json: an empty text pool" in failure(capsys, 1, image, weights, empty, out)
    assert "--steps: got 1" in failure(capsys, 2, image, weights, pool, out, "--steps", "1")
    assert "no such file" in failure(capsys, 1, image, tmp_path / "absent.pth", pool, out)
    assert "no checkpoint" in failure(capsys, 1, image, image, pool, out)
    assert "--device" in failure(capsys, 2, image, weights, pool, out, "--device", "abacus")
    assert not out.exists()
    assert "would overwrite the image" in failure(capsys, 2, image, weights, pool, tmp_path)
    assert "cannot be written (" in failure(capsys, 1, image, weights, pool, image / "below")


def test_checkpoints_that_do_not_fit_are_named(
    tmp_path: Path, image: Path, pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    bare = checkpoint(tmp_path, "meru", config=None)
    assert "meru.pth: holds no config" in failure(capsys, 2, image, bare, pool, out)
    config = tmp_path / "clip.yaml"
    config.write_text(CONFIG.format(**KINDS["clip"]))
    line = failure(capsys, 1, image, checkpoint(tmp_path, "meru"), pool, out, "--train-config", str(config))
    assert "meru.pth: does not fit the model" in line
    for root, shown in (
        (torch.ones(3), r"`root` is [3]"),
        ([1.0], "`root` is list"),
        (torch.full((8,), torch.nan), "[8]"),
    ):
        assert shown in failure(capsys, 1, image, checkpoint(tmp_path, "clip", root=root), pool, out)


def test_a_config_in_a_checkpoint_runs_nothing(
    tmp_path: Path, image: Path, pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = CONFIG.format(**KINDS["clip"]).replace("hypvl.models.dual_encoder.DualEncoder", "os.system")
    line = failure(capsys, 2, image, checkpoint(tmp_path, "clip", config=evil), pool, tmp_path / "out")
    assert "os.system" in line


def test_a_model_of_texts_alone_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = LazyConfig.from_yaml(CONFIG.format(**KINDS["clip"]))
    config.model.visual = config.model.visual_head = None
    path = tmp_path / "texts.pth"
    state = {"model": instantiate(config.model).state_dict(), "config": LazyConfig.to_yaml(config)}
    torch.save({"format_version": 1, "iteration": 7, **state}, path)
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
    words = ["--image-path", str(tmp_path / "a.png"), "--checkpoint-path", str(path), "--device", "cpu"]
    assert run_main(main, words) == 2
    said = "error: model.visual: is null, so this model takes no images; give it one to encode images.\n"
    assert capsys.readouterr().err.endswith(said)
