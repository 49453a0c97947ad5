"""Projections to two dimensions: what they keep, against values by hand and against distances in the space."""

import math

import pytest
import torch
from torch import Tensor

from hypvl.diagnostics import plane
from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.sphere import Sphere


def rows(count: int = 40, dim: int = 6, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([1.2, 0.9, 0.3, 0.2, 0.1, 0.1])[:dim]
    return torch.randn(count, dim, generator=generator, dtype=torch.float64) * scale


def test_axes_and_variance_by_hand() -> None:
    flat = torch.tensor([[3.0, 0, 1], [-3, 0, 1], [0, 2, 1], [0, -2, 1], [0, 0, 3], [0, 0, -1]]).double()
    points, kept = plane.tangent_pca(flat)  # variances 18, 8 and 8 about the mean (0, 0, 1)
    assert kept == pytest.approx(26 / 34)
    assert points[:, 0].tolist() == pytest.approx([3, -3, 0, 0, 0, 0])


def test_a_plane_is_kept_as_it_is() -> None:
    flat = torch.cat((rows(dim=2), torch.zeros(40, 3).double()), dim=1)
    points, kept = plane.tangent_pca(flat)
    assert kept == pytest.approx(1.0)
    torch.testing.assert_close(torch.cdist(points, points), torch.cdist(flat, flat))
    assert plane.principal_axes(torch.ones(3, 4).double(), count=2)[1] == 1.0


def test_tangent_pca_moves_no_point_away_from_the_root_and_keeps_geodesics_through_it() -> None:
    flat = rows()
    points, _ = plane.tangent_pca(flat)
    assert bool((points.norm(dim=1) <= flat.norm(dim=1) + 1e-12).all())
    axes, _ = plane.principal_axes(flat, count=2)
    torch.testing.assert_close((0.3 * flat) @ axes.mT, 0.3 * points)


@pytest.mark.parametrize("curv", [0.4, 1.0, 3.0])
def test_the_hyperboloid_is_the_geometrys(curv: float) -> None:
    geometry, flat = Lorentz(curv_init=curv).double(), rows()
    points = plane.hyperboloid(flat * math.sqrt(curv))
    torch.testing.assert_close(plane.unroll(points) / math.sqrt(curv), flat)
    distances = geometry.pairwise_distance(*(geometry.lift(flat),) * 2)
    i, j = torch.triu_indices(len(flat), len(flat), 1)
    torch.testing.assert_close(plane.squared_distances(points), curv * distances[i, j].square())


def test_busemann_is_minus_the_distance_on_the_way_to_the_ideal_point() -> None:
    direction = torch.tensor([0.6, 0.8]).double()
    points = plane.hyperboloid(torch.tensor([[0.0], [1.0], [-2.0]]).double() * direction)
    assert plane.busemann(points, direction).tolist() == pytest.approx([0.0, -1.0, 2.0])


def test_horospherical_projection_keeps_horospheres_the_root_and_the_spine() -> None:
    points = plane.hyperboloid(rows())
    directions = torch.eye(6).double()[:2]
    projected = plane.horospherical_projection(points, directions)
    norms = projected[:, 1:].square().sum(1) - projected[:, 0].square()
    torch.testing.assert_close(norms, torch.full((40,), -1.0).double())  # on the hyperboloid
    for axis in range(2):
        torch.testing.assert_close(
            plane.busemann(projected, torch.eye(2).double()[axis]), plane.busemann(points, directions[axis])
        )
    root = plane.horospherical_projection(plane.hyperboloid(torch.zeros(1, 6).double()), directions)
    assert root[0].tolist() == pytest.approx([1.0, 0.0, 0.0])
    # On the root's side of the geodesic between the ideal points.
    assert bool((projected[:, 0] - projected[:, 1] - projected[:, 2] >= -1e-9).all())


def test_horopca_keeps_more_than_the_start_and_turns_with_the_points() -> None:
    flat = rows()
    space = plane.hyperboloid(flat)
    start, _ = plane.principal_axes(flat, count=2)
    begun = plane.squared_distances(plane.horospherical_projection(space, start)).mean()
    _, kept = plane.horopca(flat, curv=1.0)
    assert float(begun / plane.squared_distances(space).mean()) <= kept <= 1.0
    turn = torch.linalg.qr(rows(6, seed=1)).Q
    assert plane.horopca(flat @ turn, curv=1.0)[1] == pytest.approx(kept, rel=0.02)
    assert plane.horopca(flat / 2, curv=4.0)[1] == pytest.approx(kept, abs=1e-9)


def test_what_is_said_of_each_geometry() -> None:
    flat = rows().float()
    for geometry, centre in ((Lorentz(curv_init=1.0), "root"), (Euclidean(), "root"), (Sphere(), "mean")):
        result = plane.project(geometry, geometry.lift(flat))
        assert (result.centre, result.points.shape) == (centre, (40, 2))
        assert 0.5 < result.variance_kept <= 1.0
        assert (
            (0.5 < result.root_distance_kept <= 1.0)
            if centre == "root"
            else math.isnan(result.root_distance_kept)
        )
    lorentz = Lorentz(curv_init=1.0)
    assert plane.project(lorentz, lorentz.lift(flat), method="horopca").method == "horopca"
    with pytest.raises(ValueError, match="method: got 'horopca', which needs one hyperbolic space"):
        plane.project(Sphere(), flat, method="horopca")
    with pytest.raises(ValueError, match="expected at least 2 directions"):
        plane.horopca(torch.arange(4.0)[:, None].double(), curv=1.0)
