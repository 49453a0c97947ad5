"""Which model it is."""

from typing import Literal

import torch

from hypvl.embedding.identity import model_fingerprint, model_identity, weights_version
from hypvl.evaluation.mean_removal import MeanRecorder
from hypvl.geometry.scorers import ExteriorAngle
from tests.evaluation.fakes import FakeModel
from tests.evaluation.modules import FakeModule


def test_weights_and_settings_make_the_identity() -> None:
    model = FakeModule()
    assert model_identity(model) == model_identity(FakeModule())
    assert model_identity(FakeModule(gain=2.0)) != model_identity(model)  # same weights
    assert model_fingerprint(FakeModule(gain=2.0).state_dict()) == model_fingerprint(model.state_dict())
    other = FakeModule()
    with torch.no_grad():
        other.table[1, 0] += 1e-6
    assert model_identity(other) != model_identity(model)


def test_training_mode_and_scorer_do_not_change_the_identity() -> None:
    class WithScorer(FakeModule):
        def __init__(self, ranking: Literal["trained", "published"]) -> None:
            super().__init__()
            self.scorer = ExteriorAngle(ranking=ranking)

    assert model_identity(WithScorer("trained").eval()) == model_identity(WithScorer("published").train())


def test_wrappers_have_no_identity_even_if_they_show_the_weights() -> None:
    wrapper = MeanRecorder(FakeModule())
    assert model_fingerprint(wrapper.state_dict())  # handed on
    assert model_identity(wrapper) is None and model_identity(FakeModel()) is None
    assert weights_version(wrapper) is None


def test_version_changes_with_weights_and_with_nothing_else() -> None:
    model = FakeModule()
    before = weights_version(model)
    with torch.inference_mode():
        model.encode_text(torch.ones(2, 3, dtype=torch.int64))
    assert weights_version(model) == before
    with torch.no_grad():
        model.table.add_(1.0)
    after = weights_version(model)
    assert after != before
    optimizer = torch.optim.AdamW(model.parameters())
    model.table.sum().backward()
    optimizer.step()
    assert weights_version(model) != after
    with torch.inference_mode():
        frozen = FakeModule()
    assert weights_version(frozen) is None and model_identity(frozen) is not None
