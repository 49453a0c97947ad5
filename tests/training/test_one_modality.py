"""Models of texts only and of images only, trained through the learner: gradient caching and two processes."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hypvl import distributed
from hypvl.encoders.conv_vit import ConvStemViT
from hypvl.encoders.heads import ProjectionHead
from hypvl.encoders.text import TextTransformer
from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import Objective
from hypvl.losses.class_cross_entropy import ClassCrossEntropy
from hypvl.losses.simcse import SimCSE
from hypvl.models.dual_encoder import DualEncoder
from hypvl.training.accumulation import GradCache
from hypvl.training.step import Learner, Precision, forward_backward
from tests.ranks import run_ranks
from tests.training.tiny import ragged_batch, rows_of

FULL = Precision.choose(False, torch.device("cpu"))
LABELS = torch.tensor([0, 3, -1, 2, 1, 1, 0, 2])


def text_only(*, dropout: float = 0.0) -> Learner:
    torch.manual_seed(0)
    text = TextTransformer("L1_W16_A2", vocab_size=50, context_length=8, dropout=dropout)
    model = DualEncoder(
        None, text, textual_head=lambda width: ProjectionHead(width, 12), geometry=Sphere(), scorer=Cosine()
    )
    return Learner(model, Objective({"simcse": SimCSE()})).double().train()


def image_only() -> Learner:
    torch.manual_seed(0)
    image = ConvStemViT(16, 1, heads=2, image_size=16, patch_size=4)
    model = DualEncoder(
        image, None, visual_head=lambda width: ProjectionHead(width, 4), geometry=Sphere(), scorer=Cosine()
    )
    return Learner(model, Objective({"classes": ClassCrossEntropy(view="image")})).double().train()


LEARNERS = {"text": text_only, "image": image_only}


def batch() -> dict[str, Any]:
    return ragged_batch() | {"labels": LABELS}


def gradients(learner: Learner, micro_batch: int | None = None) -> dict[str, Tensor]:
    learner.zero_grad(set_to_none=True)
    torch.manual_seed(5)
    cache = None if micro_batch is None else GradCache(micro_batch)
    forward_backward(learner, batch(), precision=FULL, scaler=FULL.make_scaler(), cache=cache)
    return {key: p.grad for key, p in learner.named_parameters() if p.grad is not None}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys() and any(g.abs().max() > 1e-6 for g in found.values())
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("which", LEARNERS)
def test_gradient_caching_gives_the_same_gradients(which: str) -> None:
    learner = LEARNERS[which]()
    same(gradients(learner, 3), gradients(learner))


def test_dropout_is_drawn_again_as_it_was() -> None:
    """With a micro-batch of the batch the direct step has the same random numbers; the two views have others."""
    learner = text_only(dropout=0.2)
    direct = gradients(learner)
    same(gradients(learner, 8), direct)
    output, ctx = learner(batch())
    first, second = (ctx.features(view) for view in learner.views)
    assert (first - second).abs().max() > 1e-3
    torch.manual_seed(6)
    assert not torch.equal(learner(batch())[0].total, output.total)


def test_steps_reduce_the_loss() -> None:
    for which, make in LEARNERS.items():
        learner = make()
        optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-2)
        values = []
        for _ in range(15):
            output, ctx = learner(batch())
            output.total.backward()
            optimizer.step()
            optimizer.zero_grad()
            learner.update_(ctx)
            values.append(output.total.item())
        assert values[-1] < values[0] - 0.05, which


def _ddp_gradients() -> dict[str, dict[str, Tensor]]:
    """Of two steps, the averaged gradients."""
    results = {}
    for which, make in LEARNERS.items():
        learner: nn.Module = make()
        module = learner
        if distributed.world_size() > 1:
            module = nn.parallel.DistributedDataParallel(learner, static_graph=True, broadcast_buffers=False)
        for _ in range(2):
            learner.zero_grad(set_to_none=True)
            rows = rows_of(batch(), distributed.rank(), distributed.world_size())
            module(rows)[0].total.backward()
        results[which] = {key: p.grad for key, p in learner.named_parameters() if p.grad is not None}
    return results


def test_two_processes_equal_one() -> None:
    one = _ddp_gradients()
    for two in run_ranks(2, _ddp_gradients):
        for which, expected in one.items():
            found = {key: two[which][key] for key in expected}
            same(found, expected)
