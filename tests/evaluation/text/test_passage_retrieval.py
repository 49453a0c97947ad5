"""Ranks of known passages, in parts of any size."""

from pathlib import Path

import pytest

from hypvl.datasets.text.passages import ms_marco
from hypvl.embedding.encode import Encoding
from hypvl.evaluation.protocol import Evaluator
from hypvl.evaluation.text.passage_retrieval import PassageRetrieval
from tests.evaluation.miniatures import msmarco
from tests.evaluation.texts import TextEvaluatorContract, TextModel


class TestPassageRetrieval(TextEvaluatorContract):
    evaluator_class = PassageRetrieval

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        msmarco.make(folder)
        return PassageRetrieval(ms_marco(folder / "msmarco"), corpus_chunk=4, encoding=encoding)


def test_by_hand(tmp_path: Path) -> None:
    msmarco.make(tmp_path)
    data = ms_marco(tmp_path / "msmarco")
    result = PassageRetrieval(data, recall_ks=(1, 2), accuracy_ks=(1, 2))(TextModel())
    # "red green" is at distance 1 from "red" (passage 1) and from "red and green and blue" (5), at .76 from "yellow"
    # (3) ... and (.1, .2, .3) of passage 4 is at sqrt(.81 + .64 + .09) = 1.24: 3, 1, 5.
    assert result.items["rank"] == [1, 1, 2]
    assert result.items["retrieved"][2][:3] == ["3", "1", "5"] and result.items["query"] == ["20", "11", "30"]
    metrics = result.metrics
    assert metrics["mrr@10"] == pytest.approx(100 * 2.5 / 3)
    assert metrics["accuracy@1"] == pytest.approx(200 / 3) and metrics["accuracy@2"] == 100.0
    assert metrics["recall@1"] == pytest.approx(200 / 3) and metrics["recall@2"] == pytest.approx(250 / 3)
    assert metrics["precision@2"] == pytest.approx(50.0)
    assert metrics["map@100"] == pytest.approx((100 + 100 + 100 * (1 / 2 + 2 / 3) / 2) / 3)
    # By chance a query with one of six passages is hit at 1 with 1 / 6, the one with two with 2 / 6.
    assert metrics["accuracy@1_chance"] == pytest.approx(100 * 4 / 18)
    assert metrics["recall@2_chance"] == pytest.approx(100 / 3)
    assert metrics["precision@1_chance"] == pytest.approx(100 * 4 / 18)
    # Cosines: (1, 1, 0) with yellow 1, with (1, 1, 1) .816, with red .707.
    assert metrics["cosine_mrr@10"] == pytest.approx(100 * 2.5 / 3)
    assert result.meta["passages"] == 6 and result.meta["queries_without_relevant"] == 1


@pytest.mark.parametrize("corpus_chunk", [1, 4, 100])
def test_parts_do_not_matter_and_no_more_is_encoded_at_once(tmp_path: Path, corpus_chunk: int) -> None:
    msmarco.make(tmp_path)
    data = ms_marco(tmp_path / "msmarco")
    expected = PassageRetrieval(data)(TextModel())
    result = PassageRetrieval(data, corpus_chunk=corpus_chunk, query_chunk=1, key_chunk=2)(TextModel())
    assert result.metrics == pytest.approx(expected.metrics) and result.items == expected.items


def test_wrong_settings(tmp_path: Path) -> None:
    msmarco.make(tmp_path)
    with pytest.raises(ValueError, match="recall_ks: got 0"):
        PassageRetrieval(ms_marco(tmp_path / "msmarco"), recall_ks=(10, 0))
