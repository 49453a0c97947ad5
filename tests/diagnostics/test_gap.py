"""Modality gap metrics: hand values, limits, and that nothing depends on the order of pairs."""

import math

import pytest
import torch
from torch import Tensor

from hypvl.diagnostics import gap
from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.sphere import Sphere, normalize


def tensor(*values: object) -> Tensor:
    return torch.tensor(*values, dtype=torch.float64)


def unit_rows(count: int, *, seed: int, towards: float = 0.0) -> Tensor:
    """Random unit rows, 4 wide, pulled towards the first axis."""
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return normalize(x + tensor([towards, 0, 0, 0]))


def test_metrics_by_hand() -> None:
    x = tensor([[1.0, 0.0], [0.0, 1.0]])
    y = tensor([[0.0, 1.0], [0.0, -1.0]])
    result = gap.gap_metrics(x, y)
    assert result["centroid_distance"] == pytest.approx(math.sqrt(0.5))  # (.5, .5) and (0, 0)
    assert result["centroid_distance_squared"] == pytest.approx(0.5)
    assert result["centroid_cosine"] == 0.0  # the second mean is 0
    assert (result["image_centroid_norm"], result["text_centroid_norm"]) == pytest.approx((math.sqrt(0.5), 0))
    assert result["mean_paired_distance"] == pytest.approx((math.sqrt(2) + 2) / 2)
    assert result["align"] == pytest.approx((2 + 4) / 2)
    assert result["mean_paired_cosine"] == pytest.approx(-0.5)  # 0 and -1
    assert result["mean_unpaired_cosine"] == pytest.approx(0.5)  # 0 and 1
    assert result["mean_intra_image_cosine"] == pytest.approx(0.0)
    assert result["mean_intra_text_cosine"] == pytest.approx(-1.0)
    assert result["relative_modality_gap"] == pytest.approx(0.75 / (0.75 + 0.75))  # W = (1/2 + 1) / 2
    assert result["uniform_image"] == pytest.approx(-2 * 2)  # |x_0 - x_1|^2 = 2
    assert result["uniform_text"] == pytest.approx(-2 * 4)
    assert result["linear_separability"] == pytest.approx(0.75)  # x_1 = y_0 cannot be on both sides


def test_uniformity_does_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x = unit_rows(11, seed=9)
    whole = gap.uniform(x)
    pairs = [math.exp(-2 * float((x[i] - x[j]).square().sum())) for i in range(11) for j in range(i)]
    assert whole.item() == pytest.approx(math.log(sum(pairs) / len(pairs)), rel=1e-12)
    monkeypatch.setattr(gap, "_ROWS", 3)
    assert gap.uniform(x).item() == pytest.approx(whole.item(), rel=1e-12)
    assert gap.uniform(x[:1].expand(5, 4)).item() == 0.0  # collapse
    with pytest.raises(ValueError, match="N >= 2"):
        gap.uniform(x[:1])


def test_cosines_do_not_see_lengths() -> None:
    x, y = unit_rows(6, seed=0), unit_rows(6, seed=1)
    scale = torch.arange(1, 7, dtype=torch.float64)[:, None]
    for metric in (gap.mean_paired_cosine, gap.mean_unpaired_cosine, gap.relative_modality_gap):
        assert torch.allclose(metric(x, y), metric(scale * x, y / scale), rtol=1e-12)
    assert torch.allclose(gap.mean_intra_cosine(x), gap.mean_intra_cosine(scale * x), rtol=1e-12)


def test_equal_modalities_have_no_gap() -> None:
    x = unit_rows(8, seed=2)
    result = gap.gap_metrics(x, x)
    assert result["centroid_distance"] == result["align"] == 0.0
    assert result["relative_modality_gap"] == pytest.approx(0.0, abs=1e-15)
    assert result["linear_separability"] == 0.5  # every output is 0
    assert result["centroid_cosine"] == pytest.approx(1.0)


def test_all_rows_the_same_are_finite() -> None:
    x = normalize(torch.ones(3, 4, dtype=torch.float64))
    result = gap.gap_metrics(x, x)
    assert all(math.isfinite(value) for value in result.values())
    assert result["relative_modality_gap"] == pytest.approx(0.0, abs=1e-7)


def test_modalities_far_apart_are_separable() -> None:
    x, y = unit_rows(40, seed=3, towards=4.0), unit_rows(40, seed=4, towards=-4.0)
    result = gap.gap_metrics(x, y)
    assert result["linear_separability"] == 1.0
    assert result["centroid_cosine"] < -0.9
    assert result["relative_modality_gap"] > 0.7
    mixed = gap.linear_separability(unit_rows(400, seed=5), unit_rows(400, seed=6))
    assert 0.45 < mixed < 0.6


def test_order_of_pairs_does_not_matter() -> None:
    x, y = unit_rows(9, seed=7, towards=1), unit_rows(9, seed=8)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert gap.gap_metrics(x[order], y[order]) == pytest.approx(gap.gap_metrics(x, y), rel=1e-12, abs=1e-14)
    swapped = gap.gap_metrics(x, y[order])
    assert swapped["centroid_distance"] == pytest.approx(gap.gap_metrics(x, y)["centroid_distance"])
    assert swapped["mean_paired_cosine"] != pytest.approx(gap.gap_metrics(x, y)["mean_paired_cosine"])


def test_half_precision_is_computed_in_fp32() -> None:
    x, y = unit_rows(9, seed=7, towards=1), unit_rows(9, seed=8)
    assert gap.centroid_distance(x.bfloat16(), y.bfloat16()).dtype == torch.float32


def test_a_shift_moves_along_the_line_between_the_means() -> None:
    x, y = tensor([[2.0, 0.0], [4.0, 0.0]]), tensor([[0.0, 1.0], [0.0, -1.0]])  # means (3, 0) and (0, 0)
    assert torch.equal(gap.gap_direction(x, y), tensor([1.0, 0.0]))
    moved = gap.move_features(x, y, delta=2.0, geometry=Euclidean())
    torch.testing.assert_close(moved[0], tensor([[1.0, 0.0], [3.0, 0.0]]))
    torch.testing.assert_close(moved[1], tensor([[1.0, 1.0], [1.0, -1.0]]))
    assert gap.centroid_distance(*moved).item() == pytest.approx(1.0)
    wider = gap.move_features(x, y, delta=-1.5, geometry=Euclidean())
    assert gap.centroid_distance(*wider).item() == pytest.approx(4.5)


def test_the_signed_distance_turns_negative_where_they_pass() -> None:
    x, y = tensor([[3.0, 0.0]]), tensor([[0.0, 0.0]])
    u = gap.gap_direction(x, y)
    for delta, expected in ((0.0, 3.0), (2.0, 1.0), (3.0, 0.0), (5.5, -2.5)):
        moved = gap.move_features(x, y, delta=delta, geometry=Euclidean(), direction=u)
        assert gap.signed_centroid_distance(*moved, direction=u).item() == pytest.approx(expected)


@pytest.mark.parametrize("geometry", [Sphere(), Lorentz(curv_init=0.7).double(), Euclidean()])
def test_a_shift_stays_in_its_space_and_zero_changes_nothing(geometry: torch.nn.Module) -> None:
    x, y = (geometry.lift(0.5 * unit_rows(5, seed=s, towards=t)) for s, t in ((0, 1.0), (1, -1.0)))
    still = gap.move_features(x, y, delta=0.0, geometry=geometry)
    torch.testing.assert_close(still[0], x)
    moved = gap.move_features(x, y, delta=0.1, geometry=geometry)
    flat = [geometry.flatten(z) for z in (x, y, *moved)]
    assert gap.centroid_distance(*flat[2:]) < gap.centroid_distance(*flat[:2])
    if isinstance(geometry, Sphere):
        assert torch.allclose(moved[0].norm(dim=-1), torch.ones(5, dtype=torch.float64))
    else:  # no normalisation: by exactly delta
        assert gap.centroid_distance(*flat[2:]).item() == pytest.approx(
            gap.centroid_distance(*flat[:2]).item() - 0.1
        )


def test_modalities_with_one_mean_are_left_where_they_are() -> None:
    x = unit_rows(5, seed=0)
    moved = gap.move_features(x, x, delta=1.0, geometry=Sphere())
    torch.testing.assert_close(moved[0], x)


def test_offsets_are_what_a_shift_subtracts() -> None:
    x, y = unit_rows(5, seed=0, towards=1), unit_rows(5, seed=1)
    for_x, for_y = gap.shift_offsets(x.mean(0), y.mean(0), delta=0.6)
    moved = gap.move_features(x, y, delta=0.6, geometry=Sphere())
    torch.testing.assert_close(normalize(x - for_x), moved[0])
    torch.testing.assert_close(normalize(y - for_y), moved[1])


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"got shapes \(3, 2\) and \(2, 2\)"):
        gap.mean_paired_cosine(torch.zeros(3, 2), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="N >= 2"):
        gap.mean_intra_cosine(torch.zeros(1, 2))
