"""VICReg: its three parts by hand, and the variant that no batch can satisfy."""

import math

import pytest
import torch

from hypvl.losses.base import IMAGE, TEXT, LossTerm
from hypvl.losses.vicreg import VICReg, covariance_penalty, invariance, variance_hinge
from tests.losses.contract import LossContract
from tests.losses.toy import context, random_features


class TestVICReg(LossContract):
    def make(self) -> LossTerm:
        return VICReg(student="image", teacher="text")


class TestVICRegWithOtherWeights(LossContract):
    def make(self) -> LossTerm:
        return VICReg(student="text", teacher="image", invariance_weight=1.0, covariance_weight=0.0, eps=0.01)


# Columns with variances 2 (unbiased) and 8, covariance 4.
_X = torch.tensor([[-1.0, -2.0], [1.0, 2.0]], dtype=torch.float64)


def test_parts_by_hand() -> None:
    assert invariance(_X, -_X).item() == pytest.approx((4 + 16 + 4 + 16) / 4)
    assert variance_hinge(0.5 * _X, eps=0.0).item() == pytest.approx((1 - math.sqrt(0.5)) / 2)  # sqrt(2) > 1
    assert covariance_penalty(_X + 100).item() == pytest.approx(2 * 4**2 / 2)


def test_the_sum_by_hand() -> None:
    ctx = context(LossContract().model(), {IMAGE: 0.5 * _X, TEXT: -0.5 * _X})
    term = VICReg(student="image", teacher="text", eps=0.0)
    expected = 25 * (1 + 4 + 1 + 4) / 4 + 25 * (1 - math.sqrt(0.5)) / 2 + 2 * (2 * 1**2 / 2)
    assert term(ctx).item() == pytest.approx(expected)


def test_one_row_has_no_variance() -> None:
    row = random_features(1)
    value = VICReg(student="image", teacher="text")(context(LossContract().model(), {IMAGE: row, TEXT: row}))
    assert value.item() == pytest.approx(25 * (1 - 0.01))  # sqrt(eps)


def test_unit_rows_never_vary_enough() -> None:
    wide = random_features(64, 32, scale=100.0)
    ctx = context(LossContract().model(), {IMAGE: wide, TEXT: wide})
    parts = {"invariance_weight": 0.0, "covariance_weight": 0.0, "variance_weight": 1.0}
    assert VICReg(student="image", teacher="text", **parts)(ctx).item() == 0.0
    least = 1 - 1.3 / math.sqrt(32)
    assert VICReg(student="image", teacher="text", variant="itra", **parts)(ctx).item() > least


def test_features_that_diverged_are_refused() -> None:
    large = (1e12 * random_features(4)).float()
    ctx = context(LossContract().model(), {IMAGE: large, TEXT: large})
    with pytest.raises(ValueError, match=r"features: got numbers up to .* does not fit into torch.float32"):
        VICReg(student="image", teacher="text")(ctx)
