"""Training loops that go wrong without a word elsewhere."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from hypvl import distributed
from hypvl.training.accumulation import GradCache, GradientAverage, naive_forward_backward
from hypvl.training.config import Accumulation, TrainConfig
from hypvl.training.optim import parameter_groups, warmup_cosine
from hypvl.training.run import _wrap
from hypvl.training.step import Learner, Precision, forward_backward, optimizer_step
from tests.ranks import run_ranks
from tests.training.tiny import rows_of, tiny_batch, tiny_learner

CPU = torch.device("cpu")
FULL = Precision.choose(False, CPU)


def gradients(
    module: nn.Module, learner: Learner, batch: dict[str, Any], **given: Any
) -> dict[str, torch.Tensor]:
    learner.zero_grad(set_to_none=True)
    forward_backward(module, batch, precision=FULL, scaler=FULL.make_scaler(), **given)
    return {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}


def with_spare_part(recipe: str = "meru") -> Learner:
    """A learner with a parameter that no loss term uses."""
    learner = tiny_learner(recipe).double()
    learner.model.register_parameter("spare", nn.Parameter(torch.ones(3, dtype=torch.float64)))
    return learner


def two_steps_with_spare_part() -> list[dict[str, torch.Tensor]]:
    learner = with_spare_part()
    settings = TrainConfig.read({"objective": {}, "total_batch_size": 8})
    module = _wrap(learner, settings, FULL, Accumulation())
    assert isinstance(module, nn.parallel.DistributedDataParallel)
    share = [rows_of(tiny_batch(8, seed=s), distributed.rank(), distributed.world_size()) for s in range(2)]
    return [gradients(module, learner, batch) for batch in share]


@pytest.mark.slow
def test_a_parameter_without_a_gradient_on_several_gpus() -> None:
    """MERU: DDP ends in "Expected to have finished reduction" where a part gets no gradient; the rest must train."""
    learner = with_spare_part()
    expected = [gradients(learner, learner, tiny_batch(8, seed=s)) for s in range(2)]
    assert "model.spare" not in expected[0]
    for result in run_ranks(2, two_steps_with_spare_part):
        for step in range(2):
            assert not result[step].get("model.spare", torch.zeros(1)).any()
            for name, gradient in expected[step].items():
                torch.testing.assert_close(result[step][name], gradient, rtol=1e-10, atol=1e-12, msg=name)


def test_accumulation_keeps_the_negatives() -> None:
    """open_clip: accumulated gradients of small batches have fewer negatives; `accumulate` must equal the batch."""
    learner = tiny_learner("clip").double()
    batch = tiny_batch(8)
    whole = gradients(learner, learner, batch)
    cached = gradients(learner, learner, batch, cache=GradCache(2, average=GradientAverage()))
    for name, gradient in whole.items():
        torch.testing.assert_close(cached[name], gradient, rtol=1e-9, atol=1e-12, msg=name)
    learner.zero_grad(set_to_none=True)
    parts = [rows_of(batch, i, 4) for i in range(4)]
    output, _ = naive_forward_backward(
        learner, parts, parts=4, precision=FULL, scaler=FULL.make_scaler(), average=GradientAverage()
    )
    with torch.no_grad():
        separate = torch.stack([learner(part)[0].total for part in parts]).mean()
        assert output.total.item() == pytest.approx(separate.item())
        assert output.total.item() < learner(batch)[0].total.item() - 0.5  # 2 classes each instead of 8


def test_the_scale_of_logits_stays_below_100() -> None:
    """CLIP: the learned temperature runs away and the loss becomes NaN; exp(log_scale) must never exceed 100."""
    learner = tiny_learner("clip")
    with torch.no_grad():
        learner.model.scorer.log_scale.fill_(50.0)
    learner.constrain_()
    assert learner.model.scorer.scale.item() == pytest.approx(100.0, rel=1e-4)
    with torch.no_grad():
        learner.model.scorer.log_scale.fill_(-3.0)
    learner.constrain_()
    assert learner.model.scorer.log_scale.item() == -3.0  # only the upper end is bounded


def test_an_overflow_in_the_first_step_is_skipped() -> None:
    """MERU: fp16 overflows in the first steps, and the schedule and the moments move all the same; nothing may move."""
    learner = tiny_learner("clip")
    optimizer = torch.optim.AdamW(learner.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    output, _ = learner(tiny_batch(8))
    scaler.scale(output.total).backward()
    next(learner.model.visual_head.parameters()).grad.fill_(math.inf)  # type: ignore[union-attr]
    _, stepped = optimizer_step(
        optimizer, learner.parameters(), scaler=scaler, clip_norm=1.0, loss=output.total
    )
    assert not stepped
    assert scaler.get_scale() == 2.0**39
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())
    assert not optimizer.state
    output, _ = learner(tiny_batch(8))
    scaler.scale(output.total).backward()
    _, stepped = optimizer_step(
        optimizer, learner.parameters(), scaler=scaler, clip_norm=1.0, loss=output.total
    )
    assert stepped
    assert all(parameter.grad is None for parameter in learner.parameters())


def test_scales_and_biases_are_not_decayed() -> None:
    """CLIP: weight decay on temperatures, gains and biases; the default groups must leave them out."""
    learner = tiny_learner("meru")
    groups = parameter_groups(learner, weight_decay=0.2, gain_bias_decay=0.0)
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    named = {name: decay[id(p)] for name, p in learner.named_parameters() if p.requires_grad}
    for name in ("model.scorer.log_scale", "model.geometry.log_curv", "model.visual_head.log_scale"):
        assert named[name] == 0.0
    assert named["model.visual_head.projection.weight"] == 0.2


def test_the_schedule_ends_at_zero_and_stays_there() -> None:
    """timm: a schedule counted in epochs ends early or rises again; counted in steps it must end at 0 with the run."""
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = warmup_cosine(optimizer, total_steps=8, warmup_steps=4)
    rates = []
    for _ in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    right = [0.0, 0.25, 0.5, 0.75, *(math.cos(math.pi * i / 8) ** 2 for i in range(4)), 0.0, 0.0, 0.0, 0.0]
    assert rates == pytest.approx(right)


def test_a_batch_of_one_has_a_loss() -> None:
    """open_clip: a batch of one sample is an error or NaN; with nothing to tell apart the loss is 0 and finite."""
    learner = tiny_learner("clip")
    assert learner(tiny_batch(1))[0].total.item() == pytest.approx(0.0, abs=1e-6)
