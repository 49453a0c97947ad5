"""Lorentz functions on drawn points: against 60-digit arithmetic, and the laws of a metric space.

Bounds are those the project promises: 1e-12 in fp64, 1e-5 in fp32 (a float is rounded at 6e-8 already),
relative for lengths and absolute for angles.
"""

import math

import mpmath as mp
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from hypvl.geometry import lorentz
from tests.geometry import exact

D = 3
EXAMPLES = settings(max_examples=25, deadline=None, derandomize=True)
CURV = st.sampled_from([0.1, 1.0, 5.0])
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])


def bound(dtype: torch.dtype) -> float:
    return 1e-12 if dtype == torch.float64 else 1e-5


@st.composite
def points(draw: st.DrawFn, low: float = -8.0, high: float = 4.0) -> Tensor:
    """A direction times a space norm between 10^low and 10^high, (D,) fp64."""
    seed = draw(st.integers(0, 2**31))
    direction = torch.randn(D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return direction / direction.norm() * 10 ** draw(st.floats(low, high))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Two points: unrelated, near-identical, collinear, opposite, or nearly collinear."""
    x, other = draw(points()), draw(points())
    kind = draw(st.sampled_from(["free", "near", "collinear", "opposite", "nearly collinear"]))
    small = 10 ** draw(st.floats(-15, -1))
    factor = draw(st.floats(0.01, 100.0))
    direction = other / other.norm()
    y = {
        "free": other,
        "near": x + small * x.norm() * direction,
        "collinear": factor * x,
        "opposite": -factor * x,
        "nearly collinear": factor * (x + small * x.norm() * direction),
    }[kind]
    return x, y * min(1.0, 1e4 / y.norm().item())


@DTYPES
@EXAMPLES
@given(pair=pairs(), curv=CURV)
def test_dist_and_oxy_angle_are_exact(dtype: torch.dtype, pair: tuple[Tensor, Tensor], curv: float) -> None:
    x, y = (p.to(dtype) for p in pair)
    if torch.equal(x, y):
        assert lorentz.dist(x, y, curv=curv) == 0
        return
    a, b, c = exact.vector(x), exact.vector(y), mp.mpf(curv)
    wanted = exact.dist(a, b, c)
    assert abs(exact.mp.mpf(lorentz.dist(x, y, curv=curv).item()) - wanted) <= bound(dtype) * wanted
    wanted = exact.oxy_angle(a, b, c)
    assert abs(lorentz.oxy_angle(x, y, curv=curv).item() - wanted) <= bound(dtype)


@DTYPES
@EXAMPLES
@given(x=points(), curv=CURV)
def test_maps_and_aperture_are_exact(dtype: torch.dtype, x: Tensor, curv: float) -> None:
    x = x.to(dtype)
    a, c = exact.vector(x), mp.mpf(curv)
    assert exact.relative_error(lorentz.log_map0(x, curv=curv), exact.log_map0(a, c)) <= bound(dtype)
    if math.sqrt(curv) * x.norm() < lorentz.MAX_RADIUS:
        assert exact.relative_error(lorentz.exp_map0(x, curv=curv), exact.exp_map0(a, c)) <= bound(dtype)
    edge = 1e-7 if dtype == torch.float64 else 1e-4  # nearer, the arcsine itself is ill-conditioned
    if abs(math.sqrt(curv) * x.double().norm() / 0.2 - 1) > edge:
        wanted = exact.half_aperture(a, c, mp.mpf(0.1))
        assert abs(lorentz.half_aperture(x, curv=curv).item() - wanted) <= bound(dtype)


@EXAMPLES
@given(v=points(high=0.5), curv=CURV)
def test_log_map_inverts_exp_map(v: Tensor, curv: float) -> None:
    back = lorentz.log_map0(lorentz.exp_map0(v, curv=curv), curv=curv)
    torch.testing.assert_close(back, v, rtol=1e-12, atol=0)


@EXAMPLES
@given(x=points(), curv=CURV)
def test_exp_map_inverts_log_map(x: Tensor, curv: float) -> None:
    # Below the saturation. 1e-11: the exponential multiplies an error of log x by up to asinh(2e4) = 11.
    back = lorentz.exp_map0(lorentz.log_map0(x, curv=curv), curv=curv)
    torch.testing.assert_close(back, x, rtol=1e-11, atol=0)


@EXAMPLES
@given(x=points(), y=points(), z=points(), curv=CURV)
def test_dist_is_a_metric(x: Tensor, y: Tensor, z: Tensor, curv: float) -> None:
    def d(a: Tensor, b: Tensor) -> float:
        return lorentz.dist(a, b, curv=curv).item()

    assert d(x, y) == d(y, x) >= 0
    assert d(x, z) <= (d(x, y) + d(y, z)) * (1 + 1e-12)
    # From the root it is the length of the tangent vector.
    root = torch.zeros(D, dtype=torch.float64)
    assert d(root, x) == pytest.approx(lorentz.log_map0(x, curv=curv).norm().item(), rel=1e-12)


@EXAMPLES
@given(x=points(high=2), y=points(high=2), curv=CURV)
def test_angles_of_a_hyperbolic_triangle_sum_to_less_than_pi(x: Tensor, y: Tensor, curv: float) -> None:
    at_x = math.pi - lorentz.oxy_angle(x, y, curv=curv).item()
    at_y = math.pi - lorentz.oxy_angle(y, x, curv=curv).item()
    at_root = torch.acos((x @ y / (x.norm() * y.norm())).clamp(-1, 1)).item()
    assert at_x + at_y + at_root <= math.pi + 1e-7  # acos of a rounded cosine near 1 is off by sqrt(eps)


@EXAMPLES
@given(pair=pairs(), curv=CURV, seed=st.integers(0, 1000))
def test_rotation_changes_nothing(pair: tuple[Tensor, Tensor], curv: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(D, D, generator=generator, dtype=torch.float64)).Q
    x, y = pair
    turned_x, turned_y = x @ rotation, y @ rotation
    # Rounding the turned points moves them by eps |x|; the distance may move by as much, times 1.
    moved = 8 * torch.finfo(torch.float64).eps * max(x.norm(), y.norm()).item()
    there, here = lorentz.dist(turned_x, turned_y, curv=curv), lorentz.dist(x, y, curv=curv)
    assert abs(there - here).item() <= moved + 1e-12 * here.item()


@EXAMPLES
@given(x=points(), y=points(), scale=st.floats(0.1, 10.0))
def test_curvature_is_a_change_of_unit(x: Tensor, y: Tensor, scale: float) -> None:
    """Points scaled by s on the space of curvature -1/s^2 are s times as far apart, under the same angles."""
    there = lorentz.dist(scale * x, scale * y, curv=1 / scale**2)
    torch.testing.assert_close(there, scale * lorentz.dist(x, y, curv=1.0), rtol=1e-11, atol=0)
    angle = lorentz.oxy_angle(scale * x, scale * y, curv=1 / scale**2)
    torch.testing.assert_close(angle, lorentz.oxy_angle(x, y, curv=1.0), rtol=0, atol=1e-11)


@DTYPES
@EXAMPLES
@given(many=st.lists(pairs(), min_size=2, max_size=4), curv=CURV)
def test_pairwise_error_is_within_16_eps(
    dtype: torch.dtype, many: list[tuple[Tensor, Tensor]], curv: float
) -> None:
    """In cosh(sqrt(c) d), relative to c t(x) t(y); rounding d itself once is not the product's doing."""
    x, y = (torch.stack(side).to(dtype) for side in zip(*many, strict=True))
    d, inner = lorentz.pairwise_dist(x, y, curv=curv), lorentz.pairwise_inner(x, y, curv=curv)
    c, eps = mp.mpf(curv), torch.finfo(dtype).eps
    for i, a in enumerate(map(exact.vector, x)):
        for j, b in enumerate(map(exact.vector, y)):
            wanted, allowed = exact.cosh_dist(a, b, c), 16 * eps * c * exact.time(a, c) * exact.time(b, c)
            assert abs(-c * mp.mpf(inner[i, j].item()) - wanted) <= allowed
            unit = mp.sqrt(c) * mp.mpf(d[i, j].item())
            rounding = mp.sinh(unit) * unit * eps / 2
            assert abs(mp.cosh(unit) - wanted) <= max(allowed, allowed / 2 + rounding)
