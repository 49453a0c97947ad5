"""How large numbers may be: beyond it they end at a stated length, or are refused; within it nothing changes."""

import math

import pytest
import torch

from hypvl.geometry import kernels, tiles
from hypvl.geometry.euclidean import Euclidean, exterior_angle, pairwise_exterior_angle
from hypvl.geometry.lorentz import MAX_RADIUS, Lorentz, pairwise_inner
from hypvl.numerics import straight_distances

FP32, FP64 = torch.float32, torch.float64


@pytest.mark.parametrize("pooling", ["mean", "direction"])
@pytest.mark.parametrize("size", [1e6, 1e20, 1e30, 3e38])
def test_pooled_lorentz_features_of_any_length_lie_at_the_end_of_the_space(pooling: str, size: float) -> None:
    geometry = Lorentz(curv_init=0.25, pooling=pooling)  # type: ignore[arg-type]
    result = geometry.pool(size * torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    end = math.sinh(MAX_RADIUS) / 0.5 / math.sqrt(2)
    assert result.tolist() == pytest.approx([end, end], rel=1e-6)


def test_pooling_by_direction_is_the_same_at_every_precision() -> None:
    features = torch.randn(7, 5, 4, generator=torch.Generator().manual_seed(0), dtype=FP64)
    geometry = Lorentz(pooling="direction")
    narrow = geometry.pool(features.float())
    torch.testing.assert_close(narrow.double(), geometry.double().pool(features), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("dtype", "reach"), [(FP32, 1e15), (FP64, 1e140)])
def test_rows_within_reach_stay_as_they_are_and_others_keep_their_direction(
    dtype: torch.dtype, reach: float
) -> None:
    rows = torch.tensor([[3.0, 4.0], [0.1 * reach, 0.0], [0.0, 0.0]], dtype=dtype)
    assert torch.equal(kernels.within_reach(rows), rows)
    far = kernels.within_reach(torch.tensor([[3e20, 4e20], [-3e37, 0.0]], dtype=dtype) * (reach / 1e15))
    expected = torch.tensor([[0.6 * reach, 0.8 * reach], [-reach, 0.0]], dtype=dtype)
    torch.testing.assert_close(far, expected, rtol=1e-6, atol=0.0)
    lost = kernels.within_reach(torch.tensor([[math.nan, 1.0], [math.inf, 1.0]], dtype=dtype))
    assert not lost[:, 0].isfinite().any()


@pytest.mark.parametrize("size", [1e16, 1e18, 1e20, 1e37])
def test_flat_scores_end_at_their_reach_and_keep_their_order(size: float) -> None:
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    x = size * points
    result = Euclidean().pairwise_similarity(x, x)
    assert result.isfinite().all() and (result.diagonal() == 0).all()
    assert (result[~torch.eye(4, dtype=torch.bool)] < -1e29).all()
    scores = tiles.negative_squared_distance(x, x)
    values = scores.rows @ scores.columns.mT + scores.row_terms + scores.column_terms.mT
    torch.testing.assert_close(values.float(), result, rtol=1e-5, atol=1e-6 * float(result.abs().max()))
    assert Euclidean().pool(x).tolist() == [0.0, 0.0]


def test_sums_of_squares_within_reach_fit() -> None:
    for dtype, reach in kernels.REACH.items():
        most = torch.tensor(reach, dtype=dtype)
        assert (4 * most**2 * 1e6).isfinite()


@pytest.mark.parametrize(("dtype", "size"), [(FP32, 1.1e15), (FP64, 1.1e140)])
@pytest.mark.parametrize("side", ["key", "query"])
def test_an_index_takes_no_points_beyond_its_reach(dtype: torch.dtype, size: float, side: str) -> None:
    geometry = Euclidean()
    x = torch.tensor([[0.9, 0.0]], dtype=dtype) * size
    assert geometry.inner_product_form(x, side=side).isfinite().all()  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"embeddings: got a component beyond 1e\+\d+, expected smaller ones"
    ):
        geometry.inner_product_form(x / 0.9, side=side)  # type: ignore[arg-type]
    half = geometry.inner_product_form(torch.ones(1, 2, dtype=torch.bfloat16), side="key")
    assert half.dtype == FP32 and half.tolist() == [[2.0, 2.0, 1.0, -2.0]]


@pytest.mark.parametrize("angle", [exterior_angle, pairwise_exterior_angle])
def test_flat_angles_of_fp64_components_end_at_1e70(angle: object) -> None:
    x = torch.tensor([[1.0, 0.0]], dtype=FP64)
    assert angle(1e69 * x, 1e69 * x.flip(-1)).item() == pytest.approx(0.75 * math.pi)  # type: ignore[operator]
    for pair, name in (((1e71 * x, x), "x"), ((x, 1e71 * x), "y")):
        with pytest.raises(ValueError, match=f"{name}: got a component beyond 1e\\+70"):
            angle(*pair)  # type: ignore[operator]


def test_gradients_of_far_inner_products() -> None:
    """Through Klein coordinates, those of a point far out with one in its own direction would be inf - inf."""
    far = torch.tensor([[1e25, 0.0], [3e25, 0.0]], requires_grad=True)
    product = pairwise_inner(far, far.detach(), curv=0.5)
    assert torch.autograd.grad(product.sum(), far)[0].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    apart = pairwise_inner(far, -far.detach(), curv=0.5)
    assert torch.equal(apart, torch.full((2, 2), -torch.finfo(FP32).max / 2))
    points, results = torch.tensor([[1e17, 2e17], [1.0, 0.0], [3e16, 0.0]]), []
    for dtype in (FP32, FP64):
        x, y = (z.to(dtype, copy=True).requires_grad_() for z in (points, points.flip(0)))
        c = torch.tensor(0.5, dtype=dtype, requires_grad=True)
        results.append(torch.autograd.grad(pairwise_inner(x, y, curv=c).sum(), (x, y, c)))
    for narrow, wide in zip(*results, strict=True):
        torch.testing.assert_close(narrow.double(), wide, rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [1e-10, 1.0, 1e18, 1e25, 1e37])
def test_straight_distances_of_any_length(size: float) -> None:
    x = size * torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    x.requires_grad_()
    result = straight_distances(x, x.detach())
    assert result.flatten().tolist() == pytest.approx([0.0, 5 * size, 5 * size, 0.0], rel=1e-6)
    (grad,) = torch.autograd.grad(result.sum(), x)
    assert grad.flatten().tolist() == pytest.approx([-0.6, -0.8, 0.6, 0.8], rel=1e-6)
    assert straight_distances(x[:0], x).shape == (0, 2)
