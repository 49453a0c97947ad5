"""A row that is not a number makes every number about it NaN, never a share or a length that looks good."""

import math

import pytest
import torch
from torch import Tensor

from hypvl.diagnostics import audit, gap, structure
from hypvl.geometry.base import Geometry
from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.sphere import Sphere

GEOMETRIES = {
    "lorentz": lambda: Lorentz(curv_init=0.5),
    "sphere": Sphere,
    "flat": lambda: Euclidean(min_radius=0.2),
}
#: Numbers of :func:`audit.summary` by the modalities they are about.
OF_ONE = {"image": ("image_radius", "clipped_image", "effective_rank_image", "saturated_cones_image"),
          "text": ("text_radius", "clipped_text", "effective_rank_text", "saturated_cones_text",
                   "half_aperture_text")}  # fmt: skip


def rows(seed: int, *, broken: bool = False) -> Tensor:
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if broken:
        x[5, 2] = math.nan
    return x


@pytest.mark.parametrize("side", ["image", "text"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_summary(name: str, side: str) -> None:
    geometry: Geometry = GEOMETRIES[name]()
    given = {part: geometry.lift(rows(seed)) for seed, part in enumerate(("image", "text"))}
    whole = audit.summary(geometry, *given.values(), generator=torch.Generator().manual_seed(0))
    assert all(math.isfinite(value) for value in whole.values())
    given[side] = geometry.lift(rows(3, broken=True))
    result = audit.summary(geometry, *given.values(), generator=torch.Generator().manual_seed(0))
    assert result.keys() == whole.keys()
    other = OF_ONE["text" if side == "image" else "image"]
    for key, value in result.items():
        if key in geometry.stats() or key.startswith(other) or key == "curv_at_floor":
            continue
        assert math.isnan(value), key


@pytest.mark.parametrize("side", [0, 1])
def test_gap(side: int) -> None:
    pair = [rows(0, broken=side == 0), rows(1, broken=side == 1)]
    alone = {"image": "text", "text": "image"}[("image", "text")[side]]
    for name, value in gap.gap_metrics(*pair).items():
        assert math.isnan(value) or alone in name, name
    assert math.isnan(gap.relative_modality_gap(*pair)) and math.isnan(gap.linear_separability(*pair))
    same = torch.tensor([[1.0, 0.0]]).expand(3, 2)
    assert gap.relative_modality_gap(same, same) == 0.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_structure_and_shares(value: float) -> None:
    x = rows(0)
    x[3, 1] = value
    for geometry in (Euclidean(), Lorentz()):
        assert math.isnan(structure.flat_distortion(geometry, x))
    assert math.isnan(structure.effective_rank(x))
    distances = structure.pairwise_distances(Euclidean(), rows(0))
    distances[2, 4] = distances[4, 2] = value
    assert math.isnan(structure.delta_hyperbolicity(distances))
    u = torch.tensor([0.1, value, 3.0])
    assert math.isnan(audit.clipped_fraction(u, max_radius=5.0))
    assert math.isnan(audit.radial_order_auc(u, torch.ones(3)))
    assert all(math.isnan(q) for q in audit.quantiles(torch.tensor([0.1, math.nan, 3.0])).values())
    generator = torch.Generator().manual_seed(0)
    order = audit.radial_order(u, torch.ones(3), generator=generator)
    assert all(math.isnan(number) for number in order.values())
