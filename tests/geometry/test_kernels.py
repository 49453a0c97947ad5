"""Series, and distances and angles after a matrix product."""

import math

import mpmath as mp
import pytest
import torch

from hypvl.geometry import kernels
from tests.geometry import exact


@pytest.mark.parametrize("r", [0.0, 1e-9, 1e-3, 0.0999999, 0.1000001, 0.5, 3.0, 11.0])
def test_series_and_closed_forms_meet(r: float) -> None:
    square = torch.tensor(r * r, dtype=torch.float64, requires_grad=True)
    s = mp.mpf(square.item())
    for function, wanted in ((kernels.sinhc, mp.sinh), (kernels.asinhc, mp.asinh)):
        value = function(square)
        (grad,) = torch.autograd.grad(value, square)
        if s == 0:
            assert value.item() == 1.0
            assert grad.item() == pytest.approx(1 / 6 if wanted is mp.sinh else -1 / 6, rel=1e-14)
            continue
        root = mp.sqrt(s)
        assert abs(value.item() / (wanted(root) / root) - 1) < 4e-16
        slope = mp.diff(lambda u, f=wanted: f(mp.sqrt(u)) / mp.sqrt(u), s)
        # Just above the switch the closed form's slope loses two digits.
        assert abs(grad.item() / slope - 1) < 1e-13


def test_pairs_of_one_product() -> None:
    """From the cosine of the angle at the root: an equilateral right-angled corner with legs 1 and 1."""
    n2 = torch.full((1, 1), math.sinh(1.0) ** 2, dtype=torch.float64)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    d = kernels.distance_from_product(zero, n2, n2, torch.tensor(1.0, dtype=torch.float64))
    assert d.item() == pytest.approx(math.acosh(math.cosh(1.0) ** 2), rel=1e-15)
    # tan of the angle at a leg's end: tanh 1 / sinh 1 = 1 / cosh 1
    phi = kernels.angle_from_product(zero, n2, n2)
    assert phi.item() == pytest.approx(math.pi - math.atan(1 / math.cosh(1.0)), rel=1e-15)


@pytest.mark.parametrize("curv", [0.1, 0.31, 5.0])
def test_long_fp64_distances_are_rounded_once(curv: float) -> None:
    """Half a unit in the last place, and what the product leaves: 2 eps of the cosh, an eighth of a unit at 20."""
    radii = torch.logspace(3.5, 4, 40, dtype=torch.float64)
    n2 = curv * radii.square()[:, None]
    klein = torch.sqrt(n2 / (1 + n2))  # opposite points: minus the products of Klein radii
    result = kernels.distance_from_product(
        -klein @ klein.mT, n2, n2.mT, torch.tensor(curv, dtype=torch.float64)
    )
    for r, d in zip(radii, result.diagonal(), strict=True):
        wanted = exact.dist([mp.mpf(r.item())], [-mp.mpf(r.item())], mp.mpf(curv))
        unit = math.ulp(d.item())
        # n^2 comes in rounded: 2 eps of sinh^2, which is 1 eps of d sqrt(c), beside the rounding of d
        assert abs(mp.mpf(d.item()) - wanted) <= 0.5 * unit + 5 * 2.3e-16 / math.sqrt(curv)
