"""Vectors whose inner products rank as the similarity does."""

import math

import pytest
import torch

from hypvl.geometry import lorentz
from hypvl.geometry.base import Geometry
from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.product import Product
from hypvl.geometry.sphere import Sphere

GEOMETRIES: dict[str, Geometry] = {
    "sphere": Sphere(),
    "euclidean": Euclidean(),
    "lorentz": Lorentz(curv_init=0.3),
    "curved": Lorentz(curv_init=5.0),
}


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("length", [0.1, 3.0])
def test_products_have_the_order_of_the_similarity(name: str, length: float) -> None:
    geometry = GEOMETRIES[name]
    generator = torch.Generator().manual_seed(0)
    x, y = (
        geometry.lift(length * torch.randn(n, 6, generator=generator, dtype=torch.float64)) for n in (7, 50)
    )
    query, key = geometry.inner_product_form(x, side="query"), geometry.inner_product_form(y, side="key")
    assert query is not None and key is not None
    similarity = geometry.pairwise_similarity(x, y)
    assert torch.equal((query @ key.T).flatten().argsort(), similarity.flatten().argsort())  # of all pairs


def test_known_values() -> None:
    space = Lorentz(curv_init=0.25)  # 1/c = 4
    x, y = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    query, key = space.inner_product_form(x, side="query"), space.inner_product_form(y, side="key")
    assert query.tolist() == [[0.0, 0.0, 2.0]]
    assert key.flatten().tolist() == pytest.approx([3.0, 4.0, -math.sqrt(29.0)])
    product = (query @ key.T).item()
    assert product == pytest.approx(-2 * math.sqrt(29.0))
    assert math.acosh(-0.25 * product) / 0.5 == pytest.approx(
        -space.pairwise_similarity(x, y).item(), rel=1e-6
    )
    assert lorentz.time_component(y, curv=0.25).tolist() == [[pytest.approx(math.sqrt(29.0))]]

    flat = Euclidean()
    x, y = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0]])
    query, key = flat.inner_product_form(x, side="query"), flat.inner_product_form(y, side="key")
    assert query.tolist() == [[1.0, 2.0, -5.0, 1.0]] and key.tolist() == [[6.0, -2.0, 1.0, -10.0]]
    assert (query @ key.T).item() == -13.0

    unit = Sphere().inner_product_form(torch.tensor([[3.0, 4.0]]), side="key")
    assert unit.flatten().tolist() == pytest.approx([0.6, 0.8])


def test_a_sum_of_distances_has_none() -> None:
    assert Product(2, 3).inner_product_form(torch.zeros(4, 6), side="query") is None


def test_half_precision_becomes_single() -> None:
    result = Lorentz().inner_product_form(torch.ones(2, 3, dtype=torch.bfloat16), side="key")
    assert result.dtype == torch.float32 and result[0, -1].item() == pytest.approx(-2.0)
