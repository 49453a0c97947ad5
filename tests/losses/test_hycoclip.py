"""HyCoCLIP's terms as its config composes them: boxes are queries, never keys; parts are more general than wholes."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hypvl.config import LazyConfig, instantiate
from hypvl.losses.base import IMAGE, TEXT, LossTerm, Objective, View
from tests.losses.contract import LossContract, Rows
from tests.losses.toy import context, random_features

NOUN = Path(__file__).resolve().parents[2] / "configs" / "common" / "objective" / "hycoclip.py"
BOX_IMAGE, BOX_TEXT = View.parse("image:box_image"), View.parse("text:box_text")


def objective() -> Objective:
    return instantiate(LazyConfig.load(NOUN).objective)


def term(name: str) -> LossTerm:
    result = objective().terms[name]
    assert isinstance(result, LossTerm)
    return result


class TestContrastiveWithBoxes(LossContract):
    def make(self) -> LossTerm:
        return term("contrastive")


class TestBoxTextEntailsBoxImage(LossContract):
    def make(self) -> LossTerm:
        return term("box_text_image_entailment")


class TestBoxEntailsImage(LossContract):
    def make(self) -> LossTerm:
        return term("cross_image_entailment")


class TestPhraseEntailsCaption(LossContract):
    def make(self) -> LossTerm:
        return term("cross_text_entailment")


def rows(seed: int = 0) -> Rows:
    return {
        v: random_features(4, seed=10 * seed + i) for i, v in enumerate((IMAGE, TEXT, BOX_IMAGE, BOX_TEXT))
    }


def contrastive(given: Rows) -> Tensor:
    return term("contrastive")(context(TestContrastiveWithBoxes().model(), given))


def test_boxes_are_queries_only() -> None:
    """Their whole gradient is that of the box image -> text part, where each box asks for its own text."""
    given = {view: x.requires_grad_() for view, x in rows().items()}
    model = TestContrastiveWithBoxes().model()
    losses = []
    for i in range(4):  # rows of the box image -> text part, each by itself
        logits = model.scorer.logits(
            model.geometry,
            model.embed(given[BOX_IMAGE], modality="image"),
            model.embed(given[TEXT], modality="text"),
            query_modality="image",
            key_modality="text",
        )
        losses.append(torch.logsumexp(logits[i], 0) - logits[i, i])
    part = torch.autograd.grad(sum(losses) / 16, given[BOX_IMAGE])[0]  # a quarter of the mean over four rows
    whole = torch.autograd.grad(contrastive(given), given[BOX_IMAGE])[0]
    torch.testing.assert_close(whole, part, rtol=1e-9, atol=1e-12)


def test_equal_rows_give_the_logarithm_of_the_batch() -> None:
    given = {view: torch.ones(5, 4, dtype=torch.float64) for view in rows()}
    assert contrastive(given).item() == pytest.approx(math.log(5), rel=1e-9)


def test_total_by_hand() -> None:
    """One sample: no contrast. All on one ray but the image, which lies opposite to all that should entail it."""
    ray = torch.tensor([[0.5, 0.0, 0.0, 0.0]], dtype=torch.float64)
    given = {TEXT: 2 * ray, BOX_TEXT: ray, BOX_IMAGE: 3 * ray, IMAGE: -ray}
    output = objective()(context(TestContrastiveWithBoxes().model(), given))
    half = {r: math.asin(0.2 / math.sinh(r)) for r in (1.0, 1.5)}  # apertures of text and box image
    assert output.terms["contrastive"].item() == pytest.approx(0.0, abs=1e-12)
    assert output.terms["box_text_image_entailment"].item() == 0.0
    assert output.terms["cross_text_entailment"].item() == 0.0
    result = output.terms["text_image_entailment"].item()
    assert result == pytest.approx(math.pi - 0.7 * half[1.0], rel=1e-9)
    cross = output.terms["cross_image_entailment"].item()
    assert cross == pytest.approx(math.pi - 1.2 * half[1.5], rel=1e-9)
    assert output.total.item() == pytest.approx(0.1 * (result + cross), rel=1e-9)


def test_a_batch_without_boxes_is_told() -> None:
    given = {view: x for view, x in rows().items() if view in (IMAGE, TEXT)}
    with pytest.raises(KeyError, match="image:box_image@student: not encoded"):
        contrastive(given)
