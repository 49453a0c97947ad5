"""The largest cosine of a token."""

import pytest
import torch

from hypvl.geometry.sphere import Sphere
from hypvl.geometry.token_scorer import LargestTokenCosine
from tests.geometry.contract import ScorerContract, rows


class TestLargestTokenCosine(ScorerContract):
    def build(self) -> tuple[Sphere, LargestTokenCosine]:
        return Sphere(), LargestTokenCosine(tokens=3)


def test_by_hand() -> None:
    """An image of (1, 0) and (0.6, 0.8), a text of (0, 1): cosines 0 and 0.8."""
    image = torch.tensor([[1.0, 0.0, 0.6, 0.8]]).double() / 2**0.5
    text = torch.tensor([[0.0, 1.0, 0.0, 1.0]]).double() / 2**0.5
    scorer = LargestTokenCosine(tokens=2).double()

    def score(query: str, key: str) -> float:
        return scorer.scores(Sphere(), image, text, query_modality=query, key_modality=key).item()  # type: ignore[arg-type]

    assert score("image", "text") == pytest.approx(0.8) and score("text", "image") == pytest.approx(0.8)
    assert score("image", "image") == pytest.approx(0.4)


def test_tokens_divide_the_embedding() -> None:
    x = Sphere().lift(rows(2, seed=0))
    with pytest.raises(ValueError, match="tokens: got 4 for embeddings of 6 numbers; expected a divisor"):
        LargestTokenCosine(tokens=4).scores(Sphere(), x, x, query_modality="image", key_modality="text")
