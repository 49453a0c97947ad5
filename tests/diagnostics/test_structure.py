"""Distances, tree-likeness, flatness and rank of embeddings: values by hand and limits."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.diagnostics import structure
from hypvl.geometry import lorentz
from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.product import Product
from hypvl.geometry.sphere import Sphere


def tensor(*values: object) -> Tensor:
    return torch.tensor(*values, dtype=torch.float64)


def rows(count: int, dim: int, *, seed: int = 0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_unit_radii_by_factor() -> None:
    assert structure.unit_radii(Lorentz(curv_init=4.0), tensor([[3.0, 4.0]])).tolist() == [
        [pytest.approx(10.0, rel=1e-6)]
    ]
    product = Product(factors=2, factor_dim=1, curv_init=1.0)
    with torch.no_grad():
        product.log_curv.copy_(torch.tensor([0.0, math.log(9.0)]))
    assert structure.unit_radii(product, tensor([[2.0, -1.0]])).tolist() == [
        [pytest.approx(2.0), pytest.approx(3.0, rel=1e-6)]
    ]
    assert structure.unit_radii(Euclidean(), tensor([[3.0, 4.0]])).tolist() == [[5.0]]


def test_distances_are_those_of_the_space() -> None:
    x = rows(5, 4)
    hyperbolic = structure.pairwise_distances(Lorentz(curv_init=0.5).double(), x)
    paired = lorentz.dist(x[[0, 1]], x[[3, 4]], curv=0.5)
    torch.testing.assert_close(hyperbolic[[0, 1], [3, 4]], paired)
    assert torch.equal(hyperbolic, hyperbolic.T) and not hyperbolic.diagonal().any()
    assert structure.pairwise_distances(Euclidean(), tensor([[0.0, 0], [3, 4]]))[0, 1] == 5.0
    product = Product(factors=2, factor_dim=2).double()
    expected = (lorentz.dist(x[0, :2], x[1, :2], curv=1.0) + lorentz.dist(x[0, 2:], x[1, 2:], curv=1.0)) / 2
    torch.testing.assert_close(structure.pairwise_distances(product, x)[0, 1], expected)


def test_flat_spaces_are_not_distorted_and_curved_ones_are_by_hand() -> None:
    assert structure.flat_distortion(Euclidean(), rows(6, 3)) == 0.0
    assert structure.flat_distortion(Sphere(), Sphere().lift(rows(6, 3))) == 0.0
    geometry = Lorentz().double()
    # A right angle at the root: cosh d = cosh(1)^2 against a flat side of sqrt(2).
    corner = geometry.lift(tensor([[1.0, 0.0], [0.0, 1.0]]))
    expected = math.acosh(math.cosh(1.0) ** 2) / math.sqrt(2) - 1
    assert structure.flat_distortion(geometry, corner) == pytest.approx(expected, rel=1e-9)
    small = structure.flat_distortion(geometry, geometry.lift(0.01 * rows(6, 3)))
    assert 0 < small < 1e-3
    assert structure.flat_distortion(geometry, corner[[0, 0]]) == 0.0


@pytest.mark.parametrize("metric", ["l1", "l2"])
def test_a_product_is_compared_with_a_flat_product(metric: Any) -> None:
    """Near the root it is as good as flat, whatever the number of factors; |x - y| of all components would say 50 %."""
    geometry = Product(4, 2, metric=metric).double()
    assert 0 < structure.flat_distortion(geometry, geometry.lift(0.01 * rows(6, 8))) < 1e-3
    corner = torch.zeros(2, 8, dtype=torch.float64)
    corner[0, ::2] = corner[1, 1::2] = 1.0  # the right angle of above in every factor
    expected = math.acosh(math.cosh(1.0) ** 2) / math.sqrt(2) - 1
    assert structure.flat_distortion(geometry, geometry.lift(corner)) == pytest.approx(expected, rel=1e-9)


def test_delta_of_a_tree_is_zero_and_of_a_square_one() -> None:
    star = tensor([[0, 1, 1, 1], [1, 0, 2, 2], [1, 2, 0, 2], [1, 2, 2, 0]])
    assert structure.delta_hyperbolicity(star) == 0.0
    cycle = tensor([[0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]])
    assert structure.delta_hyperbolicity(cycle) == 1.0
    assert structure.delta_hyperbolicity(torch.zeros(3, 3)) == 0.0
    with pytest.raises(ValueError, match=r"distances: got shape \(2, 3\)"):
        structure.delta_hyperbolicity(torch.zeros(2, 3))


def test_delta_does_not_depend_on_the_unit_or_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    distances = structure.pairwise_distances(Euclidean(), rows(40, 5))
    whole = structure.delta_hyperbolicity(distances)
    assert 0.1 < whole < 1.0
    assert structure.delta_hyperbolicity(7.0 * distances) == pytest.approx(whole, rel=1e-12)
    monkeypatch.setattr(structure, "_BLOCK_ENTRIES", 5000)
    assert structure.delta_hyperbolicity(distances) == whole


def test_far_out_hyperbolic_points_are_nearly_a_tree() -> None:
    geometry = Lorentz().double()
    flat = torch.nn.functional.normalize(rows(40, 3), dim=-1)
    near, far = (
        structure.delta_hyperbolicity(structure.pairwise_distances(geometry, geometry.lift(r * flat)))
        for r in (0.1, 9.0)
    )
    assert far < 0.25 * near


def test_effective_rank() -> None:
    line = tensor([[0.0, 0], [1, 1], [2, 2]])
    assert structure.effective_rank(line) == pytest.approx(1.0)
    # Two directions of equal singular values.
    assert structure.effective_rank(tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])) == pytest.approx(2.0)
    # Singular values 1 : 3 -> exp(-(1/4 ln 1/4 + 3/4 ln 3/4)).
    uneven = structure.effective_rank(tensor([[3.0, 0], [-3, 0], [0, 1], [0, -1]]))
    assert uneven == pytest.approx(math.exp(0.25 * math.log(4) + 0.75 * math.log(4 / 3)))
    assert structure.effective_rank(tensor([[1.0, 2], [1, 2]])) == 0.0
    with pytest.raises(ValueError, match="N >= 2"):
        structure.effective_rank(line[:1])
