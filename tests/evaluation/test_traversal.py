"""Traversals whose answer follows from where the texts were put."""

import json
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.evaluation.traversal import (
    ROOT_NAME,
    Traversal,
    entails,
    find_root,
    hierarchy_shares,
    interpolate_to_root,
    mask_scores,
    radius,
    traverse,
)
from hypvl.geometry.lorentz import Lorentz, pairwise_inner, pairwise_oxy_angle
from hypvl.geometry.sphere import Sphere

F64 = torch.float64


class Distances(torch.nn.Module):
    """A model with a geometry and scores by distance, as CLIP and MERU have them."""

    def __init__(self, geometry: Any) -> None:
        super().__init__()
        self.geometry = geometry
        self.scorer = SimpleNamespace(ranks_by_distance=True)

    def scores(self, query: Tensor, key: Tensor, *, query_modality: str, key_modality: str) -> Tensor:
        assert (query_modality, key_modality) == ("image", "text")
        if self.geometry.root(2) is None:
            return query @ key.T
        return pairwise_inner(query, key, curv=self.geometry.curv)


class Angles(Distances):
    """A model that ranks texts by the exterior angle at the image, as ATMG is trained."""

    def __init__(self, geometry: Any) -> None:
        super().__init__(geometry)
        self.scorer = SimpleNamespace(ranks_by_distance=False)

    def scores(self, query: Tensor, key: Tensor, **modalities: str) -> Tensor:
        return pairwise_oxy_angle(query, key, curv=self.geometry.curv)


def lorentz() -> Lorentz:
    return Lorentz(curv_init=1.0).double()


def at(radius: float, degrees: float = 0.0) -> list[float]:
    """Space components of the point at a geodesic distance from the root, for c = 1."""
    length, angle = math.sinh(radius), math.radians(degrees)
    return [length * math.cos(angle), length * math.sin(angle)]


def unit(degrees: float) -> list[float]:
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


NAMES = ["brown dog", "animal", "dog", "cat"]
TEXTS = torch.tensor([at(2.0), at(0.5), at(1.0), at(2.0, 90.0)], dtype=F64)
IMAGE = torch.tensor(at(3.0), dtype=F64)


def walk(model: Any, **options: Any) -> Traversal:
    with torch.no_grad():
        return traverse(model, IMAGE, TEXTS, NAMES, **{"steps": 6, **options})


def test_texts_on_the_ray_of_the_image_come_in_the_order_of_their_radii() -> None:
    result = walk(Distances(lorentz()))
    # Points at radii 3, 2.4, 1.8, 1.2, 0.6, 0. At 1.8 "brown dog" (2.0) is nearest, but lies beyond the point.
    assert [s.text for s in result.steps] == ["brown dog", "brown dog", "dog", "dog", "animal", ROOT_NAME]
    assert result.texts == ["brown dog", "dog", "animal", ROOT_NAME]
    assert [s.radius for s in result.steps] == pytest.approx([3.0, 2.4, 1.8, 1.2, 0.6, 0.0], abs=1e-6)
    assert [s.weight for s in result.steps] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 0.0], abs=1e-6)
    # The Lorentz inner product of two points on a ray is -cosh of their distance.
    expected = [-math.cosh(d) for d in (1.0, 0.4, 0.8, 0.2, 0.1, 0.0)]
    assert [s.score for s in result.steps] == pytest.approx(expected, abs=1e-6)
    assert (result.root, result.entailment_mask) == ("geometry", True)


def test_without_cones_the_nearest_text_wins_even_beyond_the_point() -> None:
    result = walk(Distances(lorentz()), entailment="never")
    assert result.path == ["brown dog", "dog", "animal", ROOT_NAME]
    assert result.steps[2].text == "brown dog"
    assert result.entailment_mask is False


def test_where_no_text_entails_the_point_the_root_is_named() -> None:
    with torch.no_grad():
        result = traverse(Distances(lorentz()), IMAGE, TEXTS[3:], ["cat"], steps=10)
    assert result.texts == [ROOT_NAME]
    assert all(math.isfinite(step.score) for step in result.steps if step.score is not None)


def test_angle_scores_ignore_cones_and_name_the_root_only_at_the_root() -> None:
    result = walk(Angles(lorentz()))
    # The exterior angle at the image is pi towards what lies between it and the root, 0 beyond it; the root
    # itself would always reach pi, and win everywhere.
    assert result.path[-1] == ROOT_NAME
    assert ROOT_NAME not in result.path[:-1]
    assert result.entailment_mask is False
    assert result.steps[-1].score is None
    assert all(math.isfinite(step.score) for step in result.steps[:-1] if step.score is not None)
    assert [step.text for step in result.steps][-2] == "animal"


def test_cones_can_be_forced_with_angle_scores() -> None:
    result = walk(Angles(lorentz()), entailment="always")
    assert result.entailment_mask is True
    assert {"cat"} & set(result.texts) == set()
    assert result.texts[-1] == ROOT_NAME


def test_a_sphere_traverses_to_the_mean_of_the_pool() -> None:
    texts = torch.tensor([unit(10.0), unit(60.0), unit(110.0)], dtype=F64)
    image = torch.tensor(unit(0.0), dtype=F64)
    with torch.no_grad():
        result = traverse(Distances(Sphere()), image, texts, ["a", "b", "c"], steps=21)
    assert result.root == "text pool"
    assert result.entailment_mask is False
    # The mean is at 59.999…: unit vectors at 10 and 110 degrees add up along 60.
    assert result.texts[0] == "a"
    assert result.texts[-1] == ROOT_NAME
    # The chord between 0 and 60 degrees has length 1.
    assert result.steps[0].radius == pytest.approx(1.0, abs=1e-6)
    radii = [step.radius for step in result.steps]
    assert radii == sorted(radii, reverse=True)
    assert radii[-1] == pytest.approx(0.0, abs=1e-9)


def test_a_sphere_traverses_to_a_stored_root() -> None:
    texts = torch.tensor([unit(10.0), unit(60.0)], dtype=F64)
    image = torch.tensor(unit(0.0), dtype=F64)
    root = torch.tensor(unit(90.0), dtype=F64)
    with torch.no_grad():
        result = traverse(Distances(Sphere()), image, texts, ["a", "b"], root=root, steps=11)
    assert result.root == "checkpoint"
    assert result.texts == ["a", "b", ROOT_NAME]
    assert result.steps[0].radius == pytest.approx(math.sqrt(2.0), abs=1e-6)


def test_the_end_is_the_root_even_where_a_text_scores_higher() -> None:
    # A short stored root: its dot product with itself is 0.25, that of the text beside it almost 0.5.
    root = torch.tensor(unit(90.0), dtype=F64) * 0.5
    texts = torch.tensor([unit(89.0)], dtype=F64)
    with torch.no_grad():
        result = traverse(Distances(Sphere()), torch.tensor(unit(0.0), dtype=F64), texts, ["b"], root=root)
    assert len(result.steps) == 50
    assert result.texts == ["b", ROOT_NAME]
    assert [step.text for step in result.steps].count(ROOT_NAME) == 1


def test_a_repeated_text_is_listed_once() -> None:
    steps = walk(Distances(lorentz())).steps
    again = Traversal(
        (*steps[:1], steps[4], steps[0], steps[5]), root="geometry", entailment_mask=True, texts_in_reach=2
    )
    assert again.texts == ["brown dog", "animal", ROOT_NAME]
    assert again.path == ["brown dog", "animal", "brown dog", ROOT_NAME]


def test_json_has_every_step_in_plain_values() -> None:
    result = walk(Angles(lorentz()))
    content = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert content["texts"] == result.texts
    assert len(content["steps"]) == 6
    assert content["steps"][-1] == {"weight": 0.0, "text": ROOT_NAME, "score": None, "radius": 0.0}


def test_interpolation_starts_at_the_image_and_needs_two_points() -> None:
    geometry = lorentz()
    with torch.no_grad():
        points = interpolate_to_root(geometry, IMAGE, torch.zeros(2, dtype=F64), steps=3)
    torch.testing.assert_close(
        points, torch.tensor([at(3.0), at(1.5), at(0.0)], dtype=F64), atol=1e-9, rtol=1e-9
    )
    with pytest.raises(ValueError, match="steps: got 1; expected at least 2"):
        interpolate_to_root(geometry, IMAGE, torch.zeros(2), steps=1)


def test_cones_contain_points_behind_their_apex() -> None:
    geometry = lorentz()
    # sinh(1) = 1.1752: half aperture asin(0.2 / 1.1752) = 9.80 degrees. The exterior angle towards a point far
    # out in direction 5 is larger than 5 degrees, but below the aperture only up to some direction.
    apex = torch.tensor([at(1.0)], dtype=F64)
    points = torch.tensor([at(4.0), at(4.0, 5.0), at(4.0, 30.0), at(0.9), at(4.0, 180.0)], dtype=F64)
    with torch.no_grad():
        holds = entails(geometry, apex, points)
    assert holds is not None
    assert holds[:, 0].tolist() == [True, _angle(1.0, 4.0, 5.0) <= 9.80, False, False, False]
    assert entails(Sphere(), apex, points) is None


def test_pairwise_and_single_angles_give_the_same_mask() -> None:
    geometry = lorentz()
    generator = torch.Generator().manual_seed(0)
    apexes, points = (torch.randn((n, 3), generator=generator, dtype=F64) for n in (40, 60))
    with torch.no_grad():
        holds = entails(geometry, 0.15 * apexes, 2.0 * points)
        angle = geometry.cones.exterior_angle((0.15 * apexes)[None], (2.0 * points)[:, None])[..., 0]
        expected = angle <= geometry.cones.half_aperture(0.15 * apexes)[:, 0]
    assert holds is not None
    assert 0.1 < expected.double().mean() < 0.9
    assert torch.equal(holds, expected)


def test_a_product_space_entails_only_where_every_factor_does() -> None:
    class Factors:
        """Two factors of one dimension: the angle at an apex is 0 outwards and pi inwards, the aperture 1."""

        def half_aperture(self, apex: Tensor) -> Tensor:
            return torch.ones_like(apex)

        def exterior_angle(self, apex: Tensor, point: Tensor) -> Tensor:
            return torch.where((point - apex) * apex.sign() > 0, 0.0, math.pi)

    apexes = torch.tensor([[1.0, 1.0], [-1.0, 1.0]])
    points = torch.tensor([[2.0, 2.0], [2.0, 0.5], [-3.0, 4.0]])
    holds = entails(SimpleNamespace(cones=Factors()), apexes, points)  # type: ignore[arg-type]
    assert holds is not None
    assert holds.tolist() == [[True, False], [False, False], [False, True]]


def _angle(near: float, far: float, degrees: float) -> float:
    """Exterior angle by the hyperbolic law of cosines, degrees: an independent way to the same number."""
    gamma = math.radians(degrees)
    side = math.acosh(math.cosh(near) * math.cosh(far) - math.sinh(near) * math.sinh(far) * math.cos(gamma))
    cosine = (math.cosh(near) * math.cosh(side) - math.cosh(far)) / (math.sinh(near) * math.sinh(side))
    return 180.0 - math.degrees(math.acos(cosine))


def test_the_root_is_never_masked() -> None:
    scores = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    masked = mask_scores(scores, torch.tensor([[False, True], [False, False]]))
    assert masked.tolist() == [[-math.inf, 2.0, 1.0], [-math.inf, -math.inf, 1.0]]
    assert mask_scores(scores, None) is scores


def test_radius_is_the_geodesic_distance_in_lorentz_space() -> None:
    with torch.no_grad():
        assert radius(lorentz(), TEXTS).tolist() == pytest.approx([2.0, 0.5, 1.0, 2.0], abs=1e-7)
        # From another point, in flat coordinates: along the ray the difference, aside by Pythagoras.
        aside = radius(lorentz(), TEXTS, root=TEXTS[1]).tolist()
        assert aside == pytest.approx([1.5, 0.0, 0.5, math.hypot(2.0, 0.5)], abs=1e-7)


def test_find_root_prefers_the_geometry_and_checks_the_stored_one() -> None:
    root, source = find_root(lorentz(), TEXTS, stored=torch.ones(7))
    assert (root.tolist(), source) == ([0.0, 0.0], "geometry")
    with pytest.raises(ValueError, match=r"root: got shape \(7,\); expected 2 finite numbers"):
        find_root(Sphere(), TEXTS, stored=torch.ones(7))
    with pytest.raises(ValueError, match="NaN or infinity"):
        find_root(Sphere(), TEXTS, stored=torch.tensor([1.0, math.nan]))


def test_wrong_arguments_are_named() -> None:
    model = Distances(lorentz())
    with pytest.raises(ValueError, match=r"texts: got \(4, 2\) for 1 names"):
        traverse(model, IMAGE, TEXTS, ["dog"])
    with pytest.raises(ValueError, match=r"expected .* K >= 1 names"):
        traverse(model, IMAGE, TEXTS[:0], [])
    with pytest.raises(ValueError, match="no cones; use 'auto' or 'never'"):
        walk(Distances(Sphere()), entailment="always")


def test_nan_scores_are_an_error() -> None:
    from hypvl.errors import UserError

    class Diverged(Distances):
        def scores(self, query: Tensor, key: Tensor, **modalities: str) -> Tensor:
            return torch.full((len(query), len(key)), math.nan)

    with pytest.raises(UserError, match="are NaN"):
        walk(Diverged(lorentz()))


def test_hierarchy_shares() -> None:
    levels = {"shape": 1, "circle": 2, "red": 2, "red circle": 3}
    paths = [
        ["red circle", "circle", "shape", ROOT_NAME],  # climbs
        ["circle", "red", ROOT_NAME],  # one level only
        ["circle", "red circle", "shape", ROOT_NAME],  # becomes more specific once
        [ROOT_NAME],  # nothing on the way
        ["red circle", "red", "circle", ROOT_NAME],  # climbs; two texts of one level are fine
    ]
    assert hierarchy_shares(paths, levels) == pytest.approx(
        {
            "hierarchy_share": 40.0,
            "two_levels_share": 60.0,
            "never_more_specific_share": 80.0,
            "mean_levels": 1.8,
        }
    )
    with pytest.raises(ValueError, match="'blue' has no level"):
        hierarchy_shares([["blue", ROOT_NAME]], levels)
    with pytest.raises(ValueError, match="no traversals"):
        hierarchy_shares([], levels)
