import pytest
import torch

from hypvl.embedding.pair_scores import pair_scores
from hypvl.errors import UserError
from tests.evaluation.fakes import FakeModel


@pytest.mark.parametrize("chunk", [1, 2, 64])
def test_scores_are_those_asked_for_in_order(chunk: int) -> None:
    queries = torch.tensor([[1.0, 0, 0], [0, 2, 0], [0, 0, 3]])
    keys = torch.tensor([[1.0, 1, 1], [10, 20, 30], [0, 5, 7], [9, 9, 9]])
    model = FakeModel()
    found = pair_scores(
        model, queries, keys, [[1, 0, 1], [], [2]], query_modality="image", key_modality="text", chunk=chunk
    )
    assert found == [[10.0, 1.0, 10.0], [], [21.0]]
    assert model.training and max(k for _, k in model.score_blocks) <= 3  # key 3 is never scored


def test_wrong_number_and_nan_are_refused() -> None:
    one = torch.ones(1, 3)
    with pytest.raises(ValueError, match="asked: got 2 entries for 1 queries"):
        pair_scores(FakeModel(), one, one, [[0], [0]], query_modality="image", key_modality="text")
    with pytest.raises(UserError, match="NaN"):
        pair_scores(FakeModel(), one, one * float("nan"), [[0]], query_modality="text", key_modality="image")
