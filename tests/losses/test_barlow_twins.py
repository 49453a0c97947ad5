"""Barlow Twins: by hand, the published batch norm, and ITRA's cap on the diagonal."""

import pytest
import torch

from hypvl.losses.barlow_twins import BarlowTwins, barlow_twins
from hypvl.losses.base import IMAGE, TEXT, LossTerm
from tests.losses.contract import LossContract
from tests.losses.toy import context, random_features


class TestBarlowTwins(LossContract):
    def make(self) -> LossTerm:
        return BarlowTwins(student="image", teacher="text")


def test_by_hand() -> None:
    """Columns (1, -1) and (1, 1, -1, -1)-like: perfectly correlated ones give 0, opposite ones (-1 - 1)^2 = 4."""
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    y = torch.stack([3 * x[:, 0], -x[:, 1]], dim=1) + 7
    assert barlow_twins(x, 2 * x + 5).item() == pytest.approx(0.0, abs=1e-8)
    assert barlow_twins(x, y).item() == pytest.approx(4.0, rel=1e-4)
    both = torch.stack([x[:, 0], x[:, 0]], dim=1)  # C is all ones
    assert barlow_twins(both, both, off_diagonal=0.5).item() == pytest.approx(2 * 0.5, rel=1e-4)


def test_the_diagonal_of_itra_never_reaches_one() -> None:
    x = random_features(8)
    value = barlow_twins(x, x, off_diagonal=0.0, variant="itra")
    assert value.item() == pytest.approx(4 * (1 - 1 / 8) ** 2)  # identical views, and still this


def test_both_views_are_trained_as_published() -> None:
    rows = {IMAGE: random_features(5).requires_grad_(), TEXT: random_features(5, seed=1).requires_grad_()}
    BarlowTwins(student="image", teacher="text")(context(LossContract().model(), rows)).backward()
    assert rows[TEXT].grad is not None
    rows = {view: x.detach().requires_grad_() for view, x in rows.items()}
    BarlowTwins(student="image", teacher="text", detach_teacher=True)(
        context(LossContract().model(), rows)
    ).backward()
    assert rows[TEXT].grad is None and rows[IMAGE].grad is not None


def test_one_of_the_variants() -> None:
    with pytest.raises(ValueError, match="variant: got 'mine'; expected 'original' or 'itra'"):
        BarlowTwins(student="image", teacher="text", variant="mine")  # type: ignore[arg-type]  # wrong on purpose
