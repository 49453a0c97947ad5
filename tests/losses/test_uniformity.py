import math

import pytest
import torch

from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import Cosine, NegativeDistance
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import IMAGE, TEXT, LossTerm
from hypvl.losses.uniformity import Align, CentreUniform, CrossUniform, Uniform, align_loss, uniform_loss
from tests.losses.contract import LossContract
from tests.losses.toy import GeometryOnly, context, random_features


def _sphere() -> GeometryOnly:
    return GeometryOnly(Sphere(), Cosine())


class TestAlign(LossContract):
    def make(self) -> LossTerm:
        return Align()

    def model(self) -> GeometryOnly:
        return _sphere()


class TestAlignOnHyperboloid(LossContract):
    def make(self) -> LossTerm:
        return Align()


class TestUniform(LossContract):
    def make(self) -> LossTerm:
        return Uniform("text")

    def model(self) -> GeometryOnly:
        return _sphere()


class TestCrossUniform(LossContract):
    def make(self) -> LossTerm:
        return CrossUniform()

    def model(self) -> GeometryOnly:
        return _sphere()


class TestCrossUniformOnHyperboloid(LossContract):
    def make(self) -> LossTerm:
        return CrossUniform(t=0.5)


class TestCentreUniform(LossContract):
    def make(self) -> LossTerm:
        return CentreUniform()

    def model(self) -> GeometryOnly:
        return _sphere()


_EYE = torch.eye(3, dtype=torch.float64)  # rows at squared distance 2 from each other


def test_the_distance_from_the_origin_does_not_matter() -> None:
    x = 0.3 * torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
    own = torch.arange(12)
    near = uniform_loss(x.double(), x.double(), own)
    moved = (x + 1000.0).requires_grad_()
    far = uniform_loss(moved, moved, own)
    assert far.item() == pytest.approx(near.item(), abs=5e-4)  # what rounding the rows to 1000 + x costs
    torch.autograd.gradcheck(lambda z: uniform_loss(z, z + 0.1, own), (x.double() + 1000.0).requires_grad_())


def test_align_by_hand() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    y = torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    assert align_loss(x, y).item() == pytest.approx((2.0 + 4.0) / 2)


def test_uniform_by_hand() -> None:
    """Three orthonormal rows: every pair gives exp(-2 * 2), so the log of the mean is -4; t = 1: -2."""
    own = torch.arange(3)
    assert uniform_loss(_EYE, _EYE, own).item() == pytest.approx(-4.0, rel=1e-12)
    assert uniform_loss(_EYE, _EYE, own, t=1.0).item() == pytest.approx(-2.0, rel=1e-12)
    # squared distances 1, 4 and 1
    line = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    expected = math.log((2 * math.exp(-2) + math.exp(-8)) / 3)
    assert uniform_loss(line, line, own).item() == pytest.approx(expected, rel=1e-12)


def test_terms_by_hand_on_the_sphere() -> None:
    """Texts = images, orthonormal: all aligned, every pair at squared distance 2; centres likewise."""
    ctx = context(_sphere(), {IMAGE: 5 * _EYE, TEXT: 0.1 * _EYE})
    assert Align()(ctx).item() == pytest.approx(0.0, abs=1e-30)
    for term in (Uniform("image"), Uniform("text"), CrossUniform(), CentreUniform()):
        assert term(ctx).item() == pytest.approx(-4.0, rel=1e-12)


def test_centres_of_opposite_pairs_meet_in_the_origin() -> None:
    """x = -y: the centres are all 0, at distance 0, while the cross-modal pairs stay apart."""
    ctx = context(_sphere(), {IMAGE: _EYE, TEXT: -_EYE})
    assert CentreUniform()(ctx).item() == pytest.approx(0.0, abs=1e-12)
    assert CrossUniform()(ctx).item() == pytest.approx(-4.0, rel=1e-12)
    assert Align()(ctx).item() == pytest.approx(4.0, rel=1e-12)


def test_cross_modal_leaves_the_own_text_out() -> None:
    rows = {IMAGE: random_features(4), TEXT: random_features(4, seed=1)}
    before = CrossUniform()(context(_sphere(), rows)).item()
    for i in range(4):  # no text moves its own image's share, only the others'
        grad = torch.zeros(4, 4, dtype=torch.float64, requires_grad=True)
        moved = {IMAGE: rows[IMAGE], TEXT: rows[TEXT] + grad}
        ctx = context(_sphere(), moved)
        x, y = ctx.embeddings(IMAGE), ctx.embeddings(TEXT)
        uniform_loss(x[i : i + 1], y, torch.tensor([i])).backward()
        assert grad.grad is not None
        assert torch.equal(grad.grad[i], torch.zeros(4, dtype=torch.float64))
    assert before < 0


def test_collapse_is_the_worst() -> None:
    same = random_features(1).expand(5, -1)
    ctx = context(_sphere(), {IMAGE: same, TEXT: same})
    for term in (Uniform("image"), CrossUniform(), CentreUniform()):
        assert term(ctx).item() == pytest.approx(0.0, abs=1e-12)


def test_elsewhere_in_flat_coordinates() -> None:
    """On the hyperboloid the tangent vectors at the root, in flat space the features: the same numbers."""
    rows = {IMAGE: random_features(4), TEXT: random_features(4, seed=1)}
    lorentz = context(GeometryOnly(Lorentz(curv_init=2.0), NegativeDistance()), rows)
    flat = context(GeometryOnly(Euclidean(), NegativeDistance()), rows)
    assert Align()(flat).item() == pytest.approx(align_loss(rows[IMAGE], rows[TEXT]).item())
    for term in (Align(), Uniform("image"), CrossUniform(), CentreUniform()):
        assert term(lorentz).item() == pytest.approx(term(flat).item(), rel=1e-9)


def test_single_precision_of_near_equal_rows() -> None:
    """|x|^2 + |y|^2 - 2 x.y cancels, but is only ever used in exp(-t d): an error of eps, not of sqrt(eps)."""
    rows = torch.nn.functional.normalize(
        random_features(1, 64) + 1e-5 * random_features(8, 64, seed=1), dim=1
    )
    own = torch.arange(8)
    exact = uniform_loss(rows, rows, own)
    assert uniform_loss(rows.float(), rows.float(), own).item() == pytest.approx(exact.item(), abs=1e-6)


def test_one_pair_is_no_information() -> None:
    row = random_features(1).requires_grad_()
    value = uniform_loss(row, row, torch.tensor([0]))
    value.backward()
    assert value.item() == 0.0
    assert row.grad is not None and torch.equal(row.grad, torch.zeros_like(row))


@pytest.mark.parametrize("t", [0.0, -2.0, float("nan")])
def test_sharpness_is_checked(t: float) -> None:
    for make in (lambda: Uniform("image", t=t), lambda: CrossUniform(t=t), lambda: CentreUniform(t=t)):
        with pytest.raises(ValueError, match=r"t: got .* expected a number above 0"):
            make()


@pytest.mark.parametrize(
    ("dtype", "size", "reach"), [(torch.float32, 1e20, 1e15), (torch.float64, 1e150, 1e140)]
)
def test_far_rows_count_as_lying_at_the_reach(dtype: torch.dtype, size: float, reach: float) -> None:
    x = torch.eye(3, dtype=dtype)
    assert align_loss(size * x, -size * x).item() == pytest.approx(reach**2, rel=1e-5)
    result = uniform_loss(size * x, size * x, torch.arange(3), t=1e-3)
    assert result.item() == pytest.approx(
        -1e-3 * 3 * reach**2, rel=1e-3
    )  # three directions at angles of 120 degrees
