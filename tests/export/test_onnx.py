"""Towers as ONNX files: the numbers of the model in onnxruntime, for other batches, lengths and places of the end."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hypvl.errors import UserError
from hypvl.export import export_onnx
from hypvl.models.foreign import load_foreign
from tests.models.test_forward import GEOMETRIES, build, images, texts

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
SLOW = pytest.mark.slow
ATMG = {"scorer": {"_target_": "hypvl.geometry.scorers.ExteriorAngle"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both towers of a tiny MERU."""
    folder = tmp_path_factory.mktemp("meru")
    export_pair(build("lorentz"), folder)
    return folder


def export_pair(model: Any, folder: Path) -> None:
    for tower in ("image", "text"):
        export_onnx(model, tower, folder / f"{tower}.onnx")  # type: ignore[arg-type]


def run(path: Path, **inputs: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return [torch.from_numpy(np.array(output)) for output in outputs]


@torch.no_grad()
def check_pair(model: Any, folder: Path) -> None:
    """Features and embeddings of images and texts, to 1e-4."""
    for rows in (1, 5):
        pixels = images(rows)
        outputs = run(folder / "image.onnx", image=pixels.float() / 255)
        for output, stage in zip(outputs, ("features", "embeddings"), strict=True):
            torch.testing.assert_close(output, model.encode_image(pixels, stage=stage), atol=1e-4, rtol=1e-4)
    for rows, length in ((1, 3), (5, 5), (5, 9)):
        tokens = texts(rows, length)
        outputs = run(folder / "text.onnx", tokens=tokens)
        for output, stage in zip(outputs, ("features", "embeddings"), strict=True):
            torch.testing.assert_close(output, model.encode_text(tokens, stage=stage), atol=1e-4, rtol=1e-4)


def test_meru_gives_the_model_s_numbers_for_any_batch_and_text(folder: Path) -> None:
    check_pair(build("lorentz"), folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in GEOMETRIES if name != "lorentz"])
def test_other_geometries_give_the_model_s_numbers(name: str, tmp_path: Path) -> None:
    export_pair(build(name), tmp_path)
    check_pair(build(name), tmp_path)


def test_the_file_and_the_json_beside_it_say_what_the_tower_is(folder: Path) -> None:
    session = onnxruntime.InferenceSession(str(folder / "image.onnx"))
    assert [(slot.name, slot.shape) for slot in session.get_inputs()] == [("image", ["batch", 3, 32, 32])]
    assert [(slot.name, slot.shape) for slot in session.get_outputs()] == [
        ("features", ["batch", 8]),
        ("embeddings", ["batch", 8]),
    ]
    notes = session.get_modelmeta().custom_metadata_map
    assert (notes["geometry"], float(notes["curvature"])) == ("Lorentz", pytest.approx(-0.5))
    beside = json.loads((folder / "image.json").read_text())
    assert beside["largest_difference"] < 1e-4 and beside["image"]["size"] == 32
    assert {**json.loads(notes["hypvl"]), "largest_difference": beside["largest_difference"]} == beside
    text = onnxruntime.InferenceSession(str(folder / "text.onnx"))
    assert [(slot.name, slot.shape) for slot in text.get_inputs()] == [("tokens", ["batch", "length"])]
    assert b"/work/" not in (folder / "text.onnx").read_bytes()  # no places in source files
    assert sorted(path.name for path in folder.iterdir()) == [
        "image.json", "image.onnx", "text.json", "text.onnx",
    ]  # fmt: skip


@torch.no_grad()
def test_hypvl_reads_the_pair_back_with_geometry_and_scorer(folder: Path) -> None:
    model, again = build("lorentz"), load_foreign(f"onnx:{folder}").model
    pixels, tokens = images(3), texts(4, 7)
    image, text = (one.encode_image(pixels) for one in (model, again))
    torch.testing.assert_close(image, text, atol=1e-5, rtol=1e-5)
    prompts = [
        [one.encode_text(tokens[i : i + 2], stage="features") for i in (0, 2)] for one in (model, again)
    ]
    torch.testing.assert_close(
        model.class_scores(image, prompts[0]), again.class_scores(image, prompts[1]), atol=1e-5, rtol=1e-5
    )
    ways: dict[str, Any] = {"query_modality": "image", "key_modality": "text"}
    torch.testing.assert_close(
        model.scores(image, model.encode_text(tokens), **ways),
        again.scores(image, again.encode_text(tokens), **ways),
        atol=1e-5, rtol=1e-5,
    )  # fmt: skip
    assert again.geometry.curvature_range == model.geometry.curvature_range
    assert again.context_length == model.context_length and again.geometry.curv == model.geometry.curv  # type: ignore[attr-defined]


def test_what_cannot_be_exported_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("sphere")
    with pytest.raises(ValueError, match="tower: got 'txt'; expected 'image' or 'text'"):
        export_onnx(model, "txt", tmp_path / "a.onnx")  # type: ignore[arg-type]
    with pytest.raises(
        UserError, match=r"hyper-models: loads points of one hyperboloid, but .* Sphere is no"
    ):
        export_onnx(model, "image", tmp_path / "a.onnx", layout="hyper-models")
    with pytest.raises(UserError, match="a product of 2 of them; export with --to onnx"):
        export_onnx(build("product"), "image", tmp_path / "a.onnx", layout="hyper-models")
    with pytest.raises(UserError, match=r"hyper-models: loads image towers .* alone"):
        export_onnx(model, "text", tmp_path / "a.onnx", layout="hyper-models")
    monkeypatch.setattr(model.visual, "forward", lambda images: images.mean((1, 2, 3)).item())
    with pytest.raises(
        UserError, match=r"the image tower: torch cannot export it to ONNX \(TypeError: .*SymFloat"
    ):
        export_onnx(model, "image", tmp_path / "a.onnx")
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"pip install 'hypvl\[export-onnx\]'"):
        export_onnx(model, "image", tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_hyper_models_loads_the_image_tower(tmp_path: Path) -> None:
    hyper_models = pytest.importorskip("hyper_models")
    from hyper_models.models import ONNXModel
    from hyper_models.preprocessing import ImageConfig

    model = build("lorentz")
    export_onnx(model, "image", tmp_path / "model.onnx", layout="hyper-models")
    assert (tmp_path / "model.onnx.data").is_file()
    pixels = images(3)
    image = (pixels.float() / 255).numpy()
    dim = model.embed_dim + 1
    own = ONNXModel(tmp_path / "model.onnx", "hyperboloid", dim, image_config=ImageConfig(size=32))
    by_name = hyper_models.load("meru-vit-b", local_path=tmp_path / "model.onnx")
    x = model.encode_image(pixels)
    t = (1 / model.geometry.curv + x.square().sum(-1, keepdim=True)).sqrt()  # type: ignore[attr-defined]
    for loaded in (own, by_name):
        points = torch.from_numpy(loaded.encode(image))
        torch.testing.assert_close(points, torch.cat((t, x), dim=-1), atol=1e-4, rtol=1e-4)
    again = load_foreign(f"onnx:{tmp_path}").model
    torch.testing.assert_close(again.encode_image(pixels), x, atol=1e-4, rtol=1e-4)
