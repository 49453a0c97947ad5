import math

import pytest
import torch
from torch import Tensor

from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import IMAGE, LossTerm, View
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.cyclip import CrossModalCyclic, InModalCyclic
from hypvl.losses.long_caption import ShortCaption, ShortCyclic, primary_components
from tests.losses.contract import LossContract
from tests.losses.toy import GeometryOnly, context, random_features

SHORT = View.parse("text:short_text")


class TestOneComponentOnSphere(LossContract):
    def make(self) -> LossTerm:
        return ShortCaption(components=1)

    def model(self) -> GeometryOnly:
        return GeometryOnly(Sphere(), Cosine())


class TestOneComponentOnHyperboloid(LossContract):
    def make(self) -> LossTerm:
        return ShortCaption(components=1, label_smoothing=0.0)


class TestManyComponents(LossContract):
    """More than a small batch has, fewer than six rows have."""

    def make(self) -> LossTerm:
        return ShortCaption(components=3)

    def model(self) -> GeometryOnly:
        return GeometryOnly(Sphere(), Cosine())


class TestShortCyclicOnSphere(LossContract):
    def make(self) -> LossTerm:
        return ShortCyclic(components=1)

    def model(self) -> GeometryOnly:
        return GeometryOnly(Sphere(), Cosine())


class TestShortCyclicOnHyperboloid(LossContract):
    def make(self) -> LossTerm:
        return ShortCyclic(components=2)


def _with_singular_values(rows: int, dim: int, values: list[float], *, seed: int = 0) -> Tensor:
    """Rows whose centred part has these singular values, around a mean that is not 0."""
    generator = torch.Generator().manual_seed(seed)
    count = len(values)
    # left vectors orthogonal to the constant one, so that centring leaves them alone
    raw = torch.randn(rows, count, generator=generator, dtype=torch.float64)
    left = torch.linalg.qr(raw - raw.mean(0)).Q
    right = torch.linalg.qr(torch.randn(dim, count, generator=generator, dtype=torch.float64)).Q
    mean = torch.randn(dim, generator=generator, dtype=torch.float64)
    return mean + left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right.mT


def _numeric_gradient(x: Tensor, weights: Tensor, *, count: int, step: float = 1e-6) -> Tensor:
    """Of sum(weights * primary_components(x)), by central differences."""
    out = torch.zeros_like(x)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            moved = torch.zeros_like(x)
            moved[i, j] = step
            up, down = ((weights * primary_components(x + s * moved, count=count)).sum() for s in (1, -1))
            out[i, j] = (up - down) / (2 * step)
    return out


def _gradient(x: Tensor, weights: Tensor, *, count: int) -> Tensor:
    x = x.clone().requires_grad_()
    (weights * primary_components(x, count=count)).sum().backward()
    assert x.grad is not None
    return x.grad


def test_projection_by_hand() -> None:
    """Mean (1, 1); the first component is the first axis, where the rows spread twice as far."""
    x = torch.tensor([[3.0, 1.0], [-1.0, 1.0], [1.0, 2.0], [1.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([[3.0, 1.0], [-1.0, 1.0], [1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(primary_components(x, count=1), expected, rtol=0, atol=1e-14)


def test_gradient_by_hand() -> None:
    """The same rows, G = 1 at the second coordinate of the third row: (a, b) is what the first row gets there.

    In the basis of axes and left vectors E has one relevant entry: the third row, centred, is (0, 1); its left
    vector is u2 = (0, 0, 1, -1) / sqrt(2), s1 = 2 sqrt(2), s2 = sqrt(2), q = 1/2. G along u1 = (1, -1, 0, 0) /
    sqrt(2) is 0, so only what lies in the rest or in the mean is left: 1/4 of G in each row's second coordinate.
    """
    x = torch.tensor([[3.0, 1.0], [-1.0, 1.0], [1.0, 2.0], [1.0, 0.0]], dtype=torch.float64)
    weights = torch.zeros_like(x)
    weights[2, 1] = 1.0
    expected = torch.tensor([[0.0, 0.25]] * 4, dtype=torch.float64)
    torch.testing.assert_close(_gradient(x, weights, count=1), expected, rtol=0, atol=1e-14)
    # G in the first row's second coordinate: E_12 = 1/sqrt(2), times 1/(1 - q^2) = 4/3 along u1, and q times
    # that along u2 in the first coordinate; the mean gets the fourth of G
    weights = torch.zeros_like(x)
    weights[0, 1] = 1.0
    result = _gradient(x, weights, count=1)
    along = torch.tensor([2 / 3, -2 / 3, 0.0, 0.0], dtype=torch.float64)
    # the part of G along the third left vector (1, 1, -1, -1) / 2 has s = 0 and no first component: removed
    torch.testing.assert_close(result[:, 1], along + 0.25, rtol=0, atol=1e-14)
    turned = torch.tensor([0.0, 0.0, 1 / 3, -1 / 3], dtype=torch.float64)
    torch.testing.assert_close(result[:, 0], turned, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("rows", "dim", "values", "count"), [
    (6, 4, [3.0, 2.0, 1.0, 0.5], 2),
    (4, 7, [3.0, 2.0, 1.0], 1),  # fewer rows than dimensions
    (7, 4, [2.0, 2.0, 1.0, 1.0], 2),  # equal within the first two and within the rest
    (6, 5, [2.0, 2.0, 2.0, 0.5, 0.5], 3),
    (6, 5, [2.0, 1.0], 2),  # k is the rank
    (6, 5, [2.0, 2.0], 2),
    (6, 5, [2.0, 1.0], 1),  # zeros among the rest
    (6, 5, [2.0, 1.0], 3),  # k above the rank
    (6, 5, [2.0], 4),
    (6, 5, [3.0, 1.0, 0.9999], 2),  # close
])  # fmt: skip
def test_gradient_where_it_exists(rows: int, dim: int, values: list[float], count: int) -> None:
    """Against differences of the function itself, wherever the k-th singular value is not the next one.

    Above the rank the function is the identity along any change of one entry.
    """
    x = _with_singular_values(rows, dim, values)
    weights = random_features(rows, dim, seed=9)
    result = _gradient(x, weights, count=count)
    torch.testing.assert_close(result, _numeric_gradient(x, weights, count=count), rtol=2e-4, atol=2e-5)


def test_gradient_grows_as_the_gap_closes_and_stays_finite_where_it_is_closed() -> None:
    weights = random_features(6, 4, seed=9)
    sizes = []
    for gap in (1e-1, 1e-4, 1e-8, 1e-13, 0.0):
        result = _gradient(_with_singular_values(6, 4, [2.0, 1.0 + gap, 1.0, 0.5]), weights, count=2)
        assert torch.isfinite(result).all()
        sizes.append(result.norm().item())
    assert sizes[1] == pytest.approx(1e3 * sizes[0], rel=0.5)
    assert sizes[2] == pytest.approx(1e4 * sizes[1], rel=0.01)
    assert sizes[4] < 2 * weights.norm().item()


def test_gradient_at_a_tie_holds_the_projector_between_the_tied_ones() -> None:
    """All three singular values equal: nothing turns, and G goes through the components that came out."""
    x = _with_singular_values(6, 3, [1.0, 1.0, 1.0])
    weights = random_features(6, 3, seed=9)
    # the projector that came out, read off the function: (x - m) V V^T = x' - m
    centred = x - x.mean(0)
    projector = torch.linalg.pinv(centred) @ (primary_components(x, count=1) - x.mean(0))
    expected = weights @ projector
    expected = expected + (weights - expected).mean(0)
    torch.testing.assert_close(_gradient(x, weights, count=1), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("x", [
    random_features(1, 5),
    random_features(1, 5).expand(4, -1),
    torch.zeros(6, 5, dtype=torch.float64),
    _with_singular_values(9, 5, [2.0]),
    1e-200 * random_features(9, 5),
    1e150 * random_features(9, 5),
], ids=["one row", "identical rows", "zeros", "rank one", "tiny", "huge"])  # fmt: skip
def test_degenerate_rows(x: Tensor) -> None:
    weights = random_features(*x.shape, seed=9)
    for count in (1, 2, 5, 32):
        value = primary_components(x, count=count)
        assert torch.isfinite(value).all()
        assert torch.isfinite(_gradient(x, weights, count=count)).all()
    torch.testing.assert_close(primary_components(x, count=32), x, rtol=0, atol=0)


def test_nothing_is_removed_where_there_is_nothing_more() -> None:
    x = random_features(4, 6)
    assert primary_components(x, count=3) is x  # four centred rows span three dimensions
    assert primary_components(random_features(9, 3), count=3).shape == (9, 3)
    assert not torch.allclose(primary_components(x, count=2), x)
    rank_one = _with_singular_values(9, 5, [2.0])
    weights = random_features(9, 5, seed=9)
    assert torch.equal(primary_components(rank_one, count=2), rank_one)
    assert torch.equal(_gradient(rank_one, weights, count=2), weights)


def test_rounding_of_identical_rows_is_not_a_component() -> None:
    """The mean of seven copies is off by an ulp: that difference is neither projected nor divided by."""
    x = (1.0 + random_features(1, 5)).expand(7, -1)
    weights = random_features(7, 5, seed=9)
    assert (x - x.mean(0)).abs().max() > 0
    assert torch.equal(primary_components(x, count=1), x)
    assert torch.equal(_gradient(x, weights, count=1), weights)


def test_it_is_a_projection() -> None:
    x = random_features(8, 5)
    once = primary_components(x, count=2)
    torch.testing.assert_close(primary_components(once, count=2), once, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(once.mean(0), x.mean(0))
    shifted = primary_components(x + 3.0, count=2)
    torch.testing.assert_close(shifted, once + 3.0)


def test_single_and_half_precision() -> None:
    x = torch.nn.functional.normalize(random_features(40, 16), dim=1)
    weights = random_features(40, 16, seed=9)
    exact, gradient = primary_components(x, count=4), _gradient(x, weights, count=4)
    single = primary_components(x.float(), count=4)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, rtol=0, atol=1e-6)
    result = _gradient(x.float(), weights.float(), count=4)
    torch.testing.assert_close(result.double(), gradient, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = primary_components(x.bfloat16(), count=4)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.double(), exact, rtol=0, atol=2e-2)


def test_what_is_not_finite_is_seen_in_the_loss() -> None:
    x = random_features(8, 5)
    x[3, 2] = float("nan")
    assert primary_components(x, count=2).isnan().any()
    rows = {IMAGE: x, SHORT: random_features(8, 5, seed=1)}
    model = GeometryOnly(Sphere(), Cosine())
    assert ShortCaption(components=2)(context(model, rows)).isnan()


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="count: got 0; expected at least one"):
        primary_components(random_features(3), count=0)
    with pytest.raises(ValueError, match=r"x: got shape \(4,\); expected \(B, D\)"):
        primary_components(torch.zeros(4), count=1)
    for arguments, words in (
        ({"components": 0}, "components: got 0; expected a whole number of at least 1"),
        ({"label_smoothing": 1.0}, "label_smoothing: got 1.0"),
        ({"over": "rank"}, "over: got 'rank'; expected 'gathered' or 'local'"),
    ):
        with pytest.raises(ValueError, match=words):
            ShortCaption(**arguments)


def test_short_captions_by_hand() -> None:
    """Images (+-1, 0), (0, +-1/2) keep the first axis only; the last two become 0 and score 0 with anything."""
    model = GeometryOnly(_Raw(), Cosine())
    model.scorer.log_scale.data.fill_(0.0)
    images = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.5], [0.0, -0.5]], dtype=torch.float64)
    short = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    # rows of P T^T: (1, -1, 0, 0), (-1, 1, 0, 0), 0, 0, and it is symmetric
    one = math.log(math.e + math.exp(-1) + 2) - 1
    expected = (2 * one + 2 * math.log(4)) / 4
    term = ShortCaption(components=1, label_smoothing=0.0)
    assert term(context(model, {IMAGE: images, SHORT: short})).item() == pytest.approx(expected, rel=1e-12)


def test_with_all_components_it_is_the_plain_contrastive_term() -> None:
    rows = {IMAGE: random_features(5), SHORT: random_features(5, seed=1)}
    model = GeometryOnly(Sphere(), Cosine())
    plain = Contrastive([("image", SHORT), (SHORT, "image")], label_smoothing=0.1)
    result = ShortCaption(components=4)(context(model, rows)).item()
    assert result == pytest.approx(plain(context(model, rows)).item(), rel=1e-12)


def test_short_cyclic_by_hand() -> None:
    """P = (+-1, 0), 0, 0 as above. In-modal: own -1 and texts' -1 agree, the diagonals of the last two are 0
    against 1, as are their similarities -1 to each other: 4 of them. Cross-modal: both matrices are equal."""
    images = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.5], [0.0, -0.5]], dtype=torch.float64)
    short = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    ctx = context(GeometryOnly(_Raw(), Cosine()), {IMAGE: images, SHORT: short})
    assert ShortCyclic(components=1)(ctx).item() == pytest.approx(4 / 4, rel=1e-12)


def test_short_cyclic_with_all_components_is_cyclip() -> None:
    rows = {IMAGE: random_features(5), SHORT: random_features(5, seed=1)}
    ctx = context(GeometryOnly(Sphere(), Cosine()), rows)
    plain = InModalCyclic(second=SHORT)(ctx) + CrossModalCyclic(second=SHORT)(ctx)
    assert ShortCyclic(components=4)(ctx).item() == pytest.approx(plain.item(), rel=1e-12)


def test_local_components_are_the_same_in_one_process() -> None:
    rows = {IMAGE: random_features(8), SHORT: random_features(8, seed=1)}
    model = GeometryOnly(Sphere(), Cosine())
    values = [
        ShortCaption(components=2, over=over)(context(model, rows)).item() for over in ("gathered", "local")
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-12)


class _Raw(Sphere):
    """The features as they are, so that values can be counted by hand."""

    def lift(self, features: Tensor) -> Tensor:
        return features
