"""Projection heads: initial scale, clamp, precision under autocast."""

import math
from typing import Any

import pytest
import torch

from hypvl.encoders.heads import (
    ProjectionHead,
    ScaledProjectionHead,
    TwoLayerProjectionHead,
    UnitProjectionHead,
)


def test_projection_is_a_matrix_without_bias() -> None:
    head = ProjectionHead(2, 3)
    assert list(head.state_dict()) == ["projection.weight"]
    with torch.no_grad():
        head.projection.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0], [3.0, 0.0]]))
    assert head(torch.tensor([[2.0, 5.0]])).tolist() == [[12.0, -5.0, 6.0]]


@pytest.mark.parametrize("make", [ProjectionHead, ScaledProjectionHead, UnitProjectionHead])
def test_a_bias_starts_at_zero_and_is_added_before_the_length(make: type[ProjectionHead]) -> None:
    torch.manual_seed(0)
    plain, biased = make(2, 3), make(2, 3, bias=True)
    x = torch.tensor([[2.0, 5.0]])
    report = biased.load_state_dict(plain.state_dict(), strict=False)
    assert report.missing_keys == ["projection.bias"] and torch.equal(biased(x), plain(x))
    with torch.no_grad():
        biased.projection.bias.copy_(torch.tensor([0.5, -1.0, 2.0]))
        shifted = plain.projection.weight @ x[0] + biased.projection.bias
    wanted = {
        ProjectionHead: shifted,
        ScaledProjectionHead: shifted / math.sqrt(3),
        UnitProjectionHead: shifted / shifted.norm(),
    }
    torch.testing.assert_close(biased(x)[0], wanted[make])


def test_two_layers_by_hand() -> None:
    head = TwoLayerProjectionHead(2, 3)
    assert {name: tuple(p.shape) for name, p in head.named_parameters()} == {
        "fc1.weight": (6, 2), "fc1.bias": (6,), "fc2.weight": (3, 6),
    }  # fmt: skip
    with torch.no_grad():
        for p in head.parameters():
            p.fill_(0.5)
    hidden = 0.5 * 1.0 + 0.5 * 2.0 + 0.5
    gelu = hidden * 0.5 * (1 + math.erf(hidden / math.sqrt(2)))
    assert head(torch.tensor([[1.0, 2.0]]))[0].tolist() == pytest.approx([3 * gelu] * 3)
    assert TwoLayerProjectionHead(2, 3, hidden=5, bias=True).fc2.bias.shape == (3,)
    with pytest.raises(ValueError, match="hidden: got 0"):
        TwoLayerProjectionHead(2, 3, hidden=0)


@pytest.mark.parametrize("make", [ProjectionHead, ScaledProjectionHead])
def test_initial_deviation_follows_the_inputs(make: type[ProjectionHead]) -> None:
    torch.manual_seed(0)
    weight = make(400, 300).projection.weight
    # 120,000 draws: the deviation of the sample deviation is 0.2 %.
    assert weight.std().item() == pytest.approx(400**-0.5, rel=0.01)


def test_scaled_head_multiplies_by_exp_log_scale() -> None:
    head = ScaledProjectionHead(2, 16)
    assert sorted(head.state_dict()) == ["log_scale", "projection.weight"]
    assert head.log_scale.shape == ()
    assert head.log_scale.item() == pytest.approx(math.log(1 / 4))
    with torch.no_grad():
        head.projection.weight.fill_(1.0)
    torch.testing.assert_close(head(torch.tensor([[3.0, 5.0]])), torch.full((1, 16), 2.0))
    with torch.no_grad():
        head.log_scale.fill_(math.log(0.5))
    torch.testing.assert_close(head(torch.tensor([[3.0, 5.0]])), torch.full((1, 16), 4.0))


def test_each_factor_has_its_scale() -> None:
    head = ScaledProjectionHead(2, 6, factors=3)
    assert head.log_scale.tolist() == pytest.approx([math.log(2**-0.5)] * 3)
    assert ScaledProjectionHead(2, 6, factors=1).log_scale.tolist() == pytest.approx([math.log(6**-0.5)])
    with torch.no_grad():
        head.projection.weight.fill_(1.0)
        head.log_scale.copy_(torch.tensor([0.5, math.log(0.5), -1.0]))
    head.constrain_()
    assert head.log_scale.tolist() == pytest.approx([0.0, math.log(0.5), -1.0])
    x = torch.tensor([[3.0, 5.0], [1.0, 0.0]])
    wanted = [1.0, 1.0, 0.5, 0.5, math.exp(-1.0), math.exp(-1.0)]
    torch.testing.assert_close(head(x), x.sum(-1, keepdim=True) * torch.tensor(wanted))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert head(x).dtype == torch.float32
    head(x).sum().backward()
    assert head.log_scale.grad is not None  # 2 columns of 8 and of 1, times the scale
    assert head.log_scale.grad.tolist() == pytest.approx([18.0, 9.0, 18 * math.exp(-1.0)])


@pytest.mark.parametrize(("factors", "words"), [
    (4, "factors: got 4, which does not divide out_features = 6; expected equal parts"),
    (0, "factors: got 0; expected a whole number of at least 1"),
    (7, "factors: got 7; expected"),
])  # fmt: skip
def test_factors_are_checked(factors: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ScaledProjectionHead(2, 6, factors=factors)


def test_constrain_keeps_the_scale_at_or_below_one() -> None:
    head = ScaledProjectionHead(2, 4)
    parameter = head.log_scale
    for value, kept in ((0.3, 0.0), (0.0, 0.0), (-7.5, -7.5)):
        with torch.no_grad():
            head.log_scale.fill_(value)
        head.constrain_()
        assert head.log_scale.item() == kept
    assert head.log_scale is parameter
    assert parameter.requires_grad


def test_scale_is_applied_in_fp32_under_autocast() -> None:
    head = ScaledProjectionHead(8, 8)
    with torch.no_grad():
        head.log_scale.fill_(-1.2345)
    x = torch.randn(4, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        projected, scaled = head.projection(x), head(x)
    assert projected.dtype == torch.bfloat16
    assert scaled.dtype == torch.float32
    torch.testing.assert_close(scaled, projected.float() * math.exp(-1.2345), rtol=1e-6, atol=0)
    assert head.double()(x.double()).dtype == torch.float64


def test_gradient_reaches_the_scale() -> None:
    head = ScaledProjectionHead(3, 5).double()
    x = torch.randn(2, 3, dtype=torch.float64)
    y = head(x)
    y.sum().backward()
    # d/ds exp(s) z = exp(s) z
    assert head.log_scale.grad is not None
    assert head.log_scale.grad.item() == pytest.approx(y.sum().item())


def test_another_start_gives_each_factor_norm_one() -> None:
    torch.manual_seed(0)
    head = ScaledProjectionHead(400, 64, log_scale_init=-0.5 * math.log(8))
    assert head.log_scale.item() == pytest.approx(math.log(8**-0.5))
    norms = head(torch.randn(500, 400)).unflatten(-1, (8, 8)).norm(dim=-1)
    assert norms.square().mean().item() == pytest.approx(1.0, rel=0.05)  # the weights are one draw
    with pytest.raises(
        ValueError, match=r"log_scale_init: got 0.1; expected a number of at least -80 and up to 0"
    ):
        ScaledProjectionHead(4, 4, log_scale_init=0.1)


@pytest.mark.parametrize("make", [ProjectionHead, ScaledProjectionHead, UnitProjectionHead])
@pytest.mark.parametrize("size", [0, -1, 2.5, "8"])
def test_sizes_are_checked(make: Any, size: Any) -> None:
    with pytest.raises(ValueError, match=r"out_features: got .*; expected a whole number of at least 1"):
        make(4, size)
