"""The unit sphere."""

import pytest
import torch

from hypvl.geometry.sphere import Sphere, normalize
from tests.geometry.contract import GeometryContract


class TestSphere(GeometryContract):
    def build(self) -> Sphere:
        return Sphere()


def test_hand_values() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, -2.0]], dtype=torch.float64)
    expected = torch.tensor([[0.6, 0.8], [0.0, -1.0]], dtype=torch.float64)
    torch.testing.assert_close(normalize(x), expected)
    similarity = Sphere().pairwise_similarity(expected, expected)
    torch.testing.assert_close(similarity, torch.tensor([[1.0, -0.8], [-0.8, 1.0]], dtype=torch.float64))


def test_pool_normalises_each_prompt_first() -> None:
    """A long feature does not outweigh a short one: (1, 0) and (0, 1) in the mean, whatever their lengths."""
    pooled = Sphere().pool(torch.tensor([[100.0, 0.0], [0.0, 0.01]], dtype=torch.float64))
    torch.testing.assert_close(pooled, torch.full((2,), 0.5**0.5, dtype=torch.float64))


def test_interpolation_is_a_chord_brought_back_to_the_sphere() -> None:
    x, root = torch.tensor([0.0, 1.0]).double(), torch.tensor([1.0, 0.0]).double()
    middle = Sphere().interpolate(x, root, torch.tensor([0.25]))[0]
    torch.testing.assert_close(middle, torch.tensor([3.0, 1.0]).double() / 10**0.5)


@pytest.mark.parametrize("length", [0.0, 1e-45, 1e-30, 1e-20, 1e30])
def test_rows_of_any_length(length: float) -> None:
    x = torch.tensor([[length, 0.0, 0.0]], requires_grad=True)
    out = normalize(x)
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert grad.isfinite().all()
    assert out[0].tolist() == ([1.0, 0.0, 0.0] if length > 1e-25 else [0.0, 0.0, 0.0])
    if length <= 1e-25:
        assert grad.abs().sum() == 0


def test_no_root_no_cones_and_no_curvature() -> None:
    assert Sphere().root(3) is None
    assert Sphere().cones is None
    assert Sphere().curvature is None
