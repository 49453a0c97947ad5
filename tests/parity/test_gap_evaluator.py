"""i0t.json through the evaluator: gaps before and after I0T_post, and the sweep, of a model that knows its rows."""

from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.embedding.encode import Encoding
from hypvl.evaluation.modality_gap import ModalityGap
from hypvl.evaluation.protocol import EvaluationResult
from hypvl.geometry.sphere import Sphere
from tests.evaluation.fakes import FakeModel
from tests.parity.reference import cases, load, number
from tests.parity.test_i0t import METRICS, section

# The reference is fp64 throughout; the model here hands out fp64 too.
CLOSE = {"rel": 1e-9, "abs": 1e-9}


class Rows(FakeModel):
    """Image i and text i are the rows i of the file."""

    geometry = Sphere()

    def __init__(self, images: Tensor, texts: Tensor) -> None:
        super().__init__()
        self.images, self.texts = images, texts

    def encode_image(self, images: Tensor, stage: str = "embeddings") -> Tensor:
        return self.images[images[:, 0, 0, 0].long()]

    def encode_text(self, tokens: Tensor, stage: str = "embeddings") -> Tensor:
        return self.texts[tokens[:, 0]]


class Numbered:
    """Images and captions that say which row they are."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.captions = [str(i) for i in range(count)]
        self.caption_image = list(range(count))
        self.keys = self.captions
        self.images = self

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        return torch.full((3, 8, 8), index, dtype=torch.uint8)


def result(deltas: list[float]) -> EvaluationResult:
    inputs = section("inputs")
    x, y = (torch.tensor(number(inputs[m]), dtype=torch.float64) for m in ("image", "text"))
    evaluator = ModalityGap(
        Numbered(len(x)),
        deltas=deltas,
        encoding=Encoding(num_workers=0),
        tokenizer=lambda texts: torch.tensor([[int(text)] for text in texts]),
    )
    return evaluator(Rows(x, y))


@pytest.mark.parametrize(("stage", "prefix"), [("before", ""), ("after_own_mean", "after_")])
def test_gap_metrics(stage: str, prefix: str) -> None:
    case = section("gap_metrics")
    if stage not in case:
        pytest.skip(f"i0t.json gives no {stage}")
    results = result([]).metrics
    for key, value in case[stage].items():
        name = METRICS.get(key, key)
        scale = 100.0 if name == "linear_separability" else 1.0
        assert results[f"{prefix}{name}"] == pytest.approx(scale * number(value), **CLOSE), key


def test_align_and_uniform() -> None:
    case, results = section("align_uniform"), result([]).metrics
    given = [name for name in ("align", "uniform_image", "uniform_text") if name in case]
    assert given
    for name in given:
        assert results[name] == pytest.approx(number(case[name]), **CLOSE), name


@pytest.mark.parametrize("named", cases("i0t", "move_features"))
def test_sweep(named: tuple[str, Any] | None) -> None:
    assert named is not None and load("i0t") is not None
    name, expected = named
    if not isinstance(expected, dict) or not name.startswith("delta="):
        pytest.skip(f"{name} is a note")
    items = result([float(name.partition("=")[2])]).items
    checked = 0
    for key in ("centroid_distance", "signed_centroid_distance"):
        if key in expected:
            assert items[f"curve_{key}"] == [pytest.approx(number(expected[key]), **CLOSE)]
            checked += 1
    assert checked or not {"centroid_distance", "signed_centroid_distance"} & set(expected)


def test_nothing_is_written() -> None:
    """The model's rows stay as they are: centring and moving make new ones."""
    inputs = section("inputs")
    before = torch.tensor(number(inputs["image"]), dtype=torch.float64)
    model = Rows(before.clone(), torch.tensor(number(inputs["text"]), dtype=torch.float64))
    ModalityGap(
        Numbered(len(before)),
        encoding=Encoding(num_workers=0),
        tokenizer=lambda texts: torch.tensor([[int(text)] for text in texts]),
    )(model)
    assert torch.equal(model.images, before)
