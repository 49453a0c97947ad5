"""Exact ranks against a full sort."""

import pytest
import torch

from hypvl.embedding.exact_ranks import exact_ranks
from hypvl.errors import UserError
from hypvl.metrics.ranking import first_hit_ranks, rank_keys
from tests.evaluation.fakes import FakeModel


def ranks(queries: torch.Tensor, keys: torch.Tensor, right: list[list[int]], **chunks: int) -> list[int]:
    return exact_ranks(
        FakeModel(), queries, keys, right, query_modality="text", key_modality="image", **chunks
    )


@pytest.mark.parametrize(
    "chunks", [{}, {"query_chunk": 1, "key_chunk": 1}, {"query_chunk": 3, "key_chunk": 4}]
)
def test_as_a_full_sort(chunks: dict[str, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    # Small whole numbers: many ties, and exact scores whatever the blocks.
    queries = torch.randint(-2, 3, (7, 3), generator=generator).float()
    keys = torch.randint(-2, 3, (11, 3), generator=generator).float()
    right = [[q % 11, (5 * q + 2) % 11, 10] for q in range(7)]
    expected = first_hit_ranks(rank_keys(queries @ keys.T), right)
    assert ranks(queries, keys, right, **chunks) == expected
    assert len(set(expected)) > 2


def test_what_cannot_be_ranked() -> None:
    with pytest.raises(ValueError, match="a query has no right key"):
        ranks(torch.zeros(2, 3), torch.zeros(2, 3), [[0], []])
    with pytest.raises(UserError, match="NaN"):
        ranks(torch.full((1, 3), torch.nan), torch.zeros(2, 3), [[0]])
