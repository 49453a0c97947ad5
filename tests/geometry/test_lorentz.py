"""Lorentz functions at values known by hand, at the edges, in fp32 and bf16; and the class."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hypvl.geometry import lorentz
from hypvl.geometry.lorentz import Lorentz
from tests.geometry.contract import GeometryContract, rows

ELEMENTWISE = [lorentz.exp_map0, lorentz.log_map0, lorentz.half_aperture]
PAIRED = [lorentz.dist, lorentz.oxy_angle]
PAIRWISE = [lorentz.pairwise_inner, lorentz.pairwise_dist, lorentz.pairwise_oxy_angle]


def double(*values: object) -> Tensor:
    return torch.tensor(*values, dtype=torch.float64)


class TestLorentz(GeometryContract):
    def build(self) -> Lorentz:
        return Lorentz(curv_init=0.5)


class TestFixedCurvature(GeometryContract):
    def build(self) -> Lorentz:
        return Lorentz(curv_init=0.1, learn_curv=False, curv_range=5.0)


def test_hand_values() -> None:
    """On the plane of curvature -1, x = sinh(1) e1 and y = sinh(2) e2 are 1 and 2 from the root, at a right angle."""
    x, y = double([math.sinh(1.0), 0.0]), double([0.0, math.sinh(2.0)])
    # Hyperbolic Pythagoras: cosh d = cosh 1 cosh 2; the angle at x: tan = tanh 2 / sinh 1, exterior pi minus it.
    d = math.acosh(math.cosh(1.0) * math.cosh(2.0))
    phi = math.pi - math.atan(math.tanh(2.0) / math.sinh(1.0))
    assert lorentz.dist(x, y, curv=1.0).item() == pytest.approx(d, rel=1e-14)
    assert lorentz.pairwise_dist(x[None], y[None], curv=1.0).item() == pytest.approx(d, rel=1e-14)
    assert lorentz.pairwise_inner(x[None], y[None], curv=1.0).item() == pytest.approx(
        -math.cosh(d), rel=1e-14
    )
    assert lorentz.oxy_angle(x, y, curv=1.0).item() == pytest.approx(phi, abs=1e-14)
    assert lorentz.pairwise_oxy_angle(x[None], y[None], curv=1.0).item() == pytest.approx(phi, abs=1e-14)
    assert lorentz.half_aperture(x, curv=1.0).item() == pytest.approx(
        math.asin(0.2 / math.sinh(1.0)), rel=1e-14
    )
    torch.testing.assert_close(lorentz.exp_map0(double([1.0, 0.0]), curv=1.0), x)
    torch.testing.assert_close(lorentz.log_map0(y, curv=1.0), double([0.0, 2.0]))


def test_angle_and_distance_special_positions() -> None:
    x = double([[0.3, -0.4]])
    root = torch.zeros_like(x)
    assert lorentz.oxy_angle(x, 2 * x, curv=1.0).item() == 0.0
    assert lorentz.oxy_angle(x, 0.5 * x, curv=1.0).item() == math.pi
    assert lorentz.oxy_angle(x, root, curv=1.0).item() == math.pi
    assert lorentz.oxy_angle(x, -x, curv=1.0).item() == math.pi
    for undefined in (lorentz.oxy_angle(root, x, curv=1.0), lorentz.oxy_angle(x, x, curv=1.0)):
        assert undefined.item() == math.pi / 2
    assert math.isnan(lorentz.dist(x, math.nan * x, curv=1.0).item())
    assert math.isnan(lorentz.oxy_angle(x, math.nan * x, curv=1.0).item())
    assert lorentz.dist(x, x, curv=1.0).item() == 0.0
    assert lorentz.dist(x, -x, curv=4.0).item() == pytest.approx(2 * math.asinh(1.0) / 2, rel=1e-14)


def test_cone_is_a_half_space_inside_the_minimum_radius() -> None:
    x = double([[0.0, 0.0], [0.1, 0.0], [0.2, 0.0], [0.4, 0.0]]).requires_grad_()
    aperture = lorentz.half_aperture(x, curv=1.0)
    torch.testing.assert_close(aperture, double([math.pi / 2] * 3 + [math.pi / 6]))
    (grad,) = torch.autograd.grad(aperture.sum(), x)
    # d asin(k/r)/dr = -k / (r sqrt(r^2 - k^2)) at k = 0.2, r = 0.4
    torch.testing.assert_close(grad, double([[0, 0], [0, 0], [0, 0], [-0.2 / (0.4 * math.sqrt(0.12)), 0]]))
    wider = lorentz.half_aperture(x.detach(), curv=1.0, min_radius=0.2)
    torch.testing.assert_close(wider, double([math.pi / 2] * 4))


def test_exp_map_saturates_and_keeps_the_direction() -> None:
    v = double([[30.0, 40.0], [1e6, 0.0]]).requires_grad_()
    x = lorentz.exp_map0(v, curv=4.0)
    torch.testing.assert_close(x, double([[0.6, 0.8], [1.0, 0.0]]) * 2.0**15 / 2.0)
    assert torch.autograd.grad(x.sum(), v)[0].isfinite().all()
    assert lorentz.exp_map0(v, curv=4.0, max_radius=1.0).norm(dim=-1).tolist() == pytest.approx(
        [math.sinh(1) / 2] * 2
    )


def test_broadcasting_and_curvature_per_factor() -> None:
    """(B, 1, D) with (K, D), and a product space's (F, 1) curvatures with (B, F, D)."""
    x, y = rows(4, seed=0), rows(3, seed=1)
    table = lorentz.dist(x[:, None], y, curv=0.7)
    torch.testing.assert_close(table, lorentz.pairwise_dist(x, y, curv=0.7), rtol=1e-12, atol=1e-12)
    angles = lorentz.oxy_angle(x[:, None], y, curv=0.7)
    torch.testing.assert_close(angles, lorentz.pairwise_oxy_angle(x, y, curv=0.7), rtol=0, atol=1e-12)
    a, b = x.reshape(4, 2, 3), y.reshape(3, 2, 3)
    curvs = double([[0.5], [2.0]])
    apart = torch.stack([lorentz.dist(a[:3, f], b[:, f], curv=curvs[f].item()) for f in range(2)], -1)
    torch.testing.assert_close(lorentz.dist(a[:3], b, curv=curvs), apart)
    per_factor = lorentz.pairwise_dist(
        a.transpose(0, 1), b.transpose(0, 1), curv=curvs[..., None]
    )  # (F, B, K)
    expected = torch.stack([lorentz.pairwise_dist(a[:, f], b[:, f], curv=curvs[f].item()) for f in range(2)])
    torch.testing.assert_close(per_factor, expected)


def test_gradients_against_differences() -> None:
    # Well apart and at all distances from the root, the minimum radius of the cones included.
    x = rows(5, seed=0) * double([[1e-3], [0.1], [0.3], [1.0], [4.0]])
    y, curv = rows(5, seed=1), double(0.7)
    leaves = [t.clone().requires_grad_() for t in (x, y, curv)]
    for function in PAIRED + PAIRWISE:
        assert torch.autograd.gradcheck(lambda a, b, c, f=function: f(a, b, curv=c), leaves)
    for function in ELEMENTWISE:
        assert torch.autograd.gradcheck(lambda a, c, f=function: f(a, curv=c), (leaves[0], leaves[2]))


def test_pairwise_gradients_with_factors() -> None:
    x, y = rows(4, seed=0).reshape(2, 2, 6), rows(6, seed=1).reshape(2, 3, 6)
    leaves = [t.clone().requires_grad_() for t in (x, y, double([[[0.5]], [[2.0]]]))]
    for function in PAIRWISE:
        assert torch.autograd.gradcheck(lambda a, b, c, f=function: f(a, b, curv=c), leaves)


def test_pairs_are_processed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of rows a processor works through are an implementation detail: no number depends on them."""
    x, y = rows(7, seed=0), rows(5, seed=1)

    def run() -> list[Tensor]:
        result = []
        for function in (lorentz.pairwise_dist, lorentz.pairwise_oxy_angle):
            leaves = [t.clone().requires_grad_() for t in (x, y, double(0.7))]
            out = function(*leaves[:2], curv=leaves[2])
            result += [out.detach(), *torch.autograd.grad((out * out.detach().cos()).sum(), leaves)]
        return result

    whole = run()
    monkeypatch.setattr(
        lorentz.kernels, "blocks", lambda pairs: (slice(i, i + 2) for i in range(0, len(pairs), 2))
    )
    for a, b in zip(run(), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-14, atol=1e-14)


def awkward(dtype: torch.dtype) -> Tensor:
    """Zero, denormal, tiny, near-identical, collinear, opposite, large and saturated points, (N, 3)."""
    base = double([[1.0, 0.0, 0.0], [0.6, -0.8, 0.0], [-1.0, 0.0, 0.0], [1.0, 1e-7, 0.0], [1.0, 1e-3, 0.0]])
    norms = [
        0.0,
        1e-45,
        1e-38,
        1e-30,
        1e-25,
        1.1e-25,
        1e-12,
        1e-8,
        1e-3,
        0.2,
        1.0,
        300.0,
        1e4,
        32768.0,
        1e19,
        1e30,
    ]
    norms += [5e-324, 1e-160, 1e60] if dtype == torch.float64 else [3.3e38]
    x = torch.cat([base * n for n in norms]).to(dtype)
    return torch.cat((x, torch.nextafter(x, torch.ones_like(x)))) if dtype != torch.bfloat16 else x


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("curv", [0.1, 5.0])
@pytest.mark.parametrize("function", ELEMENTWISE + PAIRED + PAIRWISE, ids=lambda f: f.__name__)
def test_everything_is_finite(function: Callable[..., Tensor], curv: float, dtype: torch.dtype) -> None:
    points = awkward(dtype)
    leaves = [points.clone().requires_grad_()]
    if function in PAIRED:
        leaves = [points.repeat_interleave(len(points), 0).requires_grad_(), points.repeat(len(points), 1)]
        leaves[1].requires_grad_()
    elif function in PAIRWISE:
        leaves.append(points.clone().requires_grad_())
    c = torch.tensor(curv, requires_grad=True)
    out = function(*leaves, curv=c)
    assert out.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert out.isfinite().all()
    # Gradients of points up to 1e4: beyond, those of an inner product are as large as its arguments.
    near = [leaf.detach().double().norm(dim=-1) <= 1.001e4 for leaf in leaves]
    kept = out[near[0]][:, near[1]] if function in PAIRWISE else out[torch.stack(near).all(0)]
    for grad in torch.autograd.grad(kept.sum(), (*leaves, c)):
        assert grad.isfinite().all()


@pytest.mark.parametrize("function", PAIRED + PAIRWISE, ids=lambda f: f.__name__)
def test_identical_points_have_gradient_zero(function: Callable[..., Tensor]) -> None:
    x = rows(1, seed=0).requires_grad_()
    (grad,) = torch.autograd.grad(function(x, x.detach().clone(), curv=1.0).sum(), x)
    if function is lorentz.pairwise_inner:
        # y - t(y) x / t(x) at y = x
        assert grad.abs().max() <= 1e-15
    elif function in PAIRED:
        assert grad.abs().max() == 0
    else:
        assert grad.isfinite().all()


def test_wrong_arguments_are_named() -> None:
    x, y = rows(2, seed=0), rows(2, seed=1)
    with pytest.raises(ValueError, match=r"curv: got -1\.0, expected a finite c > 0"):
        lorentz.dist(x, y, curv=-1.0)
    with pytest.raises(ValueError, match=r"curv: got 0\.0, expected c > 0"):
        lorentz.log_map0(x, curv=torch.tensor(0.0))
    with pytest.raises(ValueError, match=r"x, y: got shapes \(2, 6\) and \(2, 5\), expected the same D"):
        lorentz.pairwise_inner(x, y[:, :5], curv=1.0)
    with pytest.raises(ValueError, match=r"y: got shape \(6,\), expected \(\.\.\., B, D\)"):
        lorentz.pairwise_dist(x, y[0], curv=1.0)
    with pytest.raises(TypeError, match=r"x: got torch\.int64, expected floating-point"):
        lorentz.half_aperture(torch.ones(2, 3, dtype=torch.long), curv=1.0)
    with pytest.raises(ValueError, match="y: got a component beyond 1e"):
        lorentz.dist(x, y * 1e80, curv=1.0)
    with pytest.raises(ValueError, match="max_radius: got 100"):
        lorentz.exp_map0(x.float(), curv=1.0, max_radius=100)
    with pytest.raises(ValueError, match=r"min_radius: got 0\.0"):
        lorentz.half_aperture(x, curv=1.0, min_radius=0.0)
    for wrong in ({"curv_init": 0.0}, {"curv_range": 0.5}, {"min_radius": -0.1}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}: got"):
            Lorentz(**wrong)


def test_curvature_stays_in_its_range_and_in_the_state_dict() -> None:
    learned, fixed = Lorentz(curv_init=2.0, curv_range=4.0), Lorentz(curv_init=0.1, learn_curv=False)
    assert learned.log_curv.shape == () and learned.log_curv.requires_grad
    assert not fixed.log_curv.requires_grad
    assert set(learned.state_dict()) == set(fixed.state_dict()) == {"log_curv"}
    for start, expected in ((9.0, 8.0), (-9.0, 0.5)):
        with torch.no_grad():
            learned.log_curv.fill_(start)
        learned.constrain_()
        assert learned.curv.item() == pytest.approx(expected, rel=1e-6)  # fp32 log
    assert fixed.stats() == {"curv": pytest.approx(0.1, rel=1e-6)}
    assert fixed.bfloat16().curv.dtype == torch.float32


def test_a_clamped_value_leaves_the_parameter_alone() -> None:
    geometry = Lorentz(curv_init=2.0, curv_range=4.0, clamp="value").double()
    for start, expected, slope in ((9.0, 8.0, 0.0), (-9.0, 0.5, 0.0), (1.0, math.e, math.e)):
        with torch.no_grad():
            geometry.log_curv.fill_(start)
        geometry.constrain_()
        assert geometry.log_curv.item() == start
        assert geometry.curv.item() == pytest.approx(expected, rel=1e-12)
        (gradient,) = torch.autograd.grad(geometry.curv, geometry.log_curv)
        assert gradient.item() == pytest.approx(slope, rel=1e-12)
    with pytest.raises(ValueError, match="clamp: got 'both'; expected 'parameter' or 'value'"):
        Lorentz(clamp="both")  # type: ignore[arg-type]


def test_traversal_is_linear_in_the_tangent_space() -> None:
    geometry = Lorentz().double()
    x = lorentz.exp_map0(double([1.2, 1.6]), curv=1.0)  # distance 2 from the root
    path = geometry.interpolate(x, geometry.root(2), torch.tensor([0.0, 0.25, 0.5, 1.0]))
    radii = lorentz.dist(path, torch.zeros(2, dtype=torch.float64), curv=1.0)
    torch.testing.assert_close(radii, double([0.0, 0.5, 1.0, 2.0]))


def test_pool_lifts_the_mean_of_the_features() -> None:
    geometry = Lorentz().double()
    pooled = geometry.pool(double([[1.0, 0.0], [3.0, 0.0]]))
    torch.testing.assert_close(pooled, double([math.sinh(2.0), 0.0]))


class TestLorentzPoolsDirections(GeometryContract):
    def build(self) -> Lorentz:
        return Lorentz(curv_init=0.5, pooling="direction")


def test_pooling_by_hand() -> None:
    """Two perpendicular features of length 1 and 3: their mean, or the bisector at length 2."""
    features = torch.tensor([[1.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    mean = Lorentz().flatten(Lorentz().pool(features))
    assert mean.tolist() == pytest.approx([0.5, 1.5])
    geometry = Lorentz(pooling="direction")
    assert geometry.flatten(geometry.pool(features)).tolist() == pytest.approx([math.sqrt(2)] * 2)
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    assert geometry.pool(opposite).tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="pooling: got 'max'; expected 'mean' or 'direction'"):
        Lorentz(pooling="max")  # type: ignore[arg-type]  # wrong on purpose
