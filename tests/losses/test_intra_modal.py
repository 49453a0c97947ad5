import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import IMAGE, TEXT, LossTerm
from hypvl.losses.hard_negative import NEGATIVE_TEXT
from hypvl.losses.intra_modal import IntraModal, Variant, intra_modal_loss
from tests.losses.contract import LossContract
from tests.losses.test_hard_negative import PER_SAMPLE, negative_mask
from tests.losses.toy import GeometryOnly, context, random_features


class TestFixed(LossContract):
    per_sample = PER_SAMPLE

    def make(self) -> LossTerm:
        return IntraModal()


class TestFixedMasked(LossContract):
    per_sample = PER_SAMPLE

    def make(self) -> LossTerm:
        return IntraModal(invalid_negatives="mask")

    def model(self) -> GeometryOnly:
        return GeometryOnly(Sphere(), Cosine())

    def batch(self, count: int) -> dict[str, Tensor]:
        return {"negative_mask": negative_mask(count)}


class TestOwnNegatives(LossContract):
    per_sample: Mapping[str, int] = {"negative_text": 2}

    def make(self) -> LossTerm:
        return IntraModal("own_negatives")


class TestOwnNegativesMasked(TestFixedMasked):
    def make(self) -> LossTerm:
        return IntraModal("own_negatives", invalid_negatives="mask")


class TestFirstRelease(LossContract):
    per_sample = PER_SAMPLE
    permutes = False

    def make(self) -> LossTerm:
        return IntraModal("first_release")


class TestHead(LossContract):
    per_sample = PER_SAMPLE
    permutes = False

    def make(self) -> LossTerm:
        return IntraModal("head")


def test_variants_by_hand() -> None:
    """A positive of log 3 against log 1 and log 2: 3 of 6; the faults target the 1, of 6 and of 3."""
    positive = torch.tensor([math.log(3)], dtype=torch.float64)
    negatives = torch.tensor([[0.0, math.log(2)]], dtype=torch.float64)
    expected: dict[Variant, float] = {
        "fixed": math.log(2),
        "own_negatives": math.log(2),
        "first_release": math.log(6),
        "head": math.log(3),
    }
    for variant, value in expected.items():
        given = None if variant == "head" else positive
        assert intra_modal_loss(given, negatives, variant=variant).item() == pytest.approx(value), variant


def test_negatives_of_others_count_in_the_default_variant_only() -> None:
    """Captions e1, e2, each with its image, and negatives e2, e1: 0 for the own, s for the other's."""
    eye = torch.eye(2, dtype=torch.float64)
    model = GeometryOnly(Sphere(), Cosine(log_scale_init=0.0))
    ctx = context(model, {IMAGE: eye, TEXT: eye, NEGATIVE_TEXT: eye.flip(0)})
    assert IntraModal()(ctx).item() == pytest.approx(math.log((2 * math.e + 1) / math.e))
    assert IntraModal("own_negatives")(ctx).item() == pytest.approx(math.log((math.e + 1) / math.e))


def test_without_valid_negatives_it_is_zero() -> None:
    rows = {
        view: random_features(count, seed=i).requires_grad_()
        for i, (view, count) in enumerate({IMAGE: 3, TEXT: 3, NEGATIVE_TEXT: 6}.items())
    }
    model = GeometryOnly(Sphere(), Cosine())
    variants: tuple[Variant, ...] = ("fixed", "own_negatives")
    for variant in variants:
        term = IntraModal(variant, invalid_negatives="mask")
        value = term(context(model, rows, negative_mask=torch.zeros(3, 2, dtype=torch.bool)))
        value.backward()
        assert value.item() == 0.0
        assert all(x.grad is not None and not x.grad.any() for x in rows.values())


def test_faults_pull_and_the_default_pushes() -> None:
    """What raises the score of the first negative raises the default's loss and lowers that of the faults."""
    slopes = {}
    variants: tuple[Variant, ...] = ("fixed", "first_release", "head")
    for variant in variants:
        negatives = random_features(5, seed=3).requires_grad_()
        intra_modal_loss(
            None if variant == "head" else random_features(5)[:, 0], negatives, variant=variant
        ).backward()
        assert negatives.grad is not None
        slopes[variant] = negatives.grad[:, 0]
    assert (slopes["fixed"] > 0).all()
    assert (slopes["first_release"] < 0).all() and (slopes["head"] < 0).all()


def test_positive_belongs_to_every_variant_but_one() -> None:
    wrong: tuple[tuple[Variant, Tensor | None, str], ...] = (
        ("fixed", None, "missing"),
        ("head", torch.zeros(2), "given"),
    )
    for variant, positive, word in wrong:
        with pytest.raises(ValueError, match=f"positive: {word} with variant='{variant}'"):
            intra_modal_loss(positive, torch.zeros(2, 3), variant=variant)
    assert IMAGE not in IntraModal("head").needs


@pytest.mark.parametrize(("arguments", "words"), [
    ({"variant": "tail"}, "variant: got 'tail'; expected 'fixed', 'own_negatives', 'first_release' or 'head'"),
    ({"invalid_negatives": "x"}, "invalid_negatives: got 'x'; expected 'keep' or 'mask'"),
    ({"variant": "head", "invalid_negatives": "mask"},
     "invalid_negatives: got 'mask' with variant='head', whose target is a negative"),
])  # fmt: skip
def test_arguments_are_checked(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        IntraModal(**arguments)
