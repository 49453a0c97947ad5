"""Flat space."""

import torch

from hypvl.geometry.euclidean import Euclidean
from tests.geometry.contract import GeometryContract


class TestEuclidean(GeometryContract):
    def build(self) -> Euclidean:
        return Euclidean()


def test_hand_values() -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    y = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([[-25.0, -1.0, 0.0], [0.0, -20.0, -25.0]], dtype=torch.float64)
    # fp64 products about the common centre round at 1e-15 of the squares
    torch.testing.assert_close(Euclidean().pairwise_similarity(x, y), expected, rtol=1e-12, atol=1e-12)


def test_far_from_the_origin_the_distance_keeps_its_digits() -> None:
    x, y = torch.tensor([[1000.0, 1000.0]]), torch.tensor([[1000.1, 1000.0]])
    step = y[0, 0].item() - 1000.0  # 0.1 as rounded to fp32 at 1000
    # Without centring, |x|^2 = 2e6 would be rounded to an eighth.
    expected = torch.tensor([[-(step**2)]])
    torch.testing.assert_close(Euclidean().pairwise_similarity(x, y), expected, rtol=1e-6, atol=0)


def test_root_is_the_origin_and_there_are_no_cones() -> None:
    geometry = Euclidean()
    assert geometry.root(3).tolist() == [0.0, 0.0, 0.0]
    assert geometry.half_aperture(torch.ones(1, 3)) is None
    assert geometry.state_dict() == {}
    path = geometry.interpolate(torch.tensor([2.0, 4.0]), geometry.root(2), torch.tensor([0.0, 0.25, 1.0]))
    assert path.tolist() == [[0.0, 0.0], [0.5, 1.0], [2.0, 4.0]]
