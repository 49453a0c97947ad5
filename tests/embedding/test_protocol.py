"""Counting what an image goes through."""

import torch

from hypvl.embedding.protocol import count_parameters
from tests.evaluation.fakes import FakeModel
from tests.evaluation.probes.test_fine_tune import SmallModel


def test_only_parameters_that_images_pass_are_counted_as_backbone() -> None:
    model = SmallModel(hidden=8)
    model.visual[0].requires_grad_(False)
    model.train()
    assert count_parameters(model) == (3 * 8 + 8 + 8 * 2 + 2 + 6, 3 * 8 + 8 + 8 * 2 + 2)  # type: ignore[arg-type]
    assert (
        model.training and model.visual[3].weight.requires_grad and not model.visual[0].weight.requires_grad
    )
    assert all(p.grad is None for p in model.parameters())


def test_images_may_pass_no_parameter() -> None:
    with torch.no_grad():
        assert count_parameters(FakeModel()) == (18, 0)
