import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import Cosine, ExteriorAngle
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import IMAGE, TEXT, LossTerm, Objective, PairContext
from hypvl.losses.cross_modal_rank import CrossModalRank, adaptive_thresholds, cross_modal_rank_loss
from hypvl.losses.hard_negative import NEGATIVE_TEXT
from tests.losses.contract import LossContract
from tests.losses.test_hard_negative import PER_SAMPLE, negative_mask
from tests.losses.toy import GeometryOnly, context

D = torch.float64


class TestMean(LossContract):
    per_sample = PER_SAMPLE

    def make(self) -> LossTerm:
        return CrossModalRank().double()

    def batch(self, count: int) -> dict[str, Tensor]:
        return {"negative_mask": negative_mask(count)}


class TestPublishedMean(TestMean):
    def make(self) -> LossTerm:
        return CrossModalRank(denominator="all", positives="all", reset="never").double()

    def model(self) -> GeometryOnly:
        return GeometryOnly(Sphere(), Cosine())


class TestMax(TestMean):
    def make(self) -> LossTerm:
        return CrossModalRank("max").double()


class TestFixedWithAngles(TestMean):
    def make(self) -> LossTerm:
        return CrossModalRank("fixed", fixed_threshold=3.0).double()

    def model(self) -> GeometryOnly:
        return GeometryOnly(Lorentz(curv_init=0.1, learn_curv=False), ExteriorAngle())


# Scores of two images: captions 4 and 2; negatives (3, 5) and (1, 9), of which the last is invalid.
POSITIVE = torch.tensor([4.0, 2.0], dtype=D)
NEGATIVES = torch.tensor([[3.0, 5.0], [1.0, 9.0]], dtype=D)
VALID = torch.tensor([[True, True], [True, False]])


def test_value_by_hand() -> None:
    """Hinges with margins (1.5, 0): 0.5 and 1, 0.5 and none: 2 over 3 valid or over 4."""
    thresholds = torch.tensor([1.5, 0.0], dtype=D)
    for count, expected in ((3, 2 / 3), (4, 2 / 4)):
        value = cross_modal_rank_loss(POSITIVE, NEGATIVES, valid=VALID, thresholds=thresholds, count=count)
        assert value.item() == pytest.approx(expected)


def test_thresholds_by_hand() -> None:
    def thresholds(kind: Any, **options: Any) -> list[float]:
        previous = torch.zeros(1, dtype=D)
        new = adaptive_thresholds(POSITIVE, NEGATIVES, valid=VALID, kind=kind, previous=previous, **options)
        return new.tolist()

    assert thresholds("mean") == pytest.approx([3 - 2, 4 - 5])
    assert thresholds("mean", positives="all") == pytest.approx([3 - 2, 3 - 5])
    assert thresholds("max") == pytest.approx([0.2 * 1, 0.2 * -1])


@pytest.mark.parametrize("kind", ["mean", "max"])
def test_absent_type_keeps_its_threshold(kind: Any) -> None:
    valid = torch.tensor([[True, False], [True, False]])
    previous = torch.tensor([7.0, 3.0], dtype=D)
    new = adaptive_thresholds(POSITIVE, NEGATIVES, valid=valid, kind=kind, previous=previous)
    assert new[1].item() == 3.0 and new[0].item() != 7.0 and torch.isfinite(new).all()


def _ctx(scale: float = 1.0, *, mask: Tensor = VALID) -> PairContext:
    """Images e1 whose captions and negatives lie at given cosines."""

    def at(cosines: list[float]) -> Tensor:
        return torch.tensor([[c, math.sqrt(1 - c * c)] for c in cosines], dtype=D)

    model = GeometryOnly(Sphere(), Cosine(log_scale_init=math.log(scale)))
    rows = {IMAGE: at([1.0, 1.0]), TEXT: at([0.8, 0.4]), NEGATIVE_TEXT: at([0.6, 1.0, 0.2, 0.9])}
    return context(model, rows, negative_mask=mask)


def test_thresholds_act_on_the_next_step_and_are_clamped() -> None:
    """Margins 0 at first: only 1.0 against 0.8 is wrong. Then 0.2 and 0 (for -0.2): 0.2 - 0.2 = 0 twice."""
    term, ctx = CrossModalRank().double(), _ctx()
    assert term(ctx).item() == pytest.approx(0.2 / 3)
    assert term.thresholds.tolist() == [0.0]
    term.update_(ctx)
    assert term.thresholds.tolist() == pytest.approx([(0.8 + 0.4) / 2 - 0.4, 0.0])
    assert term(ctx).item() == pytest.approx(0.2 / 3, abs=1e-9)
    bounded = CrossModalRank(upper_bound=0.05)
    bounded.update_(ctx)
    assert bounded.thresholds.tolist() == pytest.approx([0.05, 0.0])


def test_published_denominator_counts_invalid_negatives() -> None:
    assert CrossModalRank(denominator="all")(_ctx()).item() == pytest.approx(0.2 / 4)


def test_thresholds_are_in_units_of_the_logits() -> None:
    term = CrossModalRank().double()
    term.update_(_ctx(scale=10.0))
    assert term.thresholds.tolist() == pytest.approx([2.0, 0.0])


def test_nothing_valid_is_zero_and_stays_finite() -> None:
    """Where the published code has NaN for ever."""
    ctx, term = _ctx(mask=torch.zeros(2, 2, dtype=torch.bool)), CrossModalRank()
    assert term(ctx).item() == 0.0
    term.update_(ctx)
    assert term.thresholds.tolist() == [0.0, 0.0]


def test_a_score_of_exactly_zero_is_a_score() -> None:
    """The published code took it for a masked one: here the mean of type 0 over 0 and 4 is 2, not 4."""
    negatives = torch.tensor([[0.0], [4.0]], dtype=D)
    valid = torch.ones(2, 1, dtype=torch.bool)
    previous = torch.zeros(1, dtype=D)
    new = adaptive_thresholds(POSITIVE, negatives, valid=valid, kind="mean", previous=previous)
    assert new.tolist() == pytest.approx([3.0 - 2.0])


def test_epochs_reset_adaptive_thresholds_unless_told_otherwise() -> None:
    for term, kept in (
        (CrossModalRank(), False),
        (CrossModalRank("max"), False),
        (CrossModalRank(reset="never"), True),
        (CrossModalRank("fixed"), True),
    ):
        objective = Objective({"rank": term})
        objective.update_(_ctx())
        before = term.thresholds.clone()
        objective.begin_epoch_()
        assert torch.equal(term.thresholds, before if kept else torch.zeros(2))


def test_fixed_threshold_is_no_state() -> None:
    term = CrossModalRank("fixed", fixed_threshold=0.5)
    assert term.state_dict() == {} and term.thresholds.tolist() == [0.5]
    term.update_(_ctx())
    assert term.thresholds.tolist() == [0.5]
    assert term(_ctx()).item() == pytest.approx((0.3 + 0.7 + 0.3) / 3)


def test_thresholds_are_reloaded_within_an_objective() -> None:
    """A fresh term does not know the number of types yet; a checkpoint does."""
    first, second = (Objective({"rank": CrossModalRank()}) for _ in range(2))
    first.update_(_ctx())
    assert first.state_dict()["terms.rank.thresholds"].shape == (2,)
    second.load_state_dict(first.state_dict())
    assert torch.equal(*(o.state_dict()["terms.rank.thresholds"] for o in (first, second)))


def test_other_number_of_types_than_before_is_named() -> None:
    term = CrossModalRank()
    term.load_state_dict({"thresholds": torch.zeros(4)})
    with pytest.raises(ValueError, match="got 2 negatives per sample, but the thresholds are of 4 types"):
        term(_ctx())


@pytest.mark.parametrize(("arguments", "words"), [
    ({"kind": "median"}, "kind: got 'median'; expected 'mean', 'max' or 'fixed'"),
    ({"denominator": "B"}, "denominator: got 'B'; expected 'valid' or 'all'"),
    ({"positives": "none"}, "positives: got 'none'; expected 'valid' or 'all'"),
    ({"reset": "step"}, "reset: got 'step'; expected 'epoch' or 'never'"),
    ({"upper_bound": 0.0}, "upper_bound: got 0.0; expected a number above 0"),
])  # fmt: skip
def test_arguments_are_checked(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CrossModalRank(**arguments)
