"""Answers of a model that knows colours."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hypvl.datasets.vqa import vqa_v2
from hypvl.embedding.encode import Encoding
from hypvl.evaluation.protocol import Evaluator
from hypvl.evaluation.vqa import ZeroShotVQA
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import FakeModel, FakeTokenizer
from tests.evaluation.miniatures import vqa


def questions(folder: Path, *, bad: int = 0) -> Any:
    vqa.make(folder, bad=bad)
    return vqa_v2(folder / "vqa", images=folder / "coco" / "val2014")


class TestZeroShotVQA(EvaluatorContract):
    evaluator_class = ZeroShotVQA

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        return ZeroShotVQA(questions(folder, bad=bad), chunk=2, tokenizer=FakeTokenizer(), encoding=encoding)


def test_by_hand(tmp_path: Path) -> None:
    result = ZeroShotVQA(questions(tmp_path), candidates=2, tokenizer=FakeTokenizer())(FakeModel())
    # Red and green balls get the words for their colours. "the ball is red" and its negation tie, and so do all
    # numbers: the first wins.
    assert result.items["answer"] == ["red", "green", "yes", "1"]
    assert result.items["statement"][:1] + result.items["statement"][2:] == [
        "the ball is [MASK]", "the ball is red", "[MASK] balls are there",
    ]  # fmt: skip
    # Nine of ten people said red, two green; five 1.
    assert result.items["accuracy"] == pytest.approx([100.0, 60.0, 0.0, 100.0])
    metrics = result.metrics
    assert metrics["vqa_accuracy"] == pytest.approx(65.0)
    assert metrics["vqa_accuracy_other"] == pytest.approx(80.0) and metrics["vqa_accuracy_yes_no"] == 0.0
    # Of red, green, blue, 1 and 2 the first question takes red (100) and green (30).
    assert metrics["vqa_accuracy_other_chance"] == pytest.approx((130 / 5 + 160 / 5) / 2)
    assert metrics["vqa_accuracy_yes_no_chance"] == 50.0
    assert metrics["vqa_accuracy_number_chance"] == pytest.approx(100.0)
    assert "not verified" in result.meta["verified"] and result.meta["templates"] == "rules"


def test_the_filter_retains_what_fits_the_image_by_itself(tmp_path: Path) -> None:
    class Contrary(FakeModel):
        """Wants the darkest statement, but "a photo of" counts as it should."""

        def encode_text(self, tokens: torch.Tensor, stage: str = "embeddings") -> torch.Tensor:
            return super().encode_text(tokens)

        def scores(self, query: torch.Tensor, key: torch.Tensor, **modalities: str) -> torch.Tensor:
            own = super().scores(query, key, **modalities)  # type: ignore[arg-type]
            return own if own.shape[1] in (2, 5) and len(query) > 2 else -own

    data = questions(tmp_path)
    one = ZeroShotVQA(data, candidates=1, chunk=1, tokenizer=FakeTokenizer())(Contrary())
    assert one.items["answer"][:2] == [
        "red",
        "green",
    ]  # the only candidate wins, whatever its statement scores
    every = ZeroShotVQA(data, candidates=9, chunk=1, tokenizer=FakeTokenizer())(Contrary())
    assert every.items["answer"][0] != "red"


def test_wrong_settings(tmp_path: Path) -> None:
    data = questions(tmp_path)
    with pytest.raises(ValueError, match="candidates: got 0"):
        ZeroShotVQA(data, candidates=0)
    with pytest.raises(ValueError, match="has no place"):
        ZeroShotVQA(data, filter_prompt="a photo")
