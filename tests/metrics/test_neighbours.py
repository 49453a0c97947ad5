"""Votes of neighbours by hand."""

import math

import pytest
import torch

from hypvl.metrics.neighbours import neighbour_votes


def test_by_hand() -> None:
    votes = neighbour_votes(
        torch.tensor([[0.9, 0.8, 0.8], [1.0, 0.0, -1.0]]),
        torch.tensor([[2, 0, 0], [1, 1, 2]]),
        num_classes=4,
        temperature=0.5,
    )
    expected = [
        [2 * math.exp(1.6), 0.0, math.exp(1.8), 0.0],
        [0.0, math.exp(2.0) + 1.0, math.exp(-2.0), 0.0],
    ]
    assert votes.tolist() == [pytest.approx(row, rel=1e-6) for row in expected]


def test_a_shift_scales_the_votes() -> None:
    similarity, labels = torch.rand(3, 5, dtype=torch.float64), torch.randint(0, 3, (3, 5))
    votes = neighbour_votes(similarity, labels, num_classes=3)
    moved = neighbour_votes(similarity - 0.07, labels, num_classes=3)
    torch.testing.assert_close(moved * math.e, votes)


def test_wrong_arguments() -> None:
    ones, labels = torch.ones(1, 2), torch.tensor([[0, 3]])
    with pytest.raises(ValueError, match="a class outside 0 … 2"):
        neighbour_votes(ones, labels, num_classes=3)
    with pytest.raises(ValueError, match="temperature: got 0"):
        neighbour_votes(ones, labels, num_classes=4, temperature=0)
    with pytest.raises(ValueError, match=r"got shapes \(1, 2\) and \(1, 1\)"):
        neighbour_votes(ones, labels[:, :1], num_classes=4)
