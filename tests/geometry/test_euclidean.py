"""Flat space."""

import math

import mpmath as mp
import pytest
import torch

from hypvl.geometry import lorentz
from hypvl.geometry.euclidean import Euclidean, EuclideanCones, exterior_angle, pairwise_exterior_angle
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import NegativeDistance
from tests.geometry import exact
from tests.geometry.contract import GeometryContract, ScorerContract


class TestEuclidean(GeometryContract):
    def build(self) -> Euclidean:
        return Euclidean()


def test_hand_values() -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    y = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([[-25.0, -1.0, 0.0], [0.0, -20.0, -25.0]], dtype=torch.float64)
    # fp64 products about the common centre round at 1e-15 of the squares
    torch.testing.assert_close(Euclidean().pairwise_similarity(x, y), expected, rtol=1e-12, atol=1e-12)


def test_far_from_the_origin_the_distance_keeps_its_digits() -> None:
    x, y = torch.tensor([[1000.0, 1000.0]]), torch.tensor([[1000.1, 1000.0]])
    step = y[0, 0].item() - 1000.0  # 0.1 as rounded to fp32 at 1000
    # Without centring, |x|^2 = 2e6 would be rounded to an eighth.
    expected = torch.tensor([[-(step**2)]])
    torch.testing.assert_close(Euclidean().pairwise_similarity(x, y), expected, rtol=1e-6, atol=0)


def test_root_is_the_origin_and_without_a_radius_there_are_no_cones() -> None:
    geometry = Euclidean()
    assert geometry.root(3).tolist() == [0.0, 0.0, 0.0]
    assert geometry.cones is None and geometry.curvature is None
    assert geometry.state_dict() == {}
    path = geometry.interpolate(torch.tensor([2.0, 4.0]), geometry.root(2), torch.tensor([0.0, 0.25, 1.0]))
    assert path.tolist() == [[0.0, 0.0], [0.5, 1.0], [2.0, 4.0]]


class TestEuclideanCones(GeometryContract):
    def build(self) -> Euclidean:
        return Euclidean(min_radius=0.2)


class TestEuclideanScores(ScorerContract):
    def build(self) -> tuple[Euclidean, NegativeDistance]:
        return Euclidean(), NegativeDistance()


def test_angles_by_hand() -> None:
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    y = torch.tensor(
        [[3.0, 0.0], [0.5, 0.0], [-2.0, 0.0], [1.0, 4.0], [2.0, 1.0], [0.0, 1.0]], dtype=torch.float64
    )
    wanted = [0.0, math.pi, math.pi, math.pi / 2, math.pi / 4, 3 * math.pi / 4]
    assert exterior_angle(x, y).tolist() == pytest.approx(wanted, abs=1e-15)
    # the cosine goes through a product: sqrt(2 eps) near 0 and pi
    assert pairwise_exterior_angle(x, y)[0].tolist() == pytest.approx(wanted, abs=3e-8)


def test_apertures_by_hand() -> None:
    x = torch.tensor([[0.0, 0.4], [2.0, 0.0], [0.1, 0.0], [0.0, 0.0], [0.2, 0.0]], dtype=torch.float64)
    wanted = [math.pi / 6, math.asin(0.1), math.pi / 2, math.pi / 2, math.pi / 2]
    assert EuclideanCones(0.2).half_aperture(x)[:, 0].tolist() == pytest.approx(wanted, rel=1e-15)


def test_apertures_are_those_of_meru_at_the_same_norm() -> None:
    x = torch.tensor([[0.3, 0.9]], dtype=torch.float64)
    wide, meru = (
        Euclidean(min_radius=0.2).cones.half_aperture(x),
        Lorentz(curv_init=1.0).cones.half_aperture(x),
    )
    assert wide is not None
    assert torch.equal(wide, meru)


@pytest.mark.parametrize("gap", [1.0, 1e-4, 1e-9])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e4])
def test_exterior_angle_against_sixty_digits(size: float, gap: float) -> None:
    """Free, near and nearly collinear points."""
    generator = torch.Generator().manual_seed(0)
    x, other = (size * torch.randn(8, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    for y in (other, x + gap * other, 3 * x + gap * other, -x + gap * other, 0.5 * x - gap * other):
        result = exterior_angle(x, y)
        for i in range(len(x)):
            a, b = exact.vector(x[i]), exact.vector(y[i])
            step = [q - p for p, q in zip(a, b, strict=True)]
            cosine = exact.dot(a, step) / (exact.length(a) * exact.length(step))
            assert abs(mp.mpf(result[i].item()) - mp.acos(cosine)) <= 1e-12


def test_exterior_angle_is_the_limit_of_the_hyperbolic_one() -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(20, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    flat = exterior_angle(x, y)
    errors = [(lorentz.oxy_angle(x, y, curv=c) - flat).abs().max().item() for c in (1e-2, 1e-4, 1e-6)]
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.2)  # proportional to the curvature
    assert errors[2] < 1e-5
    torch.testing.assert_close(exterior_angle(7 * x, 7 * y), flat, rtol=1e-12, atol=1e-14)


def test_gradients_of_the_angles() -> None:
    generator = torch.Generator().manual_seed(2)
    x, y = (torch.randn(4, 3, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(exterior_angle, (x, y))
    assert torch.autograd.gradcheck(pairwise_exterior_angle, (x, y))
    assert torch.autograd.gradcheck(EuclideanCones(0.2).half_aperture, (x,))


def test_undefined_angles_are_right_angles_without_gradient() -> None:
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0], [1.0, 2.0]], requires_grad=True)
    y = torch.tensor([[1.0, 0.0], [1.0, 2.0], [2.0, 4.0]], requires_grad=True)
    angle = exterior_angle(x, y)
    assert angle[:2].tolist() == pytest.approx([math.pi / 2] * 2)
    assert angle[2] == 0
    angle.sum().backward()
    assert x.grad is not None and y.grad is not None
    assert x.grad[:2].eq(0).all() and y.grad[:2].eq(0).all()
    assert x.grad.isfinite().all() and y.grad.isfinite().all()


def test_min_radius_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"min_radius: got 0\.0; expected a number above 0"):
        Euclidean(min_radius=0.0)
