"""A gallery in parts gives what the whole gives."""

from typing import Any

import pytest
import torch

from hypvl.embedding.search import search
from hypvl.embedding.streaming import StreamingSearch
from hypvl.geometry.sphere import Sphere
from tests.evaluation.texts import TextModel

MODALITIES: dict[str, Any] = {"query_modality": "text", "key_modality": "text"}


@pytest.mark.parametrize("part", [1, 4, 100])
def test_equals_a_search_of_all_keys_with_ties(part: int) -> None:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randint(3, (5, 3), generator=generator).float()
    keys = torch.randint(3, (23, 3), generator=generator).float()  # many with the same product
    model: Any = TextModel(geometry=Sphere())
    stream = StreamingSearch(model, queries, k=6, query_chunk=2, key_chunk=3, **MODALITIES)
    for block in keys.split(part):
        stream.add(block)
    expected = search(model, queries, keys, k=6, **MODALITIES)
    assert torch.equal(stream.result()[1], expected[1]) and torch.equal(stream.result()[0], expected[0])


def test_fewer_keys_than_k_and_none() -> None:
    model: Any = TextModel()
    stream = StreamingSearch(model, torch.eye(3), k=6, **MODALITIES)
    with pytest.raises(ValueError, match="keys: got none"):
        stream.result()
    stream.add(torch.eye(3)[:2])
    assert stream.result()[1].tolist() == [[0, 1], [1, 0], [0, 1]] and stream.count == 2
    with pytest.raises(ValueError, match="queries: got none"):
        StreamingSearch(model, torch.zeros(0, 3), k=1, **MODALITIES)
