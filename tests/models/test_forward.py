"""model(images, texts), and what wraps, records or compiles a model through it."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.models.dual_encoder import DualEncoder
from hypvl.models.hub import create_model
from tests.models.test_hub import IMAGES, TINY, TOKENS

GEOMETRIES = {
    "lorentz": {},
    "sphere": {
        "geometry": {"_target_": "hypvl.geometry.sphere.Sphere"},
        "scorer": {"_target_": "hypvl.geometry.scorers.Cosine"},
    },
    "euclidean": {"geometry": {"_target_": "hypvl.geometry.euclidean.Euclidean"}},
    "product": {"geometry": {"_target_": "hypvl.geometry.product.Product", "factors": 2, "factor_dim": 4}},
}


def build(name: str = "lorentz") -> DualEncoder:
    torch.manual_seed(0)
    return create_model({"model": {**TINY, **GEOMETRIES[name]}}).requires_grad_(False)


def texts(rows: int, length: int) -> Tensor:
    """Rows of different lengths, padded with 0; the longest fills its row."""
    ends = [length - 1] + [2 + i % (length - 2) for i in range(rows - 1)]
    tokens = torch.zeros(rows, length, dtype=torch.int64)
    for i, end in enumerate(ends):
        tokens[i, :end] = torch.arange(end) + 3 + i
        tokens[i, 0], tokens[i, end] = 48, 49
    return tokens


def images(rows: int) -> Tensor:
    return torch.arange(rows * 3 * 32 * 32).mul(7).remainder(251).to(torch.uint8).view(rows, 3, 32, 32)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_call_gives_both_embeddings(name: str) -> None:
    model = build(name)
    got = model(IMAGES, TOKENS[:1])
    assert torch.equal(got[0], model.encode_image(IMAGES)) and torch.equal(
        got[1], model.encode_text(TOKENS[:1])
    )
    wrapped = torch.nn.DataParallel(model)(IMAGES, TOKENS)
    torch.testing.assert_close(wrapped, model(IMAGES, TOKENS))


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_trace_holds_for_other_layouts_of_texts(name: str) -> None:
    """Texts of other lengths in another order, more of them, longer ones: as the model itself."""
    model = build(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of every Python number
        traced = torch.jit.trace(model, (IMAGES, texts(3, 5)))
    for rows, length in ((3, 5), (5, 5), (4, 9), (1, 3)):
        for tokens in (texts(rows, length), texts(rows, length).flip(0)):
            torch.testing.assert_close(traced(images(rows), tokens), model(images(rows), tokens))


@pytest.mark.parametrize(
    "name",
    ["lorentz", *(pytest.param(name, marks=pytest.mark.slow) for name in GEOMETRIES if name != "lorentz")],
)
def test_an_export_holds_for_other_layouts_of_texts(name: str) -> None:
    model = build(name)
    free: Any = torch.export.Dim.AUTO
    program = torch.export.export(
        model, (images(4), texts(3, 5)), dynamic_shapes=({0: free}, {0: free, 1: free})
    ).module()
    for rows, length in ((3, 5), (5, 7), (4, 9)):
        torch.testing.assert_close(
            program(images(rows), texts(rows, length)), model(images(rows), texts(rows, length))
        )


def test_compiling_a_model_compiles_its_encoders_for_every_method(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def compiled(function: Any, **options: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(type(function.__self__).__name__)
            return function(*args, **kwargs)

        assert options == {"dynamic": True}
        return call

    monkeypatch.setattr("torch.compile", compiled)
    model = build()
    expected = model(IMAGES, TOKENS)
    model.compile(dynamic=True)
    torch.testing.assert_close(model(IMAGES, TOKENS), expected)
    model.encode_image(IMAGES, stage="trunk")
    assert calls == ["TimmImageEncoder", "TextTransformer", "TimmImageEncoder"]
