"""Shortest ways between two points."""

import math

import pytest
import torch

from hypvl.geometry import lorentz
from hypvl.geometry.base import Geometry
from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.lorentz import Lorentz, geodesic
from hypvl.geometry.product import Product
from hypvl.geometry.sphere import Sphere

WEIGHTS = torch.linspace(0, 1, 5, dtype=torch.float64)


@pytest.mark.parametrize("curv", [0.1, 1.0, 4.0])
def test_even_steps_on_a_way_no_longer_than_the_distance(curv: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    points = geodesic(x, y, WEIGHTS, curv=curv)
    torch.testing.assert_close(points[[0, -1]], torch.stack([x, y]))
    steps = lorentz.dist(points[:-1], points[1:], curv=curv)
    torch.testing.assert_close(steps, torch.full_like(steps, lorentz.dist(x, y, curv=curv).item() / 4))
    space = Lorentz(curv_init=curv).double()
    bent = space.interpolate(y, x, WEIGHTS)  # evenly in the tangent space at the root: a longer way
    assert lorentz.dist(bent[:-1], bent[1:], curv=curv).sum() > steps.sum() * 1.0001


def test_known_values() -> None:
    # Through the root: x at distance 1 on one side, y at 3 on the other; the middle is at 1 on y's side.
    x, y = torch.tensor([-math.sinh(1.0), 0.0]), torch.tensor([math.sinh(3.0), 0.0])
    points = geodesic(x, y, torch.tensor([0.25, 0.5]), curv=1.0)
    assert points.flatten().tolist() == pytest.approx([0.0, 0.0, math.sinh(1.0), 0.0], abs=1e-6)
    # Equal radii, a right angle: the middle lies on the diagonal, nearer the root than both.
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    (middle,) = geodesic(x, y, torch.tensor([0.5]), curv=1.0)
    assert middle.tolist() == pytest.approx(
        [6**-0.5, 6**-0.5]
    )  # x + y, brought back to the sheet: 1 / sqrt(6)


def test_points_that_are_one_and_points_far_out() -> None:
    x = torch.tensor([0.3, 0.4])
    assert torch.equal(geodesic(x, x, WEIGHTS, curv=1.0), x.expand(5, 2))
    far = torch.tensor([3e4, 0.0]), torch.tensor([-3e4, 1.0])
    points = geodesic(*far, WEIGHTS, curv=1.0)
    assert bool(points.isfinite().all()) and points[2].norm() < 1.0
    assert torch.allclose(points[0], far[0]) and torch.allclose(points[-1], far[1], rtol=1e-5)


GEOMETRIES: dict[str, Geometry] = {
    "sphere": Sphere(), "flat": Euclidean(), "lorentz": Lorentz(curv_init=2.0), "product": Product(2, 3, curv_init=0.5)
}  # fmt: skip


@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_point_lies_between(name: str) -> None:
    geometry = GEOMETRIES[name].double()
    generator = torch.Generator().manual_seed(3)
    x, y = geometry.lift(torch.randn(2, 6, generator=generator, dtype=torch.float64))
    points = geometry.geodesic(x, y, WEIGHTS)
    assert points.shape == (5, 6) and torch.allclose(points[0], x) and torch.allclose(points[-1], y)

    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        result = -geometry.pairwise_similarity(a[None], b)[0]
        return {"sphere": (-result).clamp(-1, 1).arccos(), "flat": result.sqrt()}.get(name, result)

    whole = distance(x, y[None]).item()
    torch.testing.assert_close(
        distance(x, points) + distance(y, points), torch.full((5,), whole).double(), rtol=1e-5, atol=1e-6
    )


def test_the_middle_in_a_product_is_the_middle_of_every_factor() -> None:
    space = Product(2, 1)
    x, y = torch.sinh(torch.tensor([-1.0, 0.0])), torch.sinh(torch.tensor([3.0, 2.0]))
    (middle,) = space.geodesic(x, y, torch.tensor([0.5]))
    assert middle.tolist() == pytest.approx(torch.sinh(torch.tensor([1.0, 1.0])).tolist())
