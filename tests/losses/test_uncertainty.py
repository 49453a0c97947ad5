import math

import pytest
import torch

from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.product import Product
from hypvl.geometry.scorers import Cosine, NegativeDistance
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import IMAGE, TEXT, LossTerm, View
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.entailment import Entailment, entailment_loss
from hypvl.losses.info_nce import softmax_cross_entropy
from hypvl.losses.uncertainty import (
    AngledEntailment,
    UncertainContrastive,
    UncertaintyCalibration,
    angled_entailment,
    calibration_loss,
    uncertainty,
)
from tests.geometry.poincare import PoincareBall
from tests.losses.contract import LossContract
from tests.losses.toy import GeometryOnly, context, random_features

BOX_IMAGE, BOX_TEXT = View.parse("image:box_image"), View.parse("text:box_text")


def product_model() -> GeometryOnly:
    return GeometryOnly(Product(2, 2), NegativeDistance())


class TestUncertainContrastive(LossContract):
    def make(self) -> LossTerm:
        return UncertainContrastive([("image", "text"), ("text", "image"), (BOX_IMAGE, "text")])


class TestUncertainContrastiveOnSphere(LossContract):
    def make(self) -> LossTerm:
        return UncertainContrastive()

    def model(self) -> GeometryOnly:
        return GeometryOnly(Sphere(), Cosine())


class TestAngledEntailment(LossContract):
    def make(self) -> LossTerm:
        return AngledEntailment(aperture_factor=0.7)


class TestAngledEntailmentInFactors(LossContract):
    def make(self) -> LossTerm:
        return AngledEntailment(general=BOX_TEXT, specific=BOX_IMAGE)

    def model(self) -> GeometryOnly:
        return product_model()


class TestUncertaintyCalibration(LossContract):
    def make(self) -> LossTerm:
        return UncertaintyCalibration(general=BOX_IMAGE, specific="image", aperture_factor=1.2)

    def test_gradient_is_right(self) -> None:
        """The loss that the uncertainty follows is a constant to the gradient, which differences cannot see."""
        term, model, rows = self.make(), self.model(), self.rows(3)
        assert isinstance(term, UncertaintyCalibration)
        loss = term.per_pair(context(model, rows)).detach()
        x = rows[BOX_IMAGE].requires_grad_()

        def fixed(x: torch.Tensor) -> torch.Tensor:
            u = uncertainty(model.geometry.lift(x))
            return calibration_loss(loss, u, u)

        assert torch.autograd.gradcheck(fixed, (x,), atol=1e-6, rtol=1e-5)
        wanted = torch.autograd.grad(fixed(x), x)
        result = torch.autograd.grad(self.value(rows), x)
        torch.testing.assert_close(result, wanted, rtol=1e-12, atol=1e-14)

    def test_degenerate_batches_are_finite(self) -> None:
        """Only the general item gets a gradient: there is none to check for the specific one."""
        for count, scale in ((1, 0.7), (2, 0.7), (3, 0.0), (3, 30.0)):
            for same in (False, True):
                rows = {BOX_IMAGE: random_features(count, scale=scale)}
                if same:
                    rows[BOX_IMAGE] = rows[BOX_IMAGE][:1].repeat(count, 1)
                rows[IMAGE] = rows[BOX_IMAGE].clone() if same else random_features(count, seed=1, scale=scale)
                x = rows[BOX_IMAGE].requires_grad_()
                value = self.value(rows)
                value.backward()
                assert torch.isfinite(value)
                assert x.grad is not None and torch.isfinite(x.grad).all()


def test_uncertainty_by_hand() -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [math.log(3.0), 0.0]], dtype=torch.float64)
    u = uncertainty(x)
    assert u.tolist() == pytest.approx([math.log(2), math.log1p(math.exp(-5)), math.log(4 / 3)], rel=1e-15)
    assert uncertainty(x.to(torch.bfloat16)).dtype == torch.float32


def test_uncertainty_falls_with_the_distance_to_the_root() -> None:
    direction = torch.tensor([0.6, -0.8], dtype=torch.float64)
    u = uncertainty(torch.linspace(0, 10, 50, dtype=torch.float64)[:, None] * direction)
    assert (u.diff() < 0).all()
    root = torch.zeros(1, 3, requires_grad=True)
    uncertainty(root).sum().backward()
    assert root.grad is not None and root.grad.eq(0).all()


@pytest.mark.parametrize("term", [UncertainContrastive(), UncertaintyCalibration()])
def test_the_same_points_in_other_coordinates_have_the_same_uncertainty(term: LossTerm) -> None:
    features = {IMAGE: random_features(5, seed=1), TEXT: random_features(5, seed=2)}
    result = []
    for geometry in (Lorentz(curv_init=0.7), PoincareBall(curv_init=0.7)):
        rows = {view: x.clone().requires_grad_() for view, x in features.items()}
        loss = term(context(GeometryOnly(geometry, NegativeDistance()), rows))
        result.append((loss, *torch.autograd.grad(loss, [rows[TEXT]])))
    torch.testing.assert_close(result[1], result[0], rtol=1e-7, atol=1e-9)


def test_contrastive_by_hand() -> None:
    """With u = 2 log 2 the temperature doubles: a margin of log 9 counts as log 3."""
    logits = torch.tensor([[math.log(9.0), 0.0], [0.0, math.log(9.0)]], dtype=torch.float64)
    u = torch.tensor([2 * math.log(2), 0.0], dtype=torch.float64)
    value = softmax_cross_entropy(logits, torch.tensor([0, 1]), row_scale=torch.exp(-u / 2))
    assert value.item() == pytest.approx((math.log(4 / 3) + math.log(10 / 9)) / 2, rel=1e-12)


def test_far_out_it_is_the_contrastive_loss() -> None:
    rows = {IMAGE: random_features(4, scale=9.0), TEXT: random_features(4, seed=1, scale=9.0)}
    model = TestUncertainContrastive().model()
    plain = Contrastive()(context(model, rows))
    assert UncertainContrastive()(context(model, rows)).item() == pytest.approx(plain.item(), rel=1e-6)


def test_the_temperature_is_that_of_the_query() -> None:
    """Two captions on the root (u = log 2) against images far out: logits are divided by sqrt(2)."""
    model = TestUncertainContrastive().model()
    model.scorer.log_scale.data.zero_()
    images = torch.tensor([[7.0, 0, 0, 0], [0, 9.0, 0, 0]], dtype=torch.float64)
    rows = {IMAGE: images, TEXT: torch.zeros(2, 4, dtype=torch.float64)}
    value = UncertainContrastive([("text", "image")])(context(model, rows)).item()
    # From the root the distances are 7 and 9: a margin of 2, for the one caption and against the other.
    margin = 2 / math.sqrt(2)
    assert value == pytest.approx(
        (math.log1p(math.exp(-margin)) + math.log1p(math.exp(margin))) / 2, rel=1e-6
    )


def test_a_query_that_matches_badly_moves_towards_the_root() -> None:
    """The temperature has a gradient: softening a wrong answer lowers the loss."""
    u = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    logits = torch.tensor([[0.0, 3.0]], dtype=torch.float64)
    softmax_cross_entropy(logits, torch.tensor([0]), row_scale=torch.exp(-u / 2)).backward()
    assert u.grad is not None and u.grad.item() < 0
    u.grad = None
    softmax_cross_entropy(logits, torch.tensor([1]), row_scale=torch.exp(-u / 2)).backward()
    assert u.grad is not None and u.grad.item() > 0


def test_entailment_by_hand() -> None:
    angle = torch.tensor([[1.0, 0.2], [0.1, 0.1]], dtype=torch.float64)
    aperture = torch.tensor([[0.5, 0.5], [0.5, 0.5]], dtype=torch.float64)
    loss = angled_entailment(angle, aperture, aperture_factor=1.2, angle_weight=0.5)
    assert loss.tolist() == pytest.approx([(0.4 + 0.5 * 1.2) / 2, 0.5 * 0.1])


def test_without_the_pull_it_is_the_entailment_loss() -> None:
    angle, aperture = random_features(5).abs(), random_features(5, seed=1).abs()
    loss = angled_entailment(angle, aperture, aperture_factor=0.7, angle_weight=0.0).mean()
    assert loss.item() == pytest.approx(entailment_loss(angle, aperture, aperture_factor=0.7).item())
    rows = {IMAGE: random_features(4), TEXT: random_features(4, seed=1)}
    terms = AngledEntailment(aperture_factor=0.7, angle_weight=0.0), Entailment(aperture_factor=0.7)
    one, other = (term(context(product_model(), rows)).item() for term in terms)
    assert one == pytest.approx(other)


def test_inside_the_cone_the_angle_still_pulls() -> None:
    text = torch.tensor([[0.5, 0.0, 0.0, 0.0]], dtype=torch.float64)
    image = torch.tensor([[1.5, 0.05, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    model = TestAngledEntailment().model()
    assert Entailment()(context(model, {TEXT: text, IMAGE: image})).item() == 0
    AngledEntailment(angle_weight=0.1)(context(model, {TEXT: text, IMAGE: image})).backward()
    assert image.grad is not None and image.grad[0, 1] > 0  # downhill is towards the axis


def test_calibration_by_hand() -> None:
    loss = torch.tensor([1.0, 2.0], dtype=torch.float64)
    u = torch.tensor([0.0, math.log(2)], dtype=torch.float64)
    # softmax (1/3, 2/3)
    entropy = math.log(3) - 2 / 3 * math.log(2)
    assert calibration_loss(loss, u, u).item() == pytest.approx((1 + 1 + math.log(2)) / 2 + entropy)


def test_calibrated_uncertainty_is_the_log_of_the_loss() -> None:
    loss = torch.tensor([1.7, 1.7], dtype=torch.float64, requires_grad=True)
    u = torch.full((2,), math.log(1.7), dtype=torch.float64, requires_grad=True)
    calibration_loss(loss, u, u).backward()
    assert u.grad is not None and u.grad.abs().max() < 1e-12  # equal items: the entropy is at its peak
    assert loss.grad is None


def test_entropy_falls_when_uncertainties_differ() -> None:
    zero = torch.zeros(4, dtype=torch.float64)
    same = calibration_loss(zero, zero, torch.full((4,), 0.5, dtype=torch.float64))
    spread = calibration_loss(zero, zero, torch.tensor([0.1, 0.1, 0.1, 0.7], dtype=torch.float64))
    assert same.item() == pytest.approx(math.log(4))
    assert spread < same


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="pairs: got none"):
        UncertainContrastive([])
    with pytest.raises(ValueError, match="aperture_factor: got 0"):
        AngledEntailment(aperture_factor=0)
    with pytest.raises(ValueError, match=r"angle_weight: got -1"):
        UncertaintyCalibration(angle_weight=-1)
    rows = {IMAGE: random_features(2), TEXT: random_features(2, seed=1)}
    with pytest.raises(ValueError, match="Sphere has no cones"):
        AngledEntailment()(context(GeometryOnly(Sphere(), Cosine()), rows))
