"""Queries of samples and batches."""

import numpy as np
import pytest
import torch

from hypvl.data.batch import collate
from hypvl.data.query_mapper import QueryMapper
from hypvl.data.sample import finish_sample
from hypvl.data.tokenizer import get_tokenizer
from tests.data.helpers import jpeg

CAPTIONS = ["A red ball near a tree. It rolls.", "ok", "A dog"]
BOXES = [["a red ball", "a tree"], ["a cat"], []]


def inner(key: str, members: dict[str, bytes], generator: np.random.Generator) -> dict[str, object]:
    row = int(key)
    return {
        "image": jpeg(row),
        "caption": CAPTIONS[row],
        "box_text": BOXES[row],
        "box_owner": torch.zeros(len(BOXES[row])),
    }


def fields(row: int, **options: object) -> dict[str, object]:
    return QueryMapper(inner, **options)(str(row), {}, np.random.default_rng(0))  # type: ignore[arg-type]


def test_what_is_added() -> None:
    found = fields(0)
    assert found["query_text"] == [
        CAPTIONS[0], "A red ball near a tree.", "It rolls.", "a red ball", "a tree", "a tree It rolls",
    ]  # fmt: skip
    assert found["query_parent"].tolist() == [-1, 0, 0, 0, 0, 1]  # type: ignore[attr-defined]
    assert found["query_weight"].tolist() == [0.0, 1.0, 1.0, 0.75, 0.75, 0.5]  # type: ignore[attr-defined]
    assert found["query_owner"].tolist() == [0] * 6  # type: ignore[attr-defined]
    assert found["caption"] == CAPTIONS[0]
    assert fields(0, boxes=False, max_queries=3)["query_text"] == [
        CAPTIONS[0],
        "A red ball near a tree.",
        "It rolls.",
    ]
    assert fields(1, boxes=False)["query_text"] == []  # the caption is too short


def test_one_box_is_a_text_of_its_own() -> None:
    mapper = QueryMapper(lambda *_: {"caption": "A hat on a cat", "box_text": "a hat"})
    queries = mapper("0", {}, np.random.default_rng(0))
    assert queries["query_text"] == ["A hat on a cat", "a hat"]


def test_parents_are_rows_of_the_batch() -> None:
    samples = [
        finish_sample(
            str(row),
            fields(row),
            image_transform=lambda image, _: image,
            tokenizer=get_tokenizer(),
            image_seed=0,
        )
        for row in (1, 0, 2)
    ]
    batch = collate(samples, positions=[0, 1, 2], rows=[1, 0, 2])
    assert batch["query_owner"].tolist() == [0, *[1] * 6, 2]
    assert batch["query_parent"].tolist() == [-1, -1, 1, 1, 1, 1, 2, -1]
    assert batch["query_parent"].dtype == np.int64
    assert batch["query_weight"].tolist() == [0.75, 0.0, 1.0, 1.0, 0.75, 0.75, 0.5, 0.0]
    assert len(batch["query_text"]) == len(batch["query_text_lengths"]) == 8


def test_a_batch_without_any_query() -> None:
    sample = finish_sample(
        "1",
        fields(1, boxes=False),
        image_transform=lambda image, _: image,
        tokenizer=get_tokenizer(),
        image_seed=0,
    )
    batch = collate([sample, sample], positions=[0, 1], rows=[1, 1])
    assert len(batch["query_text"]) == len(batch["query_parent"]) == len(batch["query_weight"]) == 0


def test_numbers_are_checked() -> None:
    with pytest.raises(ValueError, match="max_queries: got 0"):
        QueryMapper(inner, max_queries=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_phrases: got -1"):
        QueryMapper(inner, max_phrases=-1)  # type: ignore[arg-type]
