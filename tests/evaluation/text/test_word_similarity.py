"""Word similarity by hand: all prompts as rows of their own, and one embedding a word."""

from pathlib import Path

import pytest

from hypvl.datasets.text.pairs import SentencePairs, word_pairs
from hypvl.embedding.encode import Encoding
from hypvl.errors import UserError
from hypvl.evaluation.protocol import Evaluator
from hypvl.evaluation.text.word_similarity import WordSimilarity
from tests.evaluation.miniatures import wordsim
from tests.evaluation.texts import TextEvaluatorContract, TextModel

PAIRS = SentencePairs("colours", ["red", "green"], ["blue", "yellow"], [1.0, 2.0], ["", ""])


class TestWordSimilarity(TextEvaluatorContract):
    evaluator_class = WordSimilarity

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        wordsim.make(folder)
        data = word_pairs(folder / "wordsim" / "rg65.csv")
        return WordSimilarity(data, prompts=["a {}.", "a red {}."], encoding=encoding)


def test_pooled_rows_by_hand() -> None:
    result = WordSimilarity(PAIRS, prompts=["a {}.", "a yellow {}."])(TextModel())
    # red and blue: cosines 0 and of (1.7, .7, 0), (.7, .7, 1); green and yellow: .707 and of (.7, 1.7, 0), (.7, .7, 0).
    length = 3.38**0.5
    red, green = 1.68 / length / 1.98**0.5, 1.68 / length / 0.98**0.5
    assert result.items["cosine"] == pytest.approx([red / 2, (0.5**0.5 + green) / 2])
    # Four rows: ranks 1, 2, 3, 4 against 1.5, 1.5, 3.5, 3.5: a covariance of 4 over sqrt(5 * 4).
    assert result.metrics["cosine_spearman"] == pytest.approx(100 * 4 / 20**0.5)
    assert (result.meta["pairs"], result.meta["prompts"], result.meta["templates"]) == (2, 2, "pooled")


def test_averaged_words_are_one_row_a_pair() -> None:
    result = WordSimilarity(PAIRS, prompts=["a {}.", "a red {}."], templates="averaged")(TextModel())
    # red: (1, 0, 0) twice; blue: b and r + b, on average (.5, 0, 1).
    assert result.items["cosine"][0] == pytest.approx(0.5 / 1.25**0.5)
    assert result.metrics == {"spearman": pytest.approx(100.0), "cosine_spearman": pytest.approx(100.0)}


def test_the_published_prompts_are_the_default() -> None:
    assert WordSimilarity(PAIRS)(TextModel()).meta["prompts"] == 80


def test_wrong_settings() -> None:
    with pytest.raises(ValueError, match="templates: got 'mean'"):
        WordSimilarity(PAIRS, templates="mean")  # type: ignore[arg-type]
    same = SentencePairs("x", ["red", "red"], ["green", "green"], [1.0, 2.0], ["", ""])
    with pytest.raises(UserError, match="a constant has no correlation"):
        WordSimilarity(same, prompts=["{}"])(TextModel())
