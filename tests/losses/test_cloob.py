import math
from typing import Any

import pytest
import torch

from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import Cosine, NegativeDistance
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import IMAGE, TEXT, LossTerm
from hypvl.losses.cloob import CLOOB, info_loob, retrieve
from tests.losses.contract import LossContract
from tests.losses.toy import GeometryOnly, context, random_features


class TestOnSphere(LossContract):
    def make(self) -> LossTerm:
        return CLOOB()

    def model(self) -> GeometryOnly:
        return GeometryOnly(Sphere(), Cosine())


class TestLearnedTemperatureOnHyperboloid(LossContract):
    def make(self) -> LossTerm:
        return CLOOB(beta=8.0, inv_tau=30.0, learn_inv_tau=True).double()


def test_retrieval_by_hand() -> None:
    """Orthogonal stored rows, beta = log 3: weights 3/4 and 1/4 for the row itself and the other."""
    eye = torch.eye(2, dtype=torch.float64)
    result = retrieve(eye[:1], eye, beta=math.log(3.0))
    expected = torch.tensor([[3.0, 1.0]], dtype=torch.float64) / math.sqrt(10)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=0)


def test_retrieval_between_the_mean_and_the_nearest() -> None:
    stored = torch.nn.functional.normalize(random_features(5), dim=1)
    state = torch.nn.functional.normalize(random_features(3, seed=1), dim=1)
    mean = torch.nn.functional.normalize(stored.mean(0), dim=0)
    torch.testing.assert_close(retrieve(state, stored, beta=1e-9), mean.expand(3, -1), rtol=1e-7, atol=1e-8)
    nearest = stored[(state @ stored.mT).argmax(1)]
    torch.testing.assert_close(retrieve(state, stored, beta=1e5), nearest)
    assert torch.equal(
        retrieve(state, torch.zeros(2, 4, dtype=torch.float64), beta=8.0), torch.zeros_like(state)
    )


def test_info_loob_by_hand() -> None:
    """tau = 1/2; products (1, 0, 1/2): -1 + log(exp(0) + exp(1)) / 2, the positive not among the others."""
    anchor = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    sample = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.0]], dtype=torch.float64)
    value = info_loob(anchor, sample, torch.tensor([0]), inv_tau=2.0)
    assert value.item() == pytest.approx(-1 + math.log(1 + math.e) / 2, rel=1e-12)


def test_info_loob_has_no_floor() -> None:
    """Unlike InfoNCE, raising the positive's score by d lowers the loss by d, however well it is found already."""
    anchor = torch.eye(3, dtype=torch.float64)
    sample = torch.eye(3, dtype=torch.float64)
    values = [info_loob(anchor, a * sample, torch.arange(3), inv_tau=14.3).item() for a in (1.0, 2.0)]
    assert values[0] - values[1] == pytest.approx(1.0, rel=1e-12)


def test_info_loob_without_negatives_only_pulls() -> None:
    x = torch.tensor([[0.6, 0.8]], dtype=torch.float64, requires_grad=True)
    value = info_loob(x, torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([0]), inv_tau=30.0)
    value.backward()
    assert value.item() == pytest.approx(-0.6)
    assert x.grad is not None and x.grad.tolist() == [[-1.0, 0.0]]


def test_cloob_by_hand() -> None:
    """Two orthogonal pairs, beta -> infinity: every retrieval is the row itself, each InfoLOOB is -1 + 0."""
    eye = torch.eye(2, dtype=torch.float64)
    model = GeometryOnly(Sphere(), Cosine())
    value = CLOOB(beta=1e4)(context(model, {IMAGE: 3 * eye, TEXT: eye}))
    assert value.item() == pytest.approx(-2.0, rel=1e-12)


def test_elsewhere_directions_from_the_root_count() -> None:
    rows = {IMAGE: random_features(4), TEXT: random_features(4, seed=1)}
    sphere = CLOOB()(context(GeometryOnly(Sphere(), Cosine()), rows)).item()
    for geometry in (Lorentz(curv_init=0.5), Euclidean()):
        value = CLOOB()(context(GeometryOnly(geometry, NegativeDistance()), rows)).item()
        assert value == pytest.approx(sphere, rel=1e-9)


def test_temperature_is_frozen_or_learned_and_kept_in_range() -> None:
    rows = {IMAGE: random_features(4), TEXT: random_features(4, seed=1)}
    model = GeometryOnly(Sphere(), Cosine())
    frozen, learned = CLOOB(), CLOOB(learn_inv_tau=True)
    for term in (frozen, learned):
        term(context(model, {view: x.requires_grad_() for view, x in rows.items()})).backward()
    assert frozen.log_inv_tau.grad is None
    assert learned.log_inv_tau.grad is not None and learned.log_inv_tau.grad.abs() > 1e-6
    for value, kept in ((9.0, 4.6052), (-1.0, 0.0), (2.0, 2.0)):
        learned.log_inv_tau.data.fill_(value)
        learned.constrain_()
        assert learned.log_inv_tau.item() == pytest.approx(kept)


@pytest.mark.parametrize(("arguments", "words"), [
    ({"beta": 0.0}, "beta: got 0.0; expected a number above 0"),
    ({"inv_tau": 0.5}, "inv_tau: got 0.5; expected 1 to 100"),
    ({"inv_tau": 200.0}, "inv_tau: got 200.0; expected 1 to 100"),
])  # fmt: skip
def test_temperatures_are_checked(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CLOOB(**arguments)
