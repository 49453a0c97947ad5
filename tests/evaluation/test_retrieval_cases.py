"""Retrieval in examples, with a model whose answers are known."""

from pathlib import Path

from hypvl.embedding.encode import CachedEncoder, Encoding
from hypvl.embedding.pairs import encode_pairs
from hypvl.evaluation.retrieval_cases import failing_words, retrieval_cases, shown_caption
from tests.evaluation.captioned import captioned
from tests.evaluation.fakes import FakeTokenizer
from tests.evaluation.hyperbolic import Hyperbolic


def test_right_and_wrong_queries_of_a_known_model(tmp_path: Path) -> None:
    model = Hyperbolic()
    encoder = CachedEncoder(model, encoding=Encoding(num_workers=0), tokenizer=FakeTokenizer())
    pairs = encode_pairs(encoder, captioned(tmp_path), what="test")  # red, shape (green), blue, yellow
    seen: list[str] = []
    cases = retrieval_cases(model, pairs, thumbnail=lambda key: (seen.append(key), len(seen))[1])
    way = cases["text_to_image"]
    # "shape" lies between all colours, and yellow is nearest to it; the others find their own.
    assert (way["queries"], way["right"], way["within_5"]) == (4, 3, 4)
    assert [entry["caption"] for entry in way["right_examples"]] == ["red", "blue", "yellow"]
    (wrong,) = way["wrong_examples"]
    assert wrong["caption"] == "shape" and wrong["rank"] > 1
    assert [answer["right"] for answer in way["right_examples"][0]["answers"]] == [True, False, False]
    assert cases["words"] == []  # none is in five captions
    assert len(seen) > 4


def test_words_are_ordered_by_the_lower_end_of_their_interval() -> None:
    captions = ["the red cat"] * 10 + ["the red dog"] * 30 + ["the bird"] * 5 + ["the ant"] * 4
    failed = [True] * 10 + [True, False] * 15 + [False] * 5 + [True] * 4
    rows = failing_words(captions, failed)
    assert [(row["word"], row["failed"], row["queries"]) for row in rows] == [
        ("cat", 10, 10), ("red", 25, 40), ("dog", 15, 30), ("bird", 0, 5),
    ]  # fmt: skip
    assert all(0 <= row["low"] <= row["failed"] / row["queries"] <= row["high"] <= 1 for row in rows)
    assert failing_words(["a a a"], [True]) == []


def test_long_captions_are_cut() -> None:
    assert shown_caption("a" * 500) == "a" * 500
    assert shown_caption("a" * 501) == "a" * 499 + "…"
