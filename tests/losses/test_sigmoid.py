import math

import pytest
import torch

from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import Cosine, NegativeDistance
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import IMAGE, TEXT, LossTerm
from hypvl.losses.sigmoid import Sigmoid, sigmoid_loss
from tests.losses.contract import LossContract
from tests.losses.toy import GeometryOnly, context, random_features


def _siglip() -> GeometryOnly:
    return GeometryOnly(Sphere(), Cosine(bias_init=-10.0, log_scale_init=math.log(10.0)))


class TestSigmoidOnSphere(LossContract):
    def make(self) -> LossTerm:
        return Sigmoid()

    def model(self) -> GeometryOnly:
        return _siglip()


class TestSigmoidOverPairs(LossContract):
    def make(self) -> LossTerm:
        return Sigmoid(denominator="pairs")

    def model(self) -> GeometryOnly:
        return _siglip()


class TestSigmoidOnHyperboloid(LossContract):
    """A distance has no bias of its own: the term learns one."""

    def make(self) -> LossTerm:
        return Sigmoid(query="text", key="image", bias_init=8.0).double()


def test_value_by_hand() -> None:
    """sigmoid(log 3) = 3/4, sigmoid(0) = 1/2, sigmoid(-log 3) = 1/4."""
    logits = torch.tensor([[math.log(3.0), 0.0], [math.log(3.0), 0.0]], dtype=torch.float64)
    # own pairs: -log 3/4, -log 1/2; others: -log 1/2, -log 1/4
    total = math.log(4 / 3) + math.log(2) + math.log(2) + math.log(4)
    targets = torch.tensor([0, 1])
    assert sigmoid_loss(logits, targets).item() == pytest.approx(total / 2, rel=1e-12)
    assert sigmoid_loss(logits, targets, denominator="pairs").item() == pytest.approx(total / 4, rel=1e-12)


def test_start_of_siglip_by_hand() -> None:
    """Scale 10, bias -10, perfect orthogonal pairs: own logits 0, others -10."""
    eye = torch.eye(3, dtype=torch.float64)
    value = Sigmoid()(context(_siglip(), {IMAGE: 2 * eye, TEXT: eye}))
    assert value.item() == pytest.approx(math.log(2) + 2 * math.log1p(math.exp(-10.0)), rel=1e-6)


def test_own_key_may_be_any_column() -> None:
    logits = random_features(2, 4, seed=5)
    order = torch.tensor([2, 0, 3, 1])
    value = sigmoid_loss(logits, torch.tensor([1, 3]))
    assert value.item() == pytest.approx(sigmoid_loss(logits[:, order], torch.tensor([3, 2])).item())


def test_direction_does_not_matter_for_a_symmetric_score() -> None:
    rows = {IMAGE: random_features(4), TEXT: random_features(4, seed=1)}
    there, back = Sigmoid(), Sigmoid(query="text", key="image")
    assert there(context(_siglip(), rows)).item() == pytest.approx(back(context(_siglip(), rows)).item())


def test_scale_and_bias_are_learned() -> None:
    model = _siglip()
    Sigmoid()(context(model, {IMAGE: random_features(4), TEXT: random_features(4, seed=1)})).backward()
    for parameter in (model.scorer.log_scale, model.scorer.bias):
        assert parameter.grad is not None and parameter.grad.abs() > 1e-6


def test_logits_of_any_size_are_finite() -> None:
    logits = torch.tensor([[-1e4, 1e4], [1e4, -1e4]], requires_grad=True)
    value = sigmoid_loss(logits, torch.tensor([0, 1]))
    value.backward()
    assert value.item() == pytest.approx(2e4)
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_exactly_one_bias() -> None:
    rows = {IMAGE: random_features(2), TEXT: random_features(2, seed=1)}
    with pytest.raises(ValueError, match=r"NegativeDistance has no bias.*bias_init"):
        Sigmoid()(context(GeometryOnly(Lorentz(curv_init=1.0), NegativeDistance()), rows))
    with pytest.raises(ValueError, match="Cosine has no bias"):
        Sigmoid()(context(GeometryOnly(Sphere(), Cosine()), rows))
    with pytest.raises(ValueError, match="Cosine has a bias and this term another"):
        Sigmoid(bias_init=-10)(context(_siglip(), rows))


def test_denominator_is_named() -> None:
    for call in (
        lambda: Sigmoid(denominator="B"),  # type: ignore[arg-type]  # what is refused
        lambda: sigmoid_loss(torch.zeros(1, 1), torch.tensor([0]), denominator="B"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match="denominator: got 'B'; expected 'batch' or 'pairs'"):
            call()
