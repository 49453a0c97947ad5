import math

import pytest
import torch

from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import IMAGE, TEXT, LossTerm
from hypvl.losses.entailment import Entailment, entailment_loss
from tests.losses.contract import LossContract
from tests.losses.toy import GeometryOnly, context, random_features


class TestEntailment(LossContract):
    def make(self) -> LossTerm:
        return Entailment()


class TestWideEntailment(LossContract):
    def make(self) -> LossTerm:
        return Entailment(general="image", specific="text", aperture_factor=1.2)


def test_value_by_hand() -> None:
    angle = torch.tensor([[1.0], [0.2], [0.9]])
    aperture = torch.tensor([[0.5], [0.5], [0.5]])
    assert entailment_loss(angle, aperture).item() == pytest.approx((0.5 + 0.0 + 0.4) / 3)
    assert entailment_loss(angle, aperture, aperture_factor=2.0).item() == pytest.approx(0.0)


def test_point_on_the_ray_is_entailed_and_the_opposite_is_not() -> None:
    model = TestEntailment().model()
    text = torch.tensor([[0.5, 0.0, 0.0, 0.0]], dtype=torch.float64)
    inside = Entailment()(context(model, {TEXT: text, IMAGE: 3 * text}))
    assert inside.item() == 0.0
    outside = Entailment()(context(model, {TEXT: text, IMAGE: -text}))
    aperture = math.asin(0.2 / math.sinh(0.5))
    assert outside.item() == pytest.approx(math.pi - aperture, rel=1e-9)


def test_geometry_without_cones_is_named() -> None:
    rows = {IMAGE: random_features(2), TEXT: random_features(2, seed=1)}
    with pytest.raises(ValueError, match="Sphere has no cones"):
        Entailment()(context(GeometryOnly(Sphere(), Cosine()), rows))


def test_aperture_factor_must_be_positive() -> None:
    with pytest.raises(ValueError, match="aperture_factor: got 0"):
        Entailment(aperture_factor=0)
