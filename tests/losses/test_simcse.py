"""SimCSE: the fixed scale, both forms, and that the model's own scorer plays no part."""

import math

import pytest
import torch

from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import LossTerm, View
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.simcse import SimCSE
from tests.losses.contract import LossContract
from tests.losses.toy import GeometryOnly, context, random_features

FIRST, SECOND = View.parse("text"), View.parse("text#1")


class TestSimCSE(LossContract):
    def make(self) -> LossTerm:
        return SimCSE()


class TestSimCSEOfItra(LossContract):
    def make(self) -> LossTerm:
        return SimCSE(scale=math.exp(2.996), variant="itra")


def test_by_hand() -> None:
    """Second rows (1, 0) twice: the first row is right in half of the cases, the other one never nearer."""
    rows = {FIRST: torch.eye(2), SECOND: torch.tensor([[3.0, 0.0], [1.0, 1.0]])}
    s = math.sqrt(0.5)
    expected = (math.log(1 + math.exp(2 * (s - 1))) + math.log(1 + math.exp(-2 * s))) / 2
    assert SimCSE(scale=2.0)(context(LossContract().model(), rows)).item() == pytest.approx(expected)


def test_both_directions_are_the_contrastive_loss_of_a_model_with_that_scale() -> None:
    rows = {FIRST: random_features(5), SECOND: random_features(5, seed=1)}
    model = GeometryOnly(Sphere(), Cosine(log_scale_init=math.log(20.0)))
    expected = Contrastive([("text", "text#1"), ("text#1", "text")])(context(model, rows))
    found = SimCSE(variant="itra")(context(LossContract().model(), rows))  # a hyperbolic model
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_no_scale_is_trained() -> None:
    model, rows = (
        LossContract().model(),
        {FIRST: random_features(4).requires_grad_(), SECOND: random_features(4)},
    )
    term = SimCSE()
    term(context(model, rows)).backward()
    assert not list(term.parameters()) and model.scorer.log_scale.grad is None
    with pytest.raises(ValueError, match="scale: got 0"):
        SimCSE(scale=0)
