import math

import pytest
import torch

from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import Cosine, ExteriorAngle
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import IMAGE, TEXT, LossTerm, View
from hypvl.losses.cyclip import CrossModalCyclic, InModalCyclic, cyclic_loss
from tests.losses.contract import LossContract
from tests.losses.toy import GeometryOnly, context, random_features

SHORT = View.parse("text:short_text")


class TestInModalOnHyperboloid(LossContract):
    def make(self) -> LossTerm:
        return InModalCyclic()


class TestInModalOnSphere(LossContract):
    def make(self) -> LossTerm:
        return InModalCyclic()

    def model(self) -> GeometryOnly:
        return GeometryOnly(Sphere(), Cosine())


class TestCrossModalOnHyperboloid(LossContract):
    def make(self) -> LossTerm:
        return CrossModalCyclic()


class TestCrossModalOnSphere(LossContract):
    def make(self) -> LossTerm:
        return CrossModalCyclic(second="text:short_text")

    def model(self) -> GeometryOnly:
        return GeometryOnly(Sphere(), Cosine())


def _sphere() -> GeometryOnly:
    return GeometryOnly(Sphere(), Cosine())


def _turned(*degrees: float) -> torch.Tensor:
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_value_by_hand() -> None:
    there = torch.tensor([[1.0, 0.5], [0.25, 1.0]])
    back = torch.tensor([[1.0, 0.0], [0.75, 0.0]])
    assert cyclic_loss(there, back).item() == pytest.approx((0.5**2 + 0.5**2 + 1.0) / 2)


def test_in_modal_by_hand() -> None:
    """Images 90 degrees apart, texts 60: each ordered pair differs by 0 - 1/2, so the loss is 2 (1/4) / 2."""
    rows = {IMAGE: _turned(0, 90), TEXT: 3 * _turned(10, 70)}
    assert InModalCyclic()(context(_sphere(), rows)).item() == pytest.approx(0.25, rel=1e-12)


def test_cross_modal_by_hand() -> None:
    """x1.y2 = cos 60, x2.y1 = cos 90: the ordered pairs (1, 2) and (2, 1) differ by 1/2 each."""
    rows = {IMAGE: _turned(0, 90), TEXT: _turned(0, 60)}
    assert CrossModalCyclic()(context(_sphere(), rows)).item() == pytest.approx(0.25, rel=1e-12)


def test_in_modal_is_zero_for_turned_copies_and_cross_modal_is_not() -> None:
    """A rotation keeps distances within modalities; across them it is seen unless it is a reflection."""
    images = random_features(5)
    turn = torch.linalg.qr(random_features(4, seed=3)).Q
    ctx = context(_sphere(), {IMAGE: images, TEXT: images @ turn})
    assert InModalCyclic()(ctx).item() == pytest.approx(0.0, abs=1e-25)
    assert CrossModalCyclic()(ctx).item() > 1e-3
    mirror = torch.diag(torch.tensor([1.0, 1.0, 1.0, -1.0], dtype=torch.float64))
    ctx = context(_sphere(), {IMAGE: images, TEXT: images @ mirror})
    assert CrossModalCyclic()(ctx).item() == pytest.approx(0.0, abs=1e-25)


def test_on_the_hyperboloid_distances_are_compared() -> None:
    """On a line through the root distances are differences of radii: 3 - 1 = 2 against 2.5 - 1 = 1.5."""
    model = GeometryOnly(Lorentz(curv_init=1.0), ExteriorAngle())
    axis = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    rows = {IMAGE: torch.cat([axis, 3 * axis]), TEXT: torch.cat([axis, 2.5 * axis])}
    assert InModalCyclic()(context(model, rows)).item() == pytest.approx(0.25, rel=1e-6)
    # d(x1, y2) = 1.5, d(x2, y1) = 2
    assert CrossModalCyclic()(context(model, rows)).item() == pytest.approx(0.25, rel=1e-6)


def test_the_temperature_takes_no_part() -> None:
    rows = {IMAGE: random_features(4), TEXT: random_features(4, seed=1)}
    cold, hot = _sphere(), _sphere()
    hot.scorer.log_scale.data.fill_(math.log(100.0))
    for term in (InModalCyclic(), CrossModalCyclic()):
        assert torch.equal(term(context(cold, rows)), term(context(hot, rows)))


def test_other_views_can_be_named() -> None:
    term = InModalCyclic(first="image", second=SHORT)
    assert term.needs == {IMAGE, SHORT}
    with pytest.raises(ValueError, match="'sound'"):
        CrossModalCyclic(first="sound")


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 1e20), (torch.float64, 1e160)])
def test_similarities_whose_squares_do_not_fit_are_refused(dtype: torch.dtype, size: float) -> None:
    small = torch.full((3, 3), 1e-2 * size**0.5, dtype=dtype)
    assert cyclic_loss(small, -small).item() == pytest.approx(3 * 4e-4 * size, rel=1e-5)
    large = torch.full((3, 3), size, dtype=dtype)
    assert cyclic_loss(large, large) == 0.0  # only the difference has to fit
    with pytest.raises(ValueError, match=r"got numbers up to 1e\+\d+, the sum of whose squares does not fit"):
        cyclic_loss(large, -large)
    for lost in (math.nan, math.inf):  # shown as it is: a run counts it and goes on
        assert not cyclic_loss(torch.full((3, 3), lost, dtype=dtype), small).isfinite()
