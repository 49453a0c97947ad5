"""Scores of texts that grow longer."""

import json
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest

from hypvl.datasets.retrieval.captioned import CaptionedImages
from hypvl.datasets.retrieval.table import table
from hypvl.embedding.encode import Encoding
from hypvl.errors import DataError
from hypvl.evaluation.himo import HiMo, correlation, growing, sentences
from hypvl.evaluation.protocol import Evaluator
from tests.evaluation.captioned import YELLOW
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeModel, FakeTokenizer, broken, image

LONG = {
    "a": (
        YELLOW,
        "A red thing. It is green, too. And yellow!",
    ),  # 0.70, 1.40, 2.39 after one, two, three sentences
    "b": (RED, "Something red. Something green. Something blue."),  # 1, 1, 1
    "c": (BLUE, "A sky of blue. Some green."),  # 1, 1 for K = 2
    "d": (GREEN, "green"),  # one sentence
}


def long_captions(folder: Path, *, bad: int = 0) -> CaptionedImages:
    lines = []
    for name, (color, caption) in LONG.items():
        image(folder / f"{name}.png", color)
        lines.append({"image": f"{name}.png", "caption": caption})
    for i in range(bad):
        broken(folder / f"bad{i}.png")
        lines.append({"image": f"bad{i}.png", "caption": "Red. Green. Blue."})
    path = folder / "set.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return table(path)


class TestHiMo(EvaluatorContract):
    evaluator_class: ClassVar[type[Evaluator]] = HiMo

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        folder.mkdir(exist_ok=True)
        return HiMo(long_captions(folder, bad=bad), ks=(2, 3), encoding=encoding, tokenizer=FakeTokenizer())

    def model(self) -> FakeModel:
        return FakeModel()

    def test_values_by_hand(self, tmp_path: Path) -> None:
        result = self.make(tmp_path)(self.model())
        assert result.items["key"] == ["a.png", "b.png", "c.png"]
        y = 179 / 255
        scores = result.items["scores"]
        assert scores[0]["2"] == pytest.approx([y, 2 * y + 2 * 0.7 * y]) and scores[2]["3"] is None
        assert scores[0]["3"] == pytest.approx([y, 2 * y, 2 * y + 2 * 0.7 * y])
        three = correlation([1.0, 2.0, 3.4])
        assert result.samples["himo@3"] == pytest.approx([three, 0.0])
        assert result.metrics["himo@2"] == pytest.approx(1 / 3) and result.metrics["himo@3"] == pytest.approx(
            three / 2
        )
        assert result.metrics["monotone_share@3"] == 50.0
        assert result.metrics["monotone_share@3_chance"] == pytest.approx(100 / 6)
        assert (result.meta["too_short"], result.meta["counted"]) == (1, {"himo@2": 3, "himo@3": 2})

    def test_short_captions_are_an_error(self, tmp_path: Path) -> None:
        settings = {"encoding": Encoding(num_workers=0), "tokenizer": FakeTokenizer()}
        with pytest.raises(DataError, match="no caption has 7 sentences"):
            HiMo(long_captions(tmp_path), ks=[7], **settings)(self.model())
        with pytest.raises(ValueError, match=r"ks: got \[1\]"):
            HiMo(long_captions(tmp_path), ks=[1])


def test_texts_grow_by_sentences() -> None:
    caption = "One. Two! Three? Four 4.5 m.\nFive."
    assert sentences(caption) == ["One.", "Two!", "Three?", "Four 4.5 m.", "Five."]
    assert growing(caption, 2) == ["One. Two!", "One. Two! Three? Four 4.5 m. Five."]
    assert [len(sentences(text)) for text in growing(caption, 3)] == [1, 3, 5]
    assert growing(caption, 6) == []
    for k in range(2, 6):
        texts = growing(caption, k)
        assert len(set(texts)) == k and all(b.startswith(a) for a, b in pairwise(texts))


def test_correlation_by_hand() -> None:
    assert correlation([1.0, 2.0, 3.0]) == pytest.approx(1.0)
    assert correlation([0.3, 0.1]) == pytest.approx(-1.0)
    assert correlation([1.0, 3.0, 2.0]) == pytest.approx(0.5)
    assert correlation([0.7, 0.7, 0.7]) == 0.0
