"""Triplets by hand."""

from pathlib import Path

import pytest

from hypvl.datasets.text.triplets import wiki_sections
from hypvl.embedding.encode import Encoding
from hypvl.evaluation.protocol import Evaluator
from hypvl.evaluation.text.triplets import TripletAccuracy
from tests.evaluation.miniatures import wikisections
from tests.evaluation.texts import TextEvaluatorContract, TextModel


class TestTripletAccuracy(TextEvaluatorContract):
    evaluator_class = TripletAccuracy

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        wikisections.make(folder)
        return TripletAccuracy(wiki_sections(folder / "wikisections"), encoding=encoding)


def test_equal_texts_tie_and_a_tie_is_a_miss(tmp_path: Path) -> None:
    wikisections.make(tmp_path)
    result = TripletAccuracy(wiki_sections(tmp_path / "wikisections"))(TextModel())
    assert result.items["correct"] == result.items["cosine_correct"] == [True, False, False, True]
    for name in ("accuracy", "cosine_accuracy", "euclidean_accuracy", "manhattan_accuracy"):
        assert result.metrics[name] == 50.0 == result.metrics[f"{name}_chance"], name
    assert result.meta["triplets"] == 4 and result.samples["accuracy"] == pytest.approx([100, 0, 0, 100])
