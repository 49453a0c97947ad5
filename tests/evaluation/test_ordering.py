"""Orders by the root, along rays, and between embeddings."""

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hypvl.errors import UserError
from hypvl.evaluation.ordering import (
    interpolate_between,
    nearer_share,
    radius_histograms,
    rank_along_ray,
    rank_by_root,
)
from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import ExteriorAngle, NegativeDistance
from hypvl.geometry.sphere import Sphere


class Model(nn.Module):
    """Scores without encoders."""

    def __init__(self, geometry: Any, scorer: Any) -> None:
        super().__init__()
        self.geometry, self.scorer = geometry, scorer

    def scores(self, query: Tensor, key: Tensor, **modalities: Any) -> Tensor:
        return self.scorer.scores(self.geometry, query, key, **modalities)


def meru() -> Any:
    return Model(Lorentz(), NegativeDistance())


def test_the_nearest_to_the_root_is_first() -> None:
    space = Lorentz(curv_init=4.0)
    tangent = torch.tensor([[0.0, 3.0], [1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    result = rank_by_root(space, space.lift(tangent), ["far", "one", "root", "other"])
    assert [item.name for item in result] == ["root", "one", "other", "far"]  # ties in the order given
    assert [item.radius for item in result] == pytest.approx([0.0, 1.0, 1.0, 3.0], rel=1e-6)
    assert result[0].to_json() == {"name": "root", "radius": 0.0}


def test_a_sphere_takes_its_root_from_the_caller() -> None:
    points = torch.tensor([[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]])
    result = rank_by_root(Sphere(), points, ["side", "same", "opposite"], root=torch.tensor([1.0, 0.0]))
    assert [(item.name, round(item.radius, 6)) for item in result] == [
        ("same", 0.0), ("side", round(math.sqrt(2), 6)), ("opposite", 2.0),
    ]  # fmt: skip


def test_along_a_ray() -> None:
    space = Lorentz()
    tangent = torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, 5.0], [-1.0, 0.0], [0.0, 0.0]]).double()
    names = ["out", "diagonal", "across", "behind", "root"]
    ray = space.lift(torch.tensor([7.0, 0.0]).double())
    result = rank_along_ray(space, space.lift(tangent), names, ray)
    assert [item.name for item in result] == ["behind", "across", "root", "diagonal", "out"]
    assert [item.along for item in result] == pytest.approx([-1.0, 0.0, 0.0, 1.0, 2.0], abs=1e-12)
    assert [item.angle for item in result] == pytest.approx([180.0, 90.0, 0.0, 45.0, 0.0], abs=1e-9)
    assert result[3].radius == pytest.approx(math.sqrt(2))
    near = rank_along_ray(space, space.lift(tangent), names, ray, max_angle=50.0)
    assert [item.name for item in near] == ["root", "diagonal", "out"]
    with pytest.raises(ValueError, match="through: is the root itself"):
        rank_along_ray(space, space.lift(tangent), names, torch.zeros(2))


def test_a_ray_from_another_root() -> None:
    points = torch.tensor([[1.0, 1.0], [1.0, 3.0]])
    root = torch.tensor([1.0, 0.0])
    result = rank_along_ray(Euclidean(), points, ["a", "b"], torch.tensor([1.0, 2.0]), root=root)
    assert [(item.along, item.angle) for item in result] == [(1.0, 0.0), (3.0, 0.0)]


def test_histograms_share_their_bins() -> None:
    result = radius_histograms({"a": torch.tensor([0.0, 1.0, 1.0]), "b": torch.tensor([4.0])}, bins=4)
    assert result["edges"] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert result["groups"]["a"]["counts"] == [1, 2, 0, 0] and result["groups"]["b"]["counts"] == [0, 0, 0, 1]
    assert result["groups"]["a"]["mean"] == pytest.approx(2 / 3)
    assert (
        result["groups"]["a"]["std"] == pytest.approx(math.sqrt(1 / 3))
        and result["groups"]["b"]["std"] == 0.0
    )
    assert result["groups"]["a"]["quantiles"][2] == 1.0
    assert result["nearer"] == [{"first": "a", "second": "b", "share": 100.0}]
    assert json.loads(json.dumps(result)) == result
    same = radius_histograms({"a": torch.full((3,), 2.0)}, bins=2)
    assert same["edges"] == [1.5, 2.0, 2.5] and sum(same["groups"]["a"]["counts"]) == 3


def test_nearer_share_counts_ties_half() -> None:
    first, second = torch.tensor([1.0, 3.0]).double(), torch.tensor([2.0, 3.0, 4.0]).double()
    # 1 is below all three; 3 is below one, equal to one: (3 + 1.5) / 6.
    assert nearer_share(first, second) == pytest.approx(75.0)
    assert nearer_share(second, first) == pytest.approx(25.0)
    assert nearer_share(first, first) == 50.0


def test_interpolation_between_two_images() -> None:
    model, space = meru(), Lorentz()
    pool = space.lift(torch.tensor([[-1.0, 0.0], [0.0, 0.0], [3.0, 0.0], [0.0, 9.0]]))
    result = interpolate_between(
        model, pool[0], pool[2], pool, ["left", "middle", "right", "far"], pool_modality="image", steps=5, k=2
    )
    assert [step.weight for step in result] == [0.0, 0.25, 0.5, 0.75, 1.0]
    # Positions -1, 0, 1, 2, 3 of a line through the root.
    assert [step.radius for step in result] == pytest.approx([1.0, 0.0, 1.0, 2.0, 3.0], abs=1e-5)
    assert [step.names[0] for step in result] == ["left", "middle", "middle", "right", "right"]
    assert all(step.scores[0] >= step.scores[1] for step in result)
    assert result[0].to_json()["names"][0] == "left"


def test_geodesic_and_tangent_interpolation_differ() -> None:
    model, space = meru(), Lorentz()
    first, second = space.lift(torch.tensor([[2.0, 0.0], [0.0, 2.0]]))
    pool = torch.zeros(1, 2)
    ways = {
        way: interpolate_between(
            model,
            first,
            second,
            pool,
            ["root"],
            pool_modality="text",
            steps=3,
            way=way,
        )[1].radius
        for way in ("geodesic", "tangent")
    }
    assert ways["tangent"] == pytest.approx(math.sqrt(2), rel=1e-5)
    # The middle of a right-angled triangle of sides 2: cosh d = cosh^2 2, the shortest way bends to the root.
    assert ways["geodesic"] == pytest.approx(
        math.acosh(math.cosh(2) / math.cosh(math.acosh(math.cosh(2) ** 2) / 2)), rel=1e-5
    )


def test_an_angle_ranks_texts_and_the_distance_ranks_images() -> None:
    atmg: Any = Model(Lorentz(), ExteriorAngle())
    pool = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    images = interpolate_between(atmg, pool[0], pool[1], pool, ["a", "b"], pool_modality="image", steps=3)
    assert [step.names[0] for step in images][::2] == ["a", "b"]
    texts = interpolate_between(atmg, pool[0], pool[1], 3 * pool, ["a", "b"], pool_modality="text", steps=3)
    assert [step.names[0] for step in texts][::2] == ["b", "a"]  # trained: the greater angle is the closer


def test_wrong_arguments_are_an_error() -> None:
    space, points = Lorentz(), torch.ones(2, 2)
    with pytest.raises(ValueError, match=r"names: got 1 for \(2, 2\)"):
        rank_by_root(space, points, ["a"])
    with pytest.raises(UserError, match="1 of 2 hold NaN"):
        rank_by_root(space, torch.tensor([[1.0, math.nan], [1.0, 1.0]]), ["a", "b"])
    with pytest.raises(ValueError, match="steps=1"):
        interpolate_between(meru(), points[0], points[1], points, ["a", "b"], pool_modality="image", steps=1)
    with pytest.raises(ValueError, match=r"radii: got groups of \{'a': 0\}"):
        radius_histograms({"a": torch.empty(0)})
