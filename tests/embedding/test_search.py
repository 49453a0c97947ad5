"""The best keys of blocks that come and go, against the full matrix; and how much is held meanwhile."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hypvl.embedding.search import StreamingTopK, exact_ranks, pair_scores, search, search_both_ways
from hypvl.errors import UserError
from hypvl.geometry.base import Geometry
from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.product import Product
from hypvl.geometry.scorers import Cosine, ExteriorAngle, NegativeDistance, Scorer
from hypvl.geometry.sphere import Sphere
from hypvl.metrics.ranking import first_hit_ranks, rank_keys
from tests.evaluation.fakes import FakeModel

FORMS: dict[str, tuple[Geometry, Scorer]] = {
    "cosine": (Sphere(), Cosine()),
    "lorentz": (Lorentz(), NegativeDistance()),
    "euclidean": (Euclidean(), NegativeDistance()),
    "product": (Product(factors=2, factor_dim=4), NegativeDistance()),
    "angle": (Lorentz(), ExteriorAngle()),
    "published angle": (Lorentz(), ExteriorAngle(ranking="published")),
}


class Scored(nn.Module):
    """A geometry and a scorer as a model, with a record of its blocks."""

    image_size = 8
    context_length = 7

    def __init__(self, geometry: Geometry, scorer: Scorer) -> None:
        super().__init__()
        self.geometry, self.scorer = geometry, scorer
        self.blocks: list[tuple[str, int, int]] = []

    def scores(self, query: Tensor, key: Tensor, *, query_modality: Any, key_modality: Any) -> Tensor:
        self.blocks.append((query_modality, len(query), len(key)))
        return self.scorer.scores(
            self.geometry, query, key, query_modality=query_modality, key_modality=key_modality
        )


def points(count: int, geometry: Geometry, seed: int) -> Tensor:
    x = torch.randn(count, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    x[count // 2] = x[1]  # twice the same: a tie
    with torch.no_grad():
        return geometry.lift(x / 2)


@pytest.mark.parametrize("name", FORMS)
def test_search_both_ways_equals_the_full_matrix(name: str) -> None:
    geometry, scorer = FORMS[name]
    model = Scored(geometry, scorer).double()
    texts, images = points(31, geometry, 0), points(17, geometry, 1)
    result = search_both_ways(
        model, texts, images, k=5, query_modality="text", key_modality="image", query_chunk=7, key_chunk=4
    )  # fmt: skip
    for (values, columns), (queries, keys, one, other) in zip(
        result, ((texts, images, "text", "image"), (images, texts, "image", "text")), strict=True
    ):
        whole = model.scores(queries, keys, query_modality=one, key_modality=other).detach()
        expected = whole.sort(dim=1, descending=True, stable=True)
        torch.testing.assert_close(values, expected.values[:, :5], rtol=1e-12, atol=1e-12)
        # Equal but for the last bits of a product: those may come in either order.
        ties = (values.diff(dim=1).abs() < 1e-9).any(dim=1)
        assert torch.equal(columns[~ties], expected.indices[:, :5][~ties])
        assert (~ties).sum() > 5


@pytest.mark.parametrize("name", FORMS)
def test_scores_by_distance_are_symmetric(name: str) -> None:
    """What lets one pass serve both ways, and that it does so exactly there."""
    geometry, scorer = FORMS[name]
    model = Scored(geometry, scorer).double()
    texts, images = points(9, geometry, 0), points(6, geometry, 1)
    there = model.scores(texts, images, query_modality="text", key_modality="image").detach()
    back = model.scores(images, texts, query_modality="image", key_modality="text").detach()
    same = torch.allclose(there, back.T, rtol=1e-12, atol=1e-12)
    assert same == scorer.ranks_by_distance
    model.blocks = []
    search_both_ways(model, texts, images, k=2, query_modality="text", key_modality="image")
    assert model.blocks == ([("text", 9, 6)] if same else [("text", 9, 6), ("image", 6, 9)])


@pytest.mark.parametrize("order", ["rising", "falling", "level", "random"])
@pytest.mark.parametrize("k", [1, 3, 8, 40])
def test_ties_go_to_the_lower_key_for_any_block_sizes(order: str, k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(-3, 4, (6, 37), generator=generator).float()
    if order in ("rising", "falling"):
        scores = scores.sort(dim=1, descending=order == "falling").values
    if order == "level":
        scores = torch.zeros_like(scores)
    scores[2] = -math.inf  # nothing is better than what is kept, nor equal and earlier
    scores[3, 20] = math.inf
    expected = [sorted(range(37), key=lambda j, row=row: (-row[j], j))[:k] for row in scores.tolist()]
    for size in (1, 5, 36):
        best = StreamingTopK(k)
        for at in range(0, 37, size):
            best.add(scores[:, at : at + size], at)
        values, keys = best.on_cpu()
        assert keys.tolist() == expected
        assert torch.equal(values, scores.gather(1, keys))


def test_nan_is_refused_in_any_block() -> None:
    best = StreamingTopK(1)
    best.add(torch.ones(2, 3), 0)
    with pytest.raises(UserError, match="1 of 6 in a block are NaN"):
        best.add(torch.tensor([[0.0, math.nan, 0.0], [2.0, 0.0, 0.0]]), 3)


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that anything gives back."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(one, Tensor):
                self.numel = max(self.numel, one.numel())
        return out


@pytest.mark.parametrize("name", ["cosine", "lorentz", "angle"])
def test_no_tensor_is_larger_than_a_block_or_the_top_k(name: str) -> None:
    """3,000 x 2,000 scores, in blocks of 64 x 256, 10 kept both ways."""
    geometry, scorer = FORMS[name]
    model = Scored(geometry, scorer)
    texts, images = points(3000, geometry, 0).float(), points(2000, geometry, 1).float()
    with Largest() as seen:
        result = search_both_ways(
            model, texts, images, k=10, query_modality="text", key_modality="image",
            query_chunk=64, key_chunk=256,
        )  # fmt: skip
    kept = 3000 * 10  # the results themselves, and more than the embeddings (3000 x 8) or a block
    assert seen.numel <= kept < 3000 * 2000 / 100
    assert result[0][1].shape == (3000, 10) and result[1][1].shape == (2000, 10)


def test_a_model_without_a_scorer_is_searched_twice() -> None:
    model = FakeModel()
    rows = torch.eye(3)
    there, back = search_both_ways(model, rows[:2], rows, k=1, query_modality="text", key_modality="image")
    assert there[1].tolist() == [[0], [1]] and back[1].tolist() == [[0], [1], [0]]
    assert model.score_blocks == [(2, 3), (3, 2)]
    ways: dict[str, Any] = {"query_modality": "text", "key_modality": "image"}
    assert torch.equal(search(model, rows[:2], rows, k=1, **ways)[1], there[1])


def ranks(queries: torch.Tensor, keys: torch.Tensor, right: list[list[int]], **chunks: int) -> list[int]:
    return exact_ranks(
        FakeModel(), queries, keys, right, query_modality="text", key_modality="image", **chunks
    )


@pytest.mark.parametrize(
    "chunks", [{}, {"query_chunk": 1, "key_chunk": 1}, {"query_chunk": 3, "key_chunk": 4}]
)
def test_exact_ranks_are_those_of_a_full_sort(chunks: dict[str, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    # Small whole numbers: many ties, and exact scores whatever the blocks.
    queries = torch.randint(-2, 3, (7, 3), generator=generator).float()
    keys = torch.randint(-2, 3, (11, 3), generator=generator).float()
    right = [[q % 11, (5 * q + 2) % 11, 10] for q in range(7)]
    expected = first_hit_ranks(rank_keys(queries @ keys.T), right)
    assert ranks(queries, keys, right, **chunks) == expected
    assert len(set(expected)) > 2


def test_exact_ranks_refuse_queries_without_a_right_key_and_nan() -> None:
    with pytest.raises(ValueError, match="a query has no right key"):
        ranks(torch.zeros(2, 3), torch.zeros(2, 3), [[0], []])
    with pytest.raises(UserError, match="NaN"):
        ranks(torch.full((1, 3), torch.nan), torch.zeros(2, 3), [[0]])


@pytest.mark.parametrize("chunk", [1, 2, 64])
def test_pair_scores_are_those_asked_for_in_order(chunk: int) -> None:
    queries = torch.tensor([[1.0, 0, 0], [0, 2, 0], [0, 0, 3]])
    keys = torch.tensor([[1.0, 1, 1], [10, 20, 30], [0, 5, 7], [9, 9, 9]])
    model = FakeModel()
    result = pair_scores(
        model, queries, keys, [[1, 0, 1], [], [2]], query_modality="image", key_modality="text", chunk=chunk
    )
    assert result == [[10.0, 1.0, 10.0], [], [21.0]]
    assert model.training and max(k for _, k in model.score_blocks) <= 3  # key 3 is never scored


def test_pair_scores_refuse_a_wrong_number_of_entries_and_nan() -> None:
    one = torch.ones(1, 3)
    with pytest.raises(ValueError, match="asked: got 2 entries for 1 queries"):
        pair_scores(FakeModel(), one, one, [[0], [0]], query_modality="image", key_modality="text")
    with pytest.raises(UserError, match="NaN"):
        pair_scores(FakeModel(), one, one * float("nan"), [[0]], query_modality="text", key_modality="image")
