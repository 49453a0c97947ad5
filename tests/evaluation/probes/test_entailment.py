"""A classifier of entailment learnt from captions, on images of the same colours."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hypvl.datasets.text.snli_ve import snli_ve
from hypvl.embedding.encode import Encoding
from hypvl.embedding.protocol import EvaluableModel
from hypvl.errors import DataError
from hypvl.evaluation.probes.entailment import VisualEntailment, _Rows
from hypvl.evaluation.protocol import Evaluator
from hypvl.geometry.euclidean import Euclidean
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import FakeModel, FakeTokenizer
from tests.evaluation.miniatures import snli_ve as miniature


def entailment(folder: Path, **settings: Any) -> VisualEntailment:
    root, images = folder / "snli_ve", folder / "flickr30k" / "flickr30k_images"
    return VisualEntailment(
        snli_ve(root, split="train"),
        snli_ve(root, split="dev"),
        snli_ve(root, split="test", images=images),
        tokenizer=FakeTokenizer(),
        **({"hidden": 32, "epochs": 3, "batch_size": 12, "learning_rate": 0.01} | settings),
    )


def fake() -> Any:
    model = FakeModel()
    model.geometry = Euclidean()
    return model


class TestVisualEntailment(EvaluatorContract):
    evaluator_class = VisualEntailment

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        miniature.make(folder, bad=bad)
        return entailment(folder, encoding=encoding)

    def model(self) -> EvaluableModel:
        return fake()


def test_inputs_by_hand() -> None:
    p, h = torch.tensor([[0.0, 0.0], [1.0, 2.0]]), torch.tensor([[3.0, -1.0]])
    rows = _Rows(p, h, torch.tensor([1]), torch.tensor([0]), torch.tensor([0]))
    assert rows.inputs(torch.tensor([0])).tolist() == [[1, 2, 3, -1, 4, 1, -2, 3, 3, -2]]


def test_what_captions_teach_holds_for_images(tmp_path: Path) -> None:
    miniature.make(tmp_path)
    evaluator = entailment(tmp_path, epochs=40)
    result = evaluator(fake())
    assert result.metrics["text_accuracy"] == result.metrics["accuracy"] == 100.0
    assert result.metrics["accuracy_chance"] == pytest.approx(100 / 3)
    assert result.items["predicted"][:3] == ["entailment", "contradiction", "neutral"]
    assert result.meta["dev_text_accuracy"] == 100.0 and 1 <= result.meta["epoch"] <= 40
    assert "not verified" in result.meta["verified"] and result.meta["rows_without_agreement"] == 1
    assert evaluator(fake()).metrics == result.metrics  # the seed decides


def test_the_test_needs_images(tmp_path: Path) -> None:
    miniature.make(tmp_path)
    part = snli_ve(tmp_path / "snli_ve", split="dev")
    with pytest.raises(DataError, match="test: has no images"):
        VisualEntailment(part, part, part)
    with pytest.raises(ValueError, match="learning_rate: got 0"):
        entailment(tmp_path, learning_rate=0.0)
