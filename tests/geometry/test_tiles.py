"""Scores from one inner product: the same as the geometries', with the same gradients."""

import math

import pytest
import torch
from torch import Tensor

from hypvl.geometry import tiles
from hypvl.geometry.base import Geometry
from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.product import Product
from hypvl.geometry.scorers import Cosine, ExteriorAngle, NegativeDistance, Scorer
from hypvl.geometry.sphere import Sphere
from hypvl.ops.tiled_logsumexp.autograd import log_sum_exps
from hypvl.ops.tiled_logsumexp.kernels import TiledScores

CASES: dict[str, tuple[Geometry, Scorer, str]] = {
    "cosine": (Sphere(), Cosine(bias_init=-3.0), "text"),
    "distance": (Lorentz(curv_init=0.7), NegativeDistance(), "text"),
    "squared distance": (Euclidean(), NegativeDistance(), "text"),
    "angle at images": (Lorentz(curv_init=0.7), ExteriorAngle(), "text"),
    "flat angle": (Euclidean(min_radius=0.2), ExteriorAngle(), "text"),
    "angles of one modality": (Lorentz(curv_init=0.7), ExteriorAngle(), "image"),
}


def embeddings(geometry: Geometry, count: int, seed: int, *, spread: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return geometry.lift(spread * torch.randn(count, 6, generator=generator, dtype=torch.float64)).detach()


def dense(scores: TiledScores) -> Tensor:
    """All scores at once (B, N), without gradient."""
    with torch.no_grad():
        out = scores.rows @ scores.columns.mT
        kernel = scores.kernel(scores.row_terms, scores.column_terms, out.dtype)
        every = slice(None)
        kernel.values_(
            out, kernel.at(every, every), keep=[torch.empty_like(out) for _ in range(kernel.buffers)]
        )
        return out.mul_(scores.scale)


def tiled(name: str, x: Tensor, y: Tensor) -> TiledScores:
    geometry, scorer, key = CASES[name]
    result = scorer.tiled_logits(geometry, x, y, query_modality="image", key_modality=key)  # type: ignore[arg-type]
    assert result is not None
    return result


def logits(name: str, x: Tensor, y: Tensor) -> Tensor:
    geometry, scorer, key = CASES[name]
    return scorer.logits(geometry, x, y, query_modality="image", key_modality=key)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_the_scorer_up_to_a_constant(name: str) -> None:
    geometry = CASES[name][0]
    x, y = embeddings(geometry, 5, 0), embeddings(geometry, 7, 1)
    difference = dense(tiled(name, x, y)) - logits(name, x, y)
    torch.testing.assert_close(difference, difference[0, 0].expand_as(difference), rtol=0, atol=1e-12)
    assert difference[0, 0].item() == pytest.approx(3.0 if name == "cosine" else 0.0, abs=1e-12)


def test_distance_by_hand() -> None:
    """Points at radius a and b on one line, curvature -4: |a - b| between them."""
    space = Lorentz(curv_init=4.0)
    x, y = (space.lift(torch.tensor([[r, 0.0]], dtype=torch.float64)) for r in (0.5, 0.2))
    assert dense(tiles.negative_lorentz_distance(x, y, curv=space.curv)).item() == pytest.approx(
        -0.3, rel=1e-7
    )


def test_points_near_the_root_and_each_other_keep_their_digits() -> None:
    x = torch.tensor([[1e-6, 0.0], [0.0, 2e-6]])
    result = dense(tiles.negative_lorentz_distance(x, x, curv=torch.tensor(1.0)))
    assert result[0, 1].item() == pytest.approx(-math.sqrt(5) * 1e-6, rel=1e-3)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rows", ["zero", "same", "far"])
def test_degenerate_points_have_finite_values_and_gradients(name: str, rows: str) -> None:
    geometry = CASES[name][0]
    points = {"zero": torch.zeros(3, 6), "same": torch.ones(3, 6), "far": 3e4 * torch.eye(6)[:3]}[rows]
    x = (geometry.lift(points) if rows != "far" or name == "cosine" else points).clone().requires_grad_()
    result = tiled(name, x, x)
    sums = log_sum_exps(result, torch.tensor([0, 1, 2]), columns=result.symmetric, sums=True, tile=(2, 2))
    (grad,) = torch.autograd.grad(torch.cat(sums).sum(), x)
    assert bool(dense(result).isfinite().all() and grad.isfinite().all())
    assert all(bool(part.isfinite().all()) for part in sums)


def test_points_beyond_the_reach_of_fp32_stay_finite() -> None:
    x = torch.tensor([[1e30, 0.0], [0.0, -3e38]])
    result = dense(tiles.negative_lorentz_distance(x, x, curv=torch.tensor(1.0)))
    assert bool(result.isfinite().all()) and result[0, 1].item() == pytest.approx(
        -2 * math.log(2 * 2.0**20) + math.log(2), rel=1e-3
    )


def test_products_of_spaces_have_no_tiled_scores() -> None:
    space = Product(factors=2, factor_dim=3)
    x = embeddings(space, 3, 0)
    assert NegativeDistance().tiled_logits(space, x, x, query_modality="image", key_modality="text") is None
    assert ExteriorAngle().tiled_logits(Sphere(), x, x, query_modality="image", key_modality="text") is None
