import math

import pytest
import torch

from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.product import Product
from hypvl.geometry.scorers import Cosine, NegativeDistance
from hypvl.geometry.sphere import Sphere
from hypvl.losses.argent import (
    AdaptiveEntailment,
    NormRegularization,
    adaptive_entailment,
    norm_regularization,
)
from hypvl.losses.base import IMAGE, TEXT, LossTerm
from hypvl.losses.uncertainty import BOX_IMAGE
from tests.losses.contract import LossContract
from tests.losses.toy import GeometryOnly, context, random_features


class TestAdaptiveEntailment(LossContract):
    def make(self) -> LossTerm:
        return AdaptiveEntailment(general=BOX_IMAGE, specific="image", weighting="distance")


class TestAdaptiveEntailmentInFactors(LossContract):
    def make(self) -> LossTerm:
        return AdaptiveEntailment(weighting="distance", beta=0.3)

    def model(self) -> GeometryOnly:
        return GeometryOnly(Product(2, 2), NegativeDistance())


class TestNormRegularization(LossContract):
    def make(self) -> LossTerm:
        return NormRegularization()


def test_huber_by_hand() -> None:
    angle = torch.tensor([[0.5, 1.5], [3.0, 0.0]], dtype=torch.float64)
    assert adaptive_entailment(angle).tolist() == pytest.approx([(0.125 + 1.0) / 2, 2.5 / 2])
    assert adaptive_entailment(angle, beta=0.2).tolist() == pytest.approx(
        [0.2 * (0.4 + 1.4) / 2, 0.2 * 2.9 / 2]
    )
    distance = torch.tensor([0.0, math.log(2)], dtype=torch.float64)  # g = 0 and 1/2
    assert adaptive_entailment(angle, distance).tolist() == pytest.approx([0.0, 1.0 / 2])


def test_identical_pairs_are_not_pushed_apart() -> None:
    """The exterior angle of a point and itself is pi/2, a fault of the cones without the weight."""
    box = torch.tensor([[0.6, 0.2, 0.0, 0.1]], dtype=torch.float64)
    model = TestAdaptiveEntailment().model()
    near = (box + 1e-7 * torch.tensor([0.0, 1.0, 0, 0])).requires_grad_()
    rows = {BOX_IMAGE: box, IMAGE: near}
    for weighting, most in (("distance", 1e-6), ("none", math.inf)):
        term = AdaptiveEntailment(general=BOX_IMAGE, specific="image", weighting=weighting)
        value = term(context(model, rows))
        (grad,) = torch.autograd.grad(value, near)
        assert (value < 1e-12) == (weighting == "distance")
        assert (grad.norm() < most) and (weighting == "distance" or grad.norm() > 1e5)


def test_the_weight_has_a_gradient() -> None:
    angle = torch.tensor([[1.0]], dtype=torch.float64)
    distance = torch.tensor([math.log(2)], dtype=torch.float64, requires_grad=True)
    adaptive_entailment(angle, distance).backward()
    assert distance.grad is not None and distance.grad.item() == pytest.approx(
        0.5 * 0.5
    )  # phi g * phi exp(-d)


def test_norms_by_hand() -> None:
    x = torch.tensor([[3.0, 4.0], [0.5, 0.5], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    value = norm_regularization(x)
    expected = [25 - math.log(5), 0.5 + 0.5 * math.log(2), 1e-12 - math.log(1e-6)]
    assert value.tolist() == pytest.approx(expected, rel=1e-14)
    value.sum().backward()
    assert x.grad is not None
    assert x.grad[1].abs().max() < 1e-15  # least at a norm of 2^-0.5
    assert x.grad[2].eq(0).all()


def test_each_group_weighs_the_same() -> None:
    rows = {IMAGE: random_features(2), BOX_IMAGE: random_features(3, seed=1, scale=0.1)}
    model = TestNormRegularization().model()
    ctx = context(model, rows, box_owner=torch.tensor([0, 1, 1]))
    alone = [norm_regularization(model.geometry.lift(x)).mean().item() for x in rows.values()]
    assert NormRegularization(rows)(ctx).item() == pytest.approx(sum(alone) / 2)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="beta: got 0"):
        AdaptiveEntailment(beta=0)
    with pytest.raises(ValueError, match="weighting: got 'adaptive'; expected 'distance' or 'none'"):
        AdaptiveEntailment(weighting="adaptive")
    with pytest.raises(ValueError, match="views: got none"):
        NormRegularization([])
    with pytest.raises(ValueError, match="over: got 'rank'"):
        NormRegularization(over="rank")
    rows = {IMAGE: random_features(2), TEXT: random_features(2, seed=1)}
    with pytest.raises(ValueError, match="Sphere has no cones"):
        AdaptiveEntailment()(context(GeometryOnly(Sphere(), Cosine()), rows))
    AdaptiveEntailment()(context(GeometryOnly(Lorentz(), NegativeDistance()), rows))
