"""Models in ONNX files: the same numbers as onnxruntime's own run, from a raw image and a raw text."""

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hypvl.data.tokenizer import get_tokenizer
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.embedding.identity import model_identity
from hypvl.errors import CheckpointError, ConfigError, UserError
from hypvl.geometry.lorentz import Lorentz, pairwise_dist
from hypvl.models.foreign import load_foreign
from tests.models.foreign import tiny

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
from tests.models.foreign import tiny_onnx  # noqa: E402  # needs onnx


def run(path: Path, **inputs: np.ndarray) -> np.ndarray:
    result: np.ndarray = onnxruntime.InferenceSession(str(path)).run(None, inputs)[0]
    return result


def photos(model: Any) -> torch.Tensor:
    """Three images as the model takes them."""
    shapes = ((71, 50), (33, 90), (64, 64))
    return torch.stack([ResizeCenterCrop.of(model)(tiny.as_tensor(tiny.photo(*shape))) for shape in shapes])


@torch.no_grad()
def test_an_image_encoder_alone_as_hyper_models_has_it(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    tiny_onnx.image_encoder(path, apart=True)
    foreign = load_foreign(f"onnx:{tmp_path}")  # the folder, or the file
    model = foreign.model
    images = photos(model)
    points = torch.from_numpy(run(path, image=(images / 255).numpy()))  # (3, D + 1), time first
    embeddings = model.encode_image(images)
    assert float((embeddings - points[:, 1:]).abs().max()) <= 1e-5
    assert torch.equal(model.encode_image(images, stage="trunk"), points)
    assert isinstance(model.geometry, Lorentz)
    assert model.geometry.curv.item() == pytest.approx(tiny_onnx.CURV, rel=1e-4)
    assert set(foreign.about["files"]) == {"model.onnx", "model.onnx.data"}
    with pytest.raises(ConfigError, match="this model takes no texts"):
        model.encode_text(torch.ones(1, 2, dtype=torch.int64))


@torch.no_grad()
@pytest.mark.parametrize("points", [True, False])
@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("length", [tiny_onnx.LENGTH, "length"])
def test_a_pair_of_encoders(points: bool, mask: bool, length: Any, tmp_path: Path) -> None:
    image_path, text_path = tmp_path / "a.onnx", tmp_path / "b.onnx"
    tiny_onnx.image_encoder(image_path, points=points)
    tiny_onnx.text_encoder(text_path, points=points, mask=mask, length=length)
    model = load_foreign(f"onnx:{image_path},{text_path}").model
    image, text = model.encode_image(photos(model)), model.encode_text(model.tokenizer(tiny.TEXTS))
    fixed = isinstance(length, int)
    tokens = get_tokenizer(length if fixed else 77, padding="max_length" if fixed else "longest")(
        tiny.TEXTS
    ).numpy()
    inputs = {"input_ids": tokens} | ({"attention_mask": (tokens != 0).astype(np.int64)} if mask else {})
    wanted = torch.from_numpy(run(text_path, **inputs))
    scores = model.scores(image, text, query_modality="image", key_modality="text")
    if points:
        assert float((text - wanted[:, 1:]).abs().max()) <= 1e-5 * float(wanted.abs().max())
        distances = pairwise_dist(image, text, curv=tiny_onnx.CURV)
        assert torch.equal(scores.argsort(-1), (-distances).argsort(-1))
    else:
        unit = torch.nn.functional.normalize(wanted, dim=-1)
        assert float((text - unit).abs().max()) <= 1e-5
        assert float((scores - image @ unit.T).abs().max()) <= 1e-5


@torch.no_grad()
def test_a_fixed_batch_size_takes_any_number_of_images(tmp_path: Path) -> None:
    tiny_onnx.image_encoder(tmp_path / "two.onnx", batch=2)
    tiny_onnx.image_encoder(tmp_path / "any.onnx")
    two, free = (load_foreign(f"onnx:{tmp_path / name}").model for name in ("two.onnx", "any.onnx"))
    images = photos(free)
    torch.testing.assert_close(two.encode_image(images), free.encode_image(images))


def test_two_files_are_two_models(tmp_path: Path) -> None:
    names = []
    for curv in (0.5, 0.7):
        tiny_onnx.image_encoder(tmp_path / "model.onnx", points=False, notes={"c": str(curv)})
        names.append(model_identity(load_foreign(f"onnx:{tmp_path}").model))
    assert names[0] is not None and names[0] != names[1]


def test_the_curvature_that_a_file_notes(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    tiny_onnx.image_encoder(path, notes={"curvature": "-0.5"})
    assert load_foreign(f"onnx:{path}").model.geometry.curv.item() == pytest.approx(0.5, rel=1e-6)
    tiny_onnx.image_encoder(path, notes={"curvature": "1.0"})
    with pytest.raises(CheckpointError, match=r"notes the curvature 1\.0, but its points have 0\.5"):
        load_foreign(f"onnx:{path}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "pixel_values"},
            "normalised already, by a mean and a deviation that the file does not say",
        ),
        (
            {"size": "side"},
            r"input image float \['batch', 3, 'side', 'side'\]; expected 3 channels and a square",
        ),
        ({"curv": -0.5}, "is on no hyperboloid"),
    ],
)
def test_image_encoders_of_other_kinds(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    tiny_onnx.image_encoder(tmp_path / "model.onnx", **options)
    with pytest.raises(CheckpointError, match=message):
        load_foreign(f"onnx:{tmp_path}")


def test_files_that_do_not_fit_or_are_not_there(tmp_path: Path) -> None:
    image_path, text_path = tmp_path / "image.onnx", tmp_path / "text.onnx"
    with pytest.raises(
        CheckpointError, match=r"or a folder with image\.onnx or model\.onnx and perhaps text\.onnx"
    ):
        load_foreign(f"onnx:{tmp_path}")
    with pytest.raises(CheckpointError, match=r"image\.onnx: no such file"):
        load_foreign(f"onnx:{image_path}")
    tiny_onnx.image_encoder(image_path, apart=True)
    tiny_onnx.text_encoder(text_path, points=False)
    with pytest.raises(CheckpointError, match="outputs embedding_hyperboloid of 7 and vectors of 6 numbers"):
        load_foreign(f"onnx:{tmp_path}")
    with pytest.raises(CheckpointError, match=r"inputs image float .* expected token ids int64 \[B, L\]"):
        load_foreign(f"onnx:{image_path},{image_path}")
    with pytest.raises(CheckpointError, match="expected one, an image float"):
        load_foreign(f"onnx:{text_path}")
    (tmp_path / "image.onnx.data").unlink()
    with pytest.raises(CheckpointError, match=r"onnxruntime cannot read it .*\(image\.onnx\.data\)"):
        load_foreign(f"onnx:{image_path}")
    image_path.write_bytes(b"no network")
    with pytest.raises(CheckpointError, match="expected an ONNX file"):
        load_foreign(f"onnx:{image_path}")


def test_without_onnxruntime_the_pip_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(UserError, match=r"pip install 'hypvl\[onnx\]'"):
        load_foreign("onnx:model.onnx")
