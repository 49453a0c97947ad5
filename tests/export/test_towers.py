"""Towers of other kinds as ONNX files. An export compares itself with the model, on other batches and lengths."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from hypvl.encoders.heads import ScaledProjectionHead
from hypvl.encoders.image import TimmImageEncoder
from hypvl.encoders.text import TextTransformer
from hypvl.encoders.text_huggingface import HuggingFaceTextEncoder
from hypvl.export import export_onnx
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import NegativeDistance
from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.foreign import load_foreign
from tests.encoders.texts import TEXTS, saved_model

pytest.importorskip("onnxscript")
pytestmark = pytest.mark.slow
TIMM = ["resnet18", "convnext_atto"]
OWN: dict[str, Callable[[], nn.Module]] = {
    "not causal": lambda: TextTransformer("L1_W64", causal=False, read_out="last"),
    "largest id": lambda: TextTransformer("L1_W64", read_out="largest_id"),
    "prompt vectors": lambda: TextTransformer("L1_W64", prompt_vectors=4),
}
POOLERS = [("bert", "cls"), ("bert", "mean"), ("roberta", "mean"), ("gpt2", "last"), ("bert", "prompt")]


def model(visual: nn.Module | None = None, textual: nn.Module | None = None) -> DualEncoder:
    head = partial(ScaledProjectionHead, out_features=8)
    return DualEncoder(
        visual,
        textual,
        visual_head=None if visual is None else head,
        textual_head=None if textual is None else head,
        geometry=Lorentz(),
        scorer=NegativeDistance(),
    ).eval()


@pytest.mark.parametrize("arch", TIMM)
def test_towers_of_timm(arch: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tower = model(visual=TimmImageEncoder(arch, image_size=64))
    assert export_onnx(tower, "image", tmp_path / "image.onnx")["largest_difference"] < 1e-4


@pytest.mark.parametrize("kind", OWN)
def test_text_towers_of_every_layout(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    assert (
        export_onnx(model(textual=OWN[kind]()), "text", tmp_path / "text.onnx")["largest_difference"] < 1e-4
    )


@pytest.mark.parametrize(("kind", "pooler"), POOLERS)
@torch.no_grad()
def test_text_towers_of_transformers_are_read_back_with_their_tokenizer(
    kind: str, pooler: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    more = {"template": 'the sentence "{}" means [MASK] .'} if pooler == "prompt" else {}
    textual = HuggingFaceTextEncoder(
        str(saved_model(tmp_path / "hf", kind)), context_length=24, pooler=pooler, **more  # type: ignore[arg-type]
    )  # fmt: skip
    tower = model(visual=TimmImageEncoder("resnet18", image_size=32), textual=textual)
    folder = tmp_path / "onnx"
    export_onnx(tower, "image", folder / "image.onnx")
    assert export_onnx(tower, "text", folder / "text.onnx")["largest_difference"] < 1e-4
    again = load_foreign(f"onnx:{folder}").model
    assert torch.equal(again.tokenizer(TEXTS), tower.tokenizer(TEXTS))
    expected = tower.encode_text(tower.tokenizer(TEXTS))
    torch.testing.assert_close(again.encode_text(again.tokenizer(TEXTS)), expected, atol=1e-4, rtol=1e-4)
