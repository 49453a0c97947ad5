"""Is the geometry doing any work? Hand values."""

import math

import pytest
import torch
from torch import Tensor

from hypvl.diagnostics import audit, structure
from hypvl.geometry.base import Geometry
from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.product import Product
from hypvl.geometry.sphere import Sphere
from tests.geometry.poincare import PoincareBall


def tensor(*values: object) -> Tensor:
    return torch.tensor(*values, dtype=torch.float64)


def test_quantiles() -> None:
    result = audit.quantiles(torch.arange(5), at=(0.0, 0.25, 0.6, 1.0))
    assert result == {"q00": 0.0, "q25": 1.0, "q60": pytest.approx(2.4), "q100": 4.0}
    assert audit.quantiles(tensor([7.0])) == {f"q{q}": 7.0 for q in ("05", "25", "50", "75", "95")}
    with pytest.raises(ValueError, match="values: got none"):
        audit.quantiles(torch.zeros(0))


def test_cone_violations_and_saturated_cones() -> None:
    """At (1, 0): a point straight outwards is inside the cone, one sideways is not; aperture asin(0.2)."""
    texts = tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.1, 0.0]])
    images = tensor([[2.0, 0.0], [1.0, 1.0], [0.5, 0.0], [0.2, 0.0]])

    result = audit.summary(Lorentz().double(), images, texts, generator=torch.Generator().manual_seed(0))
    assert result["cone_violation_rate"] == 0.5
    assert result["saturated_cones_text"] == 0.25 and result["saturated_cones_image"] == 0.25
    wide = audit.summary(
        Lorentz().double(),
        images,
        texts,
        aperture_factor=1.001 * math.pi / math.asin(0.2),  # up to pi: every point is inside
        generator=torch.Generator().manual_seed(0),
    )
    assert wide["cone_violation_rate"] == 0.0


def test_radial_order() -> None:
    assert audit.radial_order_auc(tensor([1.0, 2.0, 3.0, 4.0]), tensor([2.0, 1.0, 3.0, 5.0])) == 2.5 / 4
    with pytest.raises(ValueError, match=r"general, specific: got shapes \(2,\) and \(3,\)"):
        audit.radial_order_auc(torch.ones(2), torch.ones(3))


def test_the_null_quantile_says_where_the_order_lies() -> None:
    generator = torch.Generator().manual_seed(0)
    text = torch.rand(100, generator=generator, dtype=torch.float64)
    # Every text a little nearer the root than its own image.
    ordered = audit.radial_order(text, text + 0.01, generator=generator, rounds=10)
    assert (ordered["auc"], ordered["auc_null_quantile"]) == (1.0, 1.0)
    assert abs(ordered["auc_null"] - 0.5) < 0.15 and 0 < ordered["auc_null_std"] < 0.1
    against = audit.radial_order(text, text - 0.01, generator=generator, rounds=10)
    assert (against["auc"], against["auc_null_quantile"]) == (0.0, 0.0)
    # Modalities apart: every shuffle ties with what was seen.
    apart = audit.radial_order(text, text + 5.0, generator=generator, rounds=10)
    assert apart == {"auc": 1.0, "auc_null": 1.0, "auc_null_std": 0.0, "auc_null_quantile": 0.5}


def test_a_derangement_leaves_nothing_in_its_place() -> None:
    for seed in range(5):
        partner = audit.derangement(7, generator=torch.Generator().manual_seed(seed))
        assert sorted(partner.tolist()) == list(range(7))
        assert all(i != other for i, other in enumerate(partner.tolist()))
    with pytest.raises(ValueError, match="count: got 1; expected at least 2"):
        audit.derangement(1, generator=torch.Generator())


def test_clipped_points() -> None:
    """At the radius where the geometry itself saturates: in a ball that is much nearer than on the hyperboloid."""
    for geometry in (Lorentz(curv_init=0.5).double(), PoincareBall(curv_init=0.5).double()):
        edge = geometry.lift(tensor([[1e3, 0.0], [1.0, 0.0]]))
        u = structure.unit_radii(geometry, edge)
        assert audit.clipped_fraction(u, max_radius=geometry.max_radius) == 0.5
    far = structure.unit_radii(Euclidean(), tensor([[1e6, 0.0]]))
    assert audit.clipped_fraction(far, max_radius=Euclidean.max_radius) == 0.0


def test_root_distances_are_geodesic_and_a_sphere_uses_the_mean() -> None:
    geometry = Lorentz(curv_init=2.0).double()
    features = tensor([[0.3, 0.4], [0.0, 2.0]])
    (result,) = audit.root_distances(geometry, geometry.lift(features))
    torch.testing.assert_close(result, tensor([0.5, 2.0]))
    near, far = audit.root_distances(Sphere(), tensor([[1.0, 0.0]]), tensor([[0.0, 1.0]]))
    assert near.item() == pytest.approx(far.item()) == pytest.approx(math.sqrt(2 - math.sqrt(2)))


def test_summary() -> None:
    geometry = Lorentz(curv_init=4.0).double()
    images, texts = (
        geometry.lift(tensor([[1.0, 0.0], [0.0, 1.0]])),
        geometry.lift(tensor([[0.05, 0.0], [0.0, 2.0]])),
    )
    result = audit.summary(geometry, images, texts, generator=torch.Generator().manual_seed(0))
    # Radii are sinh(sqrt(c) |feature|): sinh 2 for both images; one text is nearer, one farther.
    assert result["image_radius_q50"] == pytest.approx(math.sinh(2.0))
    assert result["radial_order_auc"] == 0.5
    assert result["curv"] == pytest.approx(4.0)
    # sinh(0.1) = 0.1002 < 0.2: one text in two has a half space for a cone.
    assert (result["saturated_cones_text"], result["saturated_cones_image"]) == (0.5, 0.0)
    # The first image is straight outwards of its text, the second straight inwards.
    assert result["cone_violation_rate"] == 0.5
    assert result["exterior_angle"] == pytest.approx(math.pi / 2, abs=1e-6)
    # Swapped, both are sideways: beyond a right angle for both, so outside of the half space too.
    assert result["cone_violation_rate_shuffled"] == 1.0
    # Tangent means (0.5, 0.5) and (0.025, 1)
    assert result["modality_gap_tangent"] == pytest.approx(math.hypot(0.475, 0.5))
    assert result["effective_rank_image"] == pytest.approx(1.0)
    assert result["clipped_text"] == 0.0


@pytest.mark.parametrize("geometry", [Sphere(), Euclidean()])
def test_summary_without_cones_has_no_cone_numbers(geometry: Geometry) -> None:
    rows = geometry.lift(tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    result = audit.summary(geometry, rows, rows, generator=torch.Generator().manual_seed(0))
    assert not any("cone" in name or "angle" in name for name in result)
    assert result["radial_order_auc"] == 0.5 and result["modality_gap"] == 0.0


def test_summary_of_a_product_counts_every_factor() -> None:
    geometry = Product(factors=2, factor_dim=2, curv_init=1.0).double()
    flat = tensor([[0.1, 0.0, 3.0, 0.0], [0.0, 0.1, 0.0, 3.0]])
    x = geometry.lift(flat)
    result = audit.summary(geometry, x, x, generator=torch.Generator().manual_seed(0))
    assert result["text_radius_q05"] == pytest.approx(math.sinh(0.1), rel=1e-6)
    assert result["text_radius_q95"] == pytest.approx(math.sinh(3.0), rel=1e-6)
    assert result["saturated_cones_text"] == 0.5
    assert result["curv_max"] == pytest.approx(1.0)
