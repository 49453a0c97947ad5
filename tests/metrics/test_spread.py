"""Spread of rows by hand."""

import math

import pytest
import torch

import hypvl.metrics.spread as module
from hypvl.metrics.spread import mean_deviation, positive_self_similarity

ROWS = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])


def test_by_hand() -> None:
    # Cosines: 1 three times, 0.6 twice, the others at or below 0.
    assert positive_self_similarity(ROWS) == pytest.approx((3 + 2 * 0.6) / 5)
    assert positive_self_similarity(5 * ROWS) == pytest.approx((3 + 2 * 0.6) / 5)
    first = math.sqrt(((1 - 0.2) ** 2 + (0.6 - 0.2) ** 2 + (-1 - 0.2) ** 2) / 2)
    second = math.sqrt((0.8**2 - 3 * (0.8 / 3) ** 2) / 2)
    assert mean_deviation(ROWS) == pytest.approx((first + second) / 2)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.nn.functional.normalize(torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    before = positive_self_similarity(x)
    monkeypatch.setattr(module, "_BLOCK", 4)
    assert positive_self_similarity(x) == pytest.approx(before)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="N >= 2"):
        mean_deviation(ROWS[:1])
    with pytest.raises(ValueError, match="finite numbers, N >= 1"):
        positive_self_similarity(ROWS / 0)
    assert positive_self_similarity(torch.zeros(2, 2)) == 0.0
