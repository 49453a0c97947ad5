"""What a GPU runs: the steps between a tile's products as one graph each, and what happens where that fails."""

import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from hypvl.geometry import tiles
from hypvl.losses.base import IMAGE, TEXT, LossTerm
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.uncertainty import GlobalLocalContrastive
from hypvl.ops.tiled_logsumexp import autograd, tile_steps
from hypvl.ops.tiled_logsumexp.tile_steps import Step
from tests.losses.test_info_nce import value_and_gradients
from tests.losses.toy import random_features

PAIRS = (("image", "text"), ("text", "image"))
CASES: dict[str, tuple[str, LossTerm]] = {
    "cosine, smoothed": ("clip", Contrastive(implementation="tiled", tile=(4, 3), label_smoothing=0.1)),
    "squared distance": ("euclip", Contrastive(implementation="tiled", tile=(4, 3))),
    "distance": ("meru", Contrastive(implementation="tiled", tile=(4, 3))),
    "distance, one way": ("meru", Contrastive((("text", "image"),), implementation="tiled", tile=(4, 3))),
    "distance, labels": ("meru", Contrastive(implementation="tiled", tile=(4, 3), labels="labels")),
    "angle, smoothed": ("atmg", Contrastive(implementation="tiled", tile=(4, 3), label_smoothing=0.1)),
    "angle, scale of a row": ("atmg", GlobalLocalContrastive(PAIRS, implementation="tiled", tile=(4, 3))),
}


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Step, Step]]:
    """Fresh steps that are compiled on a processor, too; a failed one shows as a warning, which is an error here."""
    fresh = Step(tile_steps.collect), Step(tile_steps.gradient)
    monkeypatch.setattr(autograd, "should_compile", lambda device: True)
    monkeypatch.setattr(autograd, "_COLLECT", fresh[0])
    monkeypatch.setattr(autograd, "_GRADIENT", fresh[1])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the tiled loss could not be compiled")
        yield fresh


def found(case: str, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    name, term = CASES[case]
    rows = {IMAGE: random_features(11, seed=0).to(dtype), TEXT: random_features(11, seed=1).to(dtype)}
    return value_and_gradients(term, name, rows, {"labels": torch.arange(11) % 4 - 1})


def check(case: str, dtype: torch.dtype = torch.float64) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autograd, "should_compile", lambda device: False)
        wanted = found(case, dtype)
    for a, b in zip(found(case, dtype), wanted, strict=True):
        near = (1e-10, 1e-12) if dtype == torch.float64 else (1e-4, 1e-6)
        torch.testing.assert_close(a, b, rtol=near[0], atol=near[1])


@pytest.mark.slow
@pytest.mark.parametrize("case", ["distance", "angle, scale of a row", "cosine, smoothed"])
def test_each_step_is_one_graph(case: str, steps: tuple[Step, Step], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_steps, "BACKEND", "eager")  # traced whole, then run as it is
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_generated_code_gives_the_same(case: str, dtype: torch.dtype, steps: tuple[Step, Step]) -> None:
    check(case, dtype)


@pytest.mark.slow
def test_where_nothing_can_be_compiled_it_runs_as_written(
    steps: tuple[Step, Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(graph: object, example: object) -> None:
        raise RuntimeError("Cannot find a working triton installation.\nMore lines.")

    monkeypatch.setattr(tile_steps, "BACKEND", broken)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        check("distance")
    messages = [str(w.message) for w in seen if "could not be compiled" in str(w.message)]
    assert len(messages) == 2  # forward and backward, once each
    assert "triton installation" in messages[0] and "TORCH_COMPILE_DISABLE=1" in messages[0]


def test_without_buffers_nothing_given_is_changed() -> None:
    """A step that failed half way runs again from the same tile."""
    x = random_features(3, seed=0)
    scores = tiles.negative_lorentz_distance(x, x + 1, curv=torch.tensor(1.0))
    kernel = scores.kernel(scores.row_terms, scores.column_terms, x.dtype)
    product = scores.rows @ scores.columns.mT
    every = slice(None)
    tile = tile_steps.Tile(product, kernel.at(every, every), scores.scale, torch.arange(3), torch.arange(3))
    zeros = torch.zeros(3, dtype=torch.float64)
    nothing = tile_steps.OnlineStats(zeros - torch.inf, zeros, zeros[:0], zeros, zeros[:0])
    before = product.clone()
    rows, columns = tile_steps.collect(scores.kernel, tile, nothing, nothing, labelled=False, sums=False)
    assert columns is not None and bool((rows.total >= 1).all())
    assert torch.equal(product, before) and bool((nothing.total == 0).all())
