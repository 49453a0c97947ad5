"""The objective that hypvl 0.1.0 called UNCHA; tests/test_golden.py resumes a run of it."""

import math

import pytest
import torch

from hypvl.config.reader import stored_data
from hypvl.losses.base import IMAGE, LossTerm, View
from hypvl.losses.uncertainty import calibration_loss, uncertainty
from hypvl.losses.uncha_draft import DraftCalibration, DraftContrastive
from tests.losses.contract import LossContract
from tests.losses.toy import context, random_features

BOX_IMAGE = View.parse("image:box_image")
pytestmark = pytest.mark.filterwarnings("ignore:UNCHA. this objective is the one that hypvl 0.1.0 wrote")


class TestDraftContrastive(LossContract):
    def make(self) -> LossTerm:
        return DraftContrastive([("image", "text"), ("text", "image"), (BOX_IMAGE, "text")])


class TestDraftCalibration(LossContract):
    def make(self) -> LossTerm:
        return DraftCalibration(general=BOX_IMAGE, specific="image", aperture_factor=1.2)

    def _check_gradient(self, *, fast_mode: bool) -> None:
        """Beside the entropy's, twice that of the published calibration at uncertainties where its 1e-6 is nothing."""
        rows = self.rows(1)  # of one item the entropy is 0
        x = rows[BOX_IMAGE].requires_grad_()
        term, model = self.make(), self.model()
        assert isinstance(term, DraftCalibration)
        ctx = context(model, rows)
        published = 2 * calibration_loss(term.per_pair(ctx), uncertainty(model.geometry.lift(x))).sum()
        torch.testing.assert_close(
            torch.autograd.grad(term(ctx), x), torch.autograd.grad(published, x), rtol=1e-5, atol=1e-9
        )

    def test_degenerate_batches_are_finite(self) -> None:
        """Only the general item gets a gradient: there is none to check for the specific one."""
        for count, scale in ((1, 0.7), (2, 0.7), (3, 0.0), (3, 30.0)):
            rows = {BOX_IMAGE: random_features(count, scale=scale), IMAGE: random_features(count, seed=1)}
            x = rows[BOX_IMAGE].requires_grad_()
            value = self.value(rows)
            value.backward()
            assert torch.isfinite(value)
            assert x.grad is not None and torch.isfinite(x.grad).all()


def test_saved_configs_of_the_draft_name_it_so() -> None:
    saved = {
        "contrastive": {"_target_": "hypvl.losses.uncertainty.UncertainContrastive", "form": "dense"},
        "calibration": {"_target_": "hypvl.losses.uncertainty.UncertaintyCalibration"},
        "entailment": {"_target_": "hypvl.losses.uncertainty.AngledEntailment"},
    }
    read = stored_data(saved, source="config.yaml")
    assert read["contrastive"] == {
        "_target_": "hypvl.losses.uncha_draft.DraftContrastive",
        "implementation": "dense",
    }
    assert read["calibration"]["_target_"] == "hypvl.losses.uncha_draft.DraftCalibration"
    assert read["entailment"] == saved["entailment"]


def test_it_says_that_it_is_not_the_published_objective() -> None:
    with pytest.warns(
        UserWarning, match=r"wrote from summaries of the paper; .* start a new run of configs/train_uncha"
    ):
        DraftContrastive()


def test_values_by_hand() -> None:
    """Two boxes at the root: u = log 2 each, so that every logit is divided by sqrt(2) and the entropy is log 2."""
    model = TestDraftContrastive().model()
    model.scorer.log_scale.data.zero_()
    whole = torch.tensor([[7.0, 0, 0, 0], [0, 9.0, 0, 0]], dtype=torch.float64)
    rows = {BOX_IMAGE: torch.zeros(2, 4, dtype=torch.float64), IMAGE: whole}
    contrast = DraftContrastive([(BOX_IMAGE, "image")])(context(model, rows)).item()
    margin = 2 / math.sqrt(2)
    expected = (math.log1p(math.exp(-margin)) + math.log1p(math.exp(margin))) / 2
    assert contrast == pytest.approx(expected, rel=1e-6)
    term = DraftCalibration(general=BOX_IMAGE, specific="image", angle_weight=0.0)
    value = term(context(model, rows)).item()  # pi/2 is inside the cone of the root: no loss
    assert value == pytest.approx(math.log(2) + math.log(2), rel=1e-9)
