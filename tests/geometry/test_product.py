"""Products of hyperbolic spaces."""

import math

import mpmath as mp
import pytest
import torch
from torch import Tensor

from hypvl.geometry import product
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.product import Product
from hypvl.geometry.scorers import NegativeDistance
from tests.geometry import exact
from tests.geometry.contract import GeometryContract, ScorerContract, rows


def spread(geometry: Product, *, seed: int = 7) -> Product:
    """The geometry with another curvature in every factor, between 0.3 and 3."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        geometry.log_curv.copy_(2 * math.log(3) * (torch.rand(geometry.factors, generator=generator) - 0.5))
    return geometry


class TestProduct(GeometryContract):
    def build(self) -> Product:
        return spread(Product(3, 2))

    def rotation(self) -> Tensor:
        """Each factor turns by itself: mixing them is not a symmetry of the space."""
        return torch.block_diag(*(torch.linalg.qr(rows(6, seed=i)[:2, :2]).Q for i in range(3)))


class TestRootMeanSquare(TestProduct):
    def build(self) -> Product:
        return spread(Product(3, 2, metric="l2"))

    def over_factors(self, distances: Tensor) -> Tensor:
        return distances.square().mean(-1).sqrt()


class TestOneFactor(GeometryContract):
    def build(self) -> Product:
        return Product(1, 6, curv_init=0.5)


class TestRootMeanSquareScores(ScorerContract):
    def build(self) -> tuple[Product, NegativeDistance]:
        return spread(Product(3, 2, metric="l2")), NegativeDistance()


class TestProductScores(ScorerContract):
    def build(self) -> tuple[Product, NegativeDistance]:
        return spread(Product(3, 2)), NegativeDistance()


def test_one_factor_is_the_lorentz_space() -> None:
    one, lorentz = Product(1, 6, curv_init=0.5).double(), Lorentz(curv_init=0.5).double()
    x, y = lorentz.lift(rows(4, seed=0)), lorentz.lift(rows(3, seed=1))
    assert torch.equal(one.lift(rows(4, seed=0)), x)
    assert torch.equal(one.pairwise_similarity(x, y), lorentz.pairwise_similarity(x, y))
    assert torch.equal(one.cones.exterior_angle(x[:3], y), lorentz.cones.exterior_angle(x[:3], y))
    assert torch.equal(one.cones.half_aperture(x), lorentz.cones.half_aperture(x))
    assert torch.equal(one.pool(rows(4, seed=0)), lorentz.pool(rows(4, seed=0)))


def test_hand_values() -> None:
    """On a line through the root a distance is the length of the tangent vector; the product takes the mean."""
    geometry = Product(2, 1).double()
    x = geometry.lift(torch.tensor([[1.0, -0.5]], dtype=torch.float64))
    assert x[0].tolist() == pytest.approx([math.sinh(1.0), -math.sinh(0.5)], rel=1e-15)
    origin, y = (
        torch.zeros(1, 2, dtype=torch.float64),
        geometry.lift(torch.tensor([[0.2, 0.5]], dtype=torch.float64)),
    )
    assert geometry.pairwise_similarity(x, origin).item() == pytest.approx(-(1.0 + 0.5) / 2, rel=1e-12)
    assert geometry.pairwise_similarity(x, y).item() == pytest.approx(-(0.8 + 1.0) / 2, rel=1e-12)
    assert geometry.cones.exterior_angle(x, y)[0].tolist() == pytest.approx(
        [math.pi] * 2
    )  # back past the root
    assert geometry.cones.exterior_angle(y, x)[0].tolist() == pytest.approx([0.0, math.pi])
    square = Product(2, 1, metric="l2").double()
    assert square.pairwise_similarity(x, y).item() == pytest.approx(-math.sqrt((0.64 + 1.0) / 2), rel=1e-12)
    wanted = [math.asin(0.2 / math.sinh(1.0)), math.asin(0.2 / math.sinh(0.5))]
    assert geometry.cones.half_aperture(x)[0].tolist() == pytest.approx(wanted, rel=1e-12)
    assert geometry.flatten(x)[0].tolist() == pytest.approx([1.0, -0.5], rel=1e-15)


def test_the_root_of_mean_squares_has_finite_gradients_where_points_meet() -> None:
    geometry = spread(Product(3, 2, metric="l2")).double()
    x = geometry.lift(rows(3, seed=0)).requires_grad_()
    equal = torch.cat([x, torch.zeros(1, 6)])  # the root has distance 0 to itself in every factor
    total = geometry.pairwise_similarity(equal, equal).sum()
    (grad,) = torch.autograd.grad(total, x)
    assert total < 0 and grad.isfinite().all()
    # Two blocks alike, the third apart: its distance over sqrt(3), and its gradient alone.
    y = x.detach().clone()
    y[:, 4:] = 0
    (grad,) = torch.autograd.grad(geometry.pairwise_similarity(x, y).diagonal().sum(), x)
    # Pairwise distances of equal points are rounding noise, some 1e-8, and so is their share of the gradient.
    assert grad[:, :4].abs().max() < 1e-6 and (grad[:, 4:].norm(dim=-1) > 0.1).all()
    (same,) = torch.autograd.grad(geometry.pairwise_similarity(x[:1], x[:1]).sum(), x)
    assert same.isfinite().all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 4.0])
@torch.no_grad()
def test_against_sixty_digits(scale: float) -> None:
    geometry = spread(Product(3, 2)).double()
    x, y = (geometry.lift(rows(4, seed=s, scale=scale)) for s in (0, 1))
    curvs = [mp.mpf(c) for c in geometry.curv.tolist()]
    similarity = geometry.pairwise_similarity(x, y)
    angle, aperture = geometry.cones.exterior_angle(x, y), geometry.cones.half_aperture(x)
    flat = geometry.flatten(x)
    for i in range(4):
        blocks = [
            (exact.vector(x[i, 2 * f : 2 * f + 2]), exact.vector(y[i, 2 * f : 2 * f + 2])) for f in range(3)
        ]
        wanted = -sum(exact.dist(a, b, c) for (a, b), c in zip(blocks, curvs, strict=True)) / 3
        # 16 eps c t(x) t(y) in each cosh; nothing is nearer than 1e-3 here
        size = max(
            float(c * exact.time(a, c) * exact.time(b, c) / mp.sinh(mp.sqrt(c) * exact.dist(a, b, c)))
            for (a, b), c in zip(blocks, curvs, strict=True)
        )
        assert abs(mp.mpf(similarity[i, i].item()) - wanted) <= 32 * torch.finfo(torch.float64).eps * size
        for f, ((a, b), c) in enumerate(zip(blocks, curvs, strict=True)):
            assert abs(mp.mpf(angle[i, f].item()) - exact.oxy_angle(a, b, c)) <= 1e-12
            assert abs(mp.mpf(aperture[i, f].item()) - exact.half_aperture(a, c, mp.mpf("0.1"))) <= 1e-12
            result = flat[i, 2 * f : 2 * f + 2]
            assert exact.relative_error(result, exact.log_map0(a, c)) <= 1e-12


def test_factors_do_not_mix() -> None:
    """Moving one block moves one distance, one angle and one aperture."""
    geometry = spread(Product(3, 2)).double()
    x, y = geometry.lift(rows(2, seed=0)), geometry.lift(rows(2, seed=1))
    moved = x.clone()
    moved[:, 2:4] *= 1.5
    for before, after in (
        (geometry.cones.exterior_angle(x, y), geometry.cones.exterior_angle(moved, y)),
        (geometry.cones.half_aperture(x), geometry.cones.half_aperture(moved)),
    ):
        assert (before != after).tolist() == [[False, True, False]] * 2
    alone = Lorentz(curv_init=geometry.curv[1].item()).double()
    change = geometry.pairwise_similarity(moved, y) - geometry.pairwise_similarity(x, y)
    wanted = alone.pairwise_similarity(moved[:, 2:4], y[:, 2:4]) - alone.pairwise_similarity(
        x[:, 2:4], y[:, 2:4]
    )
    # curv_init goes through the fp32 parameter of `alone`
    torch.testing.assert_close(change, wanted / 3, rtol=1e-6, atol=1e-9)


def test_each_factor_learns_its_curvature() -> None:
    geometry = Product(3, 2)
    x, y = geometry.lift(rows(4, seed=0)), geometry.lift(rows(4, seed=1))
    geometry.pairwise_similarity(x, y).diagonal().mean().backward()
    assert geometry.log_curv.grad is not None
    assert len({round(g, 9) for g in geometry.log_curv.grad.tolist()}) == 3
    assert not Product(3, 2, learn_curv=False).log_curv.requires_grad
    with torch.no_grad():
        geometry.log_curv.copy_(torch.tensor([-9.0, 0.5, 9.0]))
    geometry.constrain_()
    assert geometry.curv.tolist() == pytest.approx([0.1, math.exp(0.5), 10.0], rel=1e-6)
    stats = geometry.stats()
    assert stats == pytest.approx(
        {"curv": (0.1 + math.exp(0.5) + 10) / 3, "curv_min": 0.1, "curv_max": 10.0}, rel=1e-6
    )


@pytest.mark.parametrize("entries", [1, 50, 2**25])
def test_blocks_of_rows_change_neither_values_nor_gradients(
    entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> list[Tensor]:
        geometry = spread(Product(3, 2)).double()
        a, b = rows(7, seed=0).requires_grad_(), rows(5, seed=1).requires_grad_()
        x, y = geometry.lift(a), geometry.lift(b)
        values = [geometry.pairwise_similarity(x, y), geometry.cones.pairwise_exterior_angle(x, y)]
        weights = torch.arange(35.0, dtype=torch.float64).view(7, 5)
        total = sum((v * weights).sum() for v in values)
        return [*values, *torch.autograd.grad(total, (a, b, geometry.log_curv))]

    whole = run()
    monkeypatch.setattr(product, "BLOCK_ENTRIES", entries)
    for result, wanted in zip(run(), whole, strict=True):
        torch.testing.assert_close(result, wanted, rtol=1e-12, atol=1e-12)


def test_blocks_keep_only_their_result_for_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No (F, B1, B2) is kept once blocks are recomputed."""

    def kept() -> int:
        sizes: list[int] = []
        geometry = Product(16, 2)
        x, y = torch.randn(32, 32, requires_grad=True), torch.randn(64, 32, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            geometry.pairwise_similarity(x, y)
        return max(sizes)

    assert kept() == 16 * 32 * 64
    monkeypatch.setattr(product, "BLOCK_ENTRIES", 16 * 64 * 4)
    assert kept() < 16 * 32 * 64 / 4


def test_one_entails_another_in_every_factor() -> None:
    geometry = Product(2, 1).double()
    apex = geometry.lift(torch.tensor([[0.5, 0.5]]).double())
    point = geometry.lift(torch.tensor([[1.0, 0.1]]).double())
    angle, aperture = geometry.cones.exterior_angle(apex, point), geometry.cones.half_aperture(apex)
    assert (angle <= aperture).tolist() == [[True, False]]


@pytest.mark.parametrize(("arguments", "words"), [
    ({"factors": 0}, "factors: got 0; expected a whole number of at least 1"),
    ({"factor_dim": 0}, "factor_dim: got 0; expected a whole number of at least 1"),
    ({"metric": "l3"}, "metric: got 'l3'; expected 'l1' or 'l2'"),
    ({"curv_init": 0.0}, r"curv_init: got 0.0"),
    ({"curv_range": 0.5}, r"curv_range: got 0.5"),
    ({"min_radius": 0.0}, r"min_radius: got 0.0"),
])  # fmt: skip
def test_arguments_are_checked(arguments: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Product(**arguments)  # type: ignore[arg-type]  # wrong on purpose


def test_published_ranking_adds_up_inner_products() -> None:
    """Another order than the distance: one far factor outweighs two that are a little apart."""
    geometry, kind = Product(2, 1).double(), {"query_modality": "image", "key_modality": "text"}
    query = torch.zeros(1, 2, dtype=torch.float64)
    keys = geometry.lift(torch.tensor([[3.0, 0.0], [1.6, 1.6]], dtype=torch.float64))
    trained = NegativeDistance().double().scores(geometry, query, keys, **kind)  # type: ignore[arg-type]
    assert trained[0].tolist() == pytest.approx([-1.5, -1.6])
    published = NegativeDistance(ranking="published").double()
    scores = published.scores(geometry, query, keys, **kind)  # type: ignore[arg-type]
    wanted = [-(math.cosh(3.0) + 1) / 2, -math.cosh(1.6)]
    assert scores[0].tolist() == pytest.approx(wanted) and scores[0, 0] < scores[0, 1]
    # What is trained does not change, and neither do classes: their pooled embedding is ranked in the same way.
    logits = published.logits(geometry, query, keys, **kind)  # type: ignore[arg-type]
    assert logits[0].tolist() == pytest.approx([-1.5 / 0.07, -1.6 / 0.07])
    prompts = torch.tensor([[[3.0, 0.0]], [[1.6, 1.6]]], dtype=torch.float64)
    assert published.class_scores(geometry, query, prompts)[0].tolist() == pytest.approx(wanted)
    with pytest.raises(
        ValueError, match="ranking: got 'published' with Lorentz, expected a product of spaces"
    ):
        published.check_geometry(Lorentz())
    NegativeDistance().check_geometry(Lorentz())
    published.check_geometry(geometry)


def test_features_of_another_size_are_named() -> None:
    with pytest.raises(ValueError, match="got 500 components, expected 64 factors x 8 = 512"):
        Product().lift(torch.zeros(1, 500))
