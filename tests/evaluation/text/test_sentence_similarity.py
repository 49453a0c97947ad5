"""Correlations of known scores, and the published average."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hypvl.datasets.text.pairs import SentencePairs, sts
from hypvl.embedding.encode import Encoding
from hypvl.errors import DataError, UserError
from hypvl.evaluation.protocol import Evaluator
from hypvl.evaluation.text.sentence_similarity import SentenceSimilarity, SentenceSimilarityAverage
from hypvl.geometry.lorentz import Lorentz
from tests.evaluation.miniatures import senteval
from tests.evaluation.texts import Rows, TextEvaluatorContract, TextModel


def pairs(**changes: Any) -> SentencePairs:
    """Distances 0, 1, sqrt 2, 2 apart; cosines 1, 0, 0, 0.94 ..."""
    content: dict[str, Any] = {
        "first": ["red", "red", "red", "red"],
        "second": ["a red one", "red and green", "blue", "red yellow"],
        "gold": [5.0, 3.0, 1.0, 2.0],
        "subset": ["a", "a", "b", "b"],
    }
    return SentencePairs("colours", **(content | changes))


class TestSentenceSimilarity(TextEvaluatorContract):
    evaluator_class = SentenceSimilarity

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        senteval.make(folder)
        return SentenceSimilarity(sts(folder / "senteval", year=2012), encoding=encoding)


class TestSentenceSimilarityAverage(TextEvaluatorContract):
    evaluator_class = SentenceSimilarityAverage

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        senteval.make(folder)
        data = {name: sts(folder / "senteval", year=year) for name, year in (("x", 2012), ("y", 2016))}
        return SentenceSimilarityAverage(data, encoding=encoding)


def test_by_hand() -> None:
    result = SentenceSimilarity(pairs())(TextModel())
    # Distances 0, 1, sqrt 2, |(.7, .7, 0)| = .99: ranks 4, 2, 1, 3 against gold 4, 3, 1, 2.
    assert result.metrics["spearman"] == pytest.approx(100 * (1 - 6 * 2 / 60))
    assert result.metrics["spearman_a"] == result.metrics["spearman_b"] == pytest.approx(100.0)
    # Cosines 1, .707, 0, .925.
    assert result.items["cosine"] == pytest.approx([1.0, 0.5**0.5, 0.0, 1.7 / (1.7**2 + 0.7**2) ** 0.5])
    assert result.metrics["cosine_spearman"] == pytest.approx(80.0)
    assert result.metrics["cosine_spearman_wmean"] == pytest.approx(100.0)
    assert result.items["score"][:2] == pytest.approx([0.0, -1.0])
    assert result.meta["pairs"] == 4 and "spearman_mean" in result.metrics


def test_own_score_of_a_hyperbolic_model_is_its_distance_and_the_cosine_ignores_radii() -> None:
    rows = torch.tensor([[1.0, 0.0], [3.0, 0.0], [1.2, 0.1], [0.0, 1.0]])
    data = SentencePairs("x", ["0", "0", "0"], ["1", "2", "3"], [3.0, 2.0, 1.0], [""] * 3)
    result = SentenceSimilarity(data)(Rows(rows, geometry=Lorentz(curv_init=1.0)))  # type: ignore[arg-type]
    assert result.items["cosine"] == pytest.approx([1.0, 1.2 / (1.2**2 + 0.1**2) ** 0.5, 0.0], abs=1e-6)
    assert result.metrics["cosine_spearman"] == pytest.approx(100.0)
    assert result.metrics["spearman"] == pytest.approx(-50.0)  # 1 is the farthest one
    assert set(result.metrics) == {"spearman", "cosine_spearman", "cosine_pearson"}  # one subset


def test_average_of_rounded_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    import hypvl.evaluation.text.sentence_similarity as module

    values = iter(
        [{"spearman": 10.005, "cosine_spearman": 1.0}, {"spearman": 20.0149, "cosine_spearman": 2.0}]
    )

    def measured(*args: Any, **kwargs: Any) -> module.EvaluationResult:
        return module.EvaluationResult(next(values), meta={"pairs": 2})

    monkeypatch.setattr(module, "_measure", measured)
    metrics = SentenceSimilarityAverage({"a": pairs(), "b": pairs()})(TextModel()).metrics
    assert metrics["average_spearman"] == pytest.approx((10.005 + 20.0149) / 2)
    assert metrics["average_spearman_rounded"] == round((round(10.005, 2) + 20.01) / 2, 2)
    assert metrics["average_cosine_spearman_rounded"] == 1.5 and metrics["b_spearman"] == 20.0149


def test_what_has_no_correlation() -> None:
    with pytest.raises(
        DataError, match=r"dataset: the 2 gold scores of b are all 1; expected different ones"
    ):
        SentenceSimilarity(pairs(gold=[5.0, 3.0, 1.0, 1.0]))
    same = pairs(second=["red"] * 4)
    with pytest.raises(UserError, match=r"scores of a: all 2 are -?0, and a constant has no correlation"):
        SentenceSimilarity(same)(TextModel())
    with pytest.raises(ValueError, match="datasets: got none"):
        SentenceSimilarityAverage({})
    with pytest.raises(ValueError, match="stage: got 'head'"):
        SentenceSimilarity(pairs(), stage="head")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"has no .*gold"):
        SentenceSimilarity(object())  # type: ignore[arg-type]
