"""Checkpoint files as other machines, precisions and wrappers write them."""

import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hypvl.errors import CheckpointError
from hypvl.models.checkpoint_io import load_checkpoint
from hypvl.models.weights import load_weights
from tests.training.tiny import tiny_batch, tiny_model


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_saved_on_a_gpu_read_without_one(tmp_path: Path) -> None:
    """open_clip: a file saved on `cuda:3` asks for that GPU when it is read; on any machine it must land on the CPU."""
    torch.save({"model": tiny_model("meru", seed=1).state_dict()}, tmp_path / "cpu.pth")
    device, there = (
        b"X\x03\x00\x00\x00cpu",
        b"X\x06\x00\x00\x00cuda:3",
    )  # as torch.save writes where tensors lived
    with zipfile.ZipFile(tmp_path / "cpu.pth") as old, zipfile.ZipFile(tmp_path / "x.pth", "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            assert content.count(device) == 1 or not entry.filename.endswith("data.pkl")
            new.writestr(entry.filename, content.replace(device, there))
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(tmp_path / "x.pth", weights_only=True)  # what others say
    assert {tensor.device.type for tensor in load_checkpoint(tmp_path / "x.pth")["model"].values()} == {"cpu"}
    model = tiny_model("meru", seed=2)
    load_weights(model, tmp_path / "x.pth")
    assert same(model, tiny_model("meru", seed=1))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(tmp_path: Path, dtype: torch.dtype, suffix: str) -> None:
    """open_clip: a file in fp16 makes the whole model fp16, which a CPU cannot run; values are taken, not the dtype."""
    weights = {name: tensor.to(dtype) for name, tensor in tiny_model("meru", seed=1).state_dict().items()}
    path = tmp_path / f"x{suffix}"
    save_file(weights, path) if suffix == ".safetensors" else torch.save({"model": weights}, path)
    model = tiny_model("meru", seed=2).eval()
    load_weights(model, path)
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.float32, name
        assert torch.equal(tensor, weights[name].float()), name
    with torch.no_grad():
        assert model.encode_image(tiny_batch(2)["image"]).isfinite().all()


def test_memory_of_others_is_not_kept(tmp_path: Path) -> None:
    """timm: loaded weights share memory with the file's tensors, so that training changes both; they must be copies."""
    weights = tiny_model("clip", seed=1).state_dict()
    before = {name: tensor.clone() for name, tensor in weights.items()}
    model = tiny_model("clip", seed=2)
    load_weights(model, {"model": weights})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(weights[name], before[name]) for name in before)


def test_wrapped_in_ddp(tmp_path: Path) -> None:
    """open_clip: files of several GPUs have `module.` before every name and load as nothing; it must not matter."""
    weights = {f"module.{name}": t for name, t in tiny_model("meru", seed=1).state_dict().items()}
    for content in (weights, {"state_dict": weights, "epoch": 3}, {"model": weights}):
        torch.save(content, tmp_path / "x.pth")
        model = tiny_model("meru", seed=2)
        load_weights(model, tmp_path / "x.pth")
        assert same(model, tiny_model("meru", seed=1))


def test_a_model_of_another_kind_changes_nothing() -> None:
    """timm: `strict=False` takes what fits, and half a model is random; a difference must be an error that names it."""
    model = tiny_model("clip", seed=2)
    with pytest.raises(CheckpointError, match=r"hyperbolic .* in the file, without a curvature in the model"):
        load_weights(model, {"model": tiny_model("meru", seed=1).state_dict()})
    assert same(model, tiny_model("clip", seed=2))


def test_tied_and_transposed_tensors_survive(tmp_path: Path) -> None:
    """safetensors: views and transposed tensors are saved in another layout, or refused; values must come back."""
    weights: dict[str, Tensor] = {}
    for name, tensor in tiny_model("clip", seed=1).state_dict().items():
        weights[name] = tensor.t().contiguous().t() if tensor.ndim == 2 else tensor
    torch.save({"model": weights}, tmp_path / "x.pth")
    model = tiny_model("clip", seed=2)
    load_weights(model, tmp_path / "x.pth")
    assert same(model, tiny_model("clip", seed=1))
