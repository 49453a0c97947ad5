import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import Cosine, ExteriorAngle
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import IMAGE, TEXT, LossTerm
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.hard_negative import (
    NEGATIVE_TEXT,
    HardNegativeContrastive,
)
from hypvl.losses.info_nce import softmax_cross_entropy
from tests.losses.contract import LossContract
from tests.losses.toy import GeometryOnly, context, random_features

K = 3
PER_SAMPLE: Mapping[str, int] = {"negative_text": K}


def negative_mask(count: int) -> Tensor:
    """(count, 3): the second type is valid in the last sample only, the third nowhere, unless there is one sample."""
    mask = torch.zeros(count, K, dtype=torch.bool)
    mask[:, 0] = torch.arange(count) % 3 != 1
    mask[-1, 1] = True
    return mask


class TestOnHyperboloid(LossContract):
    per_sample = PER_SAMPLE

    def make(self) -> LossTerm:
        return HardNegativeContrastive()


class TestMaskedOnSphere(LossContract):
    per_sample = PER_SAMPLE

    def make(self) -> LossTerm:
        return HardNegativeContrastive(invalid_negatives="mask")

    def model(self) -> GeometryOnly:
        return GeometryOnly(Sphere(), Cosine())

    def batch(self, count: int) -> dict[str, Tensor]:
        return {"negative_mask": negative_mask(count)}


class TestWithAngles(LossContract):
    per_sample: Mapping[str, int] = {"negative_text": 1}

    def make(self) -> LossTerm:
        return HardNegativeContrastive()

    def model(self) -> GeometryOnly:
        return GeometryOnly(Lorentz(curv_init=0.1, learn_curv=False), ExteriorAngle())


def test_value_by_hand() -> None:
    """Scores 0, 0 for two captions and log 2 for a negative: the caption has a quarter; without it, a half."""
    logits = torch.tensor([[0.0, 0.0, math.log(2)]], dtype=torch.float64)
    assert softmax_cross_entropy(logits, torch.tensor([0])).item() == pytest.approx(math.log(4))
    valid = torch.tensor([False])
    assert softmax_cross_entropy(logits, torch.tensor([0]), valid=valid).item() == pytest.approx(math.log(2))


def test_both_directions_by_hand() -> None:
    """Orthogonal pairs, each with its own image's direction as a negative: images see s, 0, s, 0; texts s, 0."""
    eye = torch.eye(2, dtype=torch.float64)
    model = GeometryOnly(Sphere(), Cosine(log_scale_init=math.log(2.0)))
    ctx = context(model, {IMAGE: eye, TEXT: eye, NEGATIVE_TEXT: eye})
    e2 = math.exp(2)
    expected = (math.log((2 * e2 + 2) / e2) + math.log((e2 + 1) / e2)) / 2
    assert HardNegativeContrastive()(ctx).item() == pytest.approx(expected, rel=1e-6)  # fp32 scale


def test_all_masked_is_the_plain_contrastive_term() -> None:
    rows = {
        IMAGE: random_features(4),
        TEXT: random_features(4, seed=1),
        NEGATIVE_TEXT: random_features(8, seed=2),
    }
    model = GeometryOnly(Sphere(), Cosine())
    ctx = context(model, rows, negative_mask=torch.zeros(4, 2, dtype=torch.bool))
    plain = Contrastive()(ctx).item()
    assert HardNegativeContrastive(invalid_negatives="mask")(ctx).item() == pytest.approx(plain, rel=1e-12)
    assert HardNegativeContrastive()(ctx).item() > plain


def test_masked_negatives_get_no_gradient() -> None:
    contract = TestMaskedOnSphere()
    rows = {view: x.requires_grad_() for view, x in contract.rows(6).items()}
    contract.value(rows).backward()
    gradient = rows[NEGATIVE_TEXT].grad
    assert gradient is not None
    moved = gradient.unflatten(0, (6, K)).abs().sum(-1) > 0
    assert torch.equal(moved, negative_mask(6))


@pytest.mark.parametrize("count", [1, 64, 130])
def test_own_logits_are_the_diagonal_of_all(count: int) -> None:
    """Blocks of samples give what the whole matrix has: sample i against the rows 2i and 2i + 1."""
    rows = {IMAGE: random_features(count), NEGATIVE_TEXT: random_features(2 * count, seed=1)}
    model = GeometryOnly(Lorentz(curv_init=1.0), ExteriorAngle())
    ctx = context(model, rows)
    result = ctx.own_logits(IMAGE, NEGATIVE_TEXT)
    for i in {0, count // 2, count - 1}:
        one = context(model, {IMAGE: rows[IMAGE][i : i + 1], TEXT: rows[NEGATIVE_TEXT][2 * i : 2 * i + 2]})
        images, texts = one.embeddings(IMAGE), one.embeddings(TEXT)
        alone = model.scorer.logits(
            model.geometry, images, texts, query_modality="image", key_modality="text"
        )
        torch.testing.assert_close(result[i], alone[0], rtol=1e-9, atol=1e-9)
    assert result.shape == (count, 2)


def test_rows_that_do_not_fit_are_named() -> None:
    ctx = context(TestOnHyperboloid().model(), {IMAGE: random_features(2), NEGATIVE_TEXT: random_features(5)})
    with pytest.raises(ValueError, match="got 5 rows for 2 samples; expected the same number K for each"):
        ctx.own_logits(IMAGE, NEGATIVE_TEXT)


def test_mask_is_asked_for_by_name() -> None:
    rows = {NEGATIVE_TEXT: random_features(4)}
    with pytest.raises(KeyError, match=r"batch: has no 'negative_mask'.*it has nothing"):
        HardNegativeContrastive().valid_negatives(context(TestOnHyperboloid().model(), rows))
    ctx = context(TestOnHyperboloid().model(), rows, negative_mask=torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"negative_mask: got shape \(2, 3\) for 4 rows"):
        HardNegativeContrastive().valid_negatives(ctx)


def test_unknown_choice_is_named() -> None:
    with pytest.raises(ValueError, match="invalid_negatives: got 'dropped'; expected 'keep' or 'mask'"):
        HardNegativeContrastive(invalid_negatives="dropped")  # type: ignore[arg-type]  # that is the test
