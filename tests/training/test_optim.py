import pytest
import torch
from torch import nn

from hypvl.encoders.heads import UnitProjectionHead
from hypvl.geometry.scorers import Cosine
from hypvl.losses.base import Objective
from hypvl.losses.cloob import CLOOB
from hypvl.losses.sigmoid import Sigmoid
from hypvl.training.freezing import freeze
from hypvl.training.optim import parameter_groups, warmup_cosine, warmup_cosine_multiplier
from hypvl.training.step import Learner
from tests.training.tiny import tiny_batch, tiny_learner, tiny_model


def test_multiplier_by_hand() -> None:
    def at(step: int) -> float:
        return warmup_cosine_multiplier(step, total_steps=110, warmup_steps=10)

    assert [at(0), at(5), at(10)] == [0.0, 0.5, 1.0]
    assert at(60) == pytest.approx(0.5)  # half way down: cos(pi/4)^2
    assert at(110) == pytest.approx(0.0, abs=1e-30)
    assert at(200) == pytest.approx(0.0, abs=1e-30)  # stays there


def test_schedule_refuses_a_warmup_as_long_as_the_run() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ValueError, match="warmup_steps: got 10; expected 0 to 9"):
        warmup_cosine(optimizer, total_steps=10, warmup_steps=10)


def test_groups_hold_every_trainable_parameter_once() -> None:
    learner = tiny_learner("meru")
    groups = parameter_groups(learner, weight_decay=0.2, gain_bias_decay=0.05)
    result = [id(p) for group in groups for p in group["params"]]
    assert sorted(result) == sorted(id(p) for p in learner.parameters() if p.requires_grad)
    by_decay = {group["weight_decay"]: group["params"] for group in groups}
    model = learner.model
    excluded = {id(p) for p in by_decay[0.0]}
    assert excluded == {
        id(model.geometry.log_curv),
        id(model.scorer.log_scale),
        id(model.visual_head.log_scale),
        id(model.textual_head.log_scale),
    }
    assert any(p is model.textual.ln_final.weight for p in by_decay[0.05])
    assert any(p is model.textual.resblocks[0].attn.in_proj_bias for p in by_decay[0.05])
    assert any(p is model.textual.token_embed.weight for p in by_decay[0.2])


def test_frozen_parameters_are_in_no_group() -> None:
    model = nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    groups = parameter_groups(model, weight_decay=0.1, gain_bias_decay=0.0)
    assert [len(group["params"]) for group in groups] == [1]


def test_all_but_the_named_are_frozen_and_get_no_gradient() -> None:
    learner = tiny_learner("meru")
    names = ["model.textual.ln_final.weight", "model.visual_head.projection.weight", "model.scorer.log_scale"]
    groups = parameter_groups(
        learner,
        weight_decay=0.2,
        gain_bias_decay=0.1,
        trainable=["model.textual.ln_final.weight", "*visual_head.proj*", "model.scorer.*"],
    )
    assert {n for n, p in learner.named_parameters() if p.requires_grad} == set(names)
    assert [len(group["params"]) for group in groups] == [1, 1, 1]
    learner(tiny_batch())[0].total.backward()
    assert {n for n, p in learner.named_parameters() if p.grad is not None} == set(names)


def test_scales_curvature_and_logit_biases_are_never_decayed() -> None:
    """Each module says so of its own; a bias of a linear layer stays decayed as the recipe asks."""
    model = tiny_model("meru")
    model.scorer = Cosine(bias_init=-10.0)
    model.visual_head = UnitProjectionHead(16, 12)
    terms = {"sigmoid": Sigmoid(bias_init=-10.0), "cloob": CLOOB(learn_inv_tau=True)}
    learner = Learner(model, Objective(terms))
    groups = parameter_groups(learner, weight_decay=0.2, gain_bias_decay=0.1)
    names = {id(p): name for name, p in learner.named_parameters()}
    undecayed = {names[id(p)] for group in groups if group["weight_decay"] == 0.0 for p in group["params"]}
    assert undecayed == {
        "model.scorer.log_scale", "model.scorer.bias", "model.geometry.log_curv", "model.textual_head.log_scale",
        "model.visual_head.log_scale", "model.visual_head.norm_power",
        "objective.terms.sigmoid.logit_bias", "objective.terms.cloob.log_inv_tau",
    }  # fmt: skip


def test_exclude_adds_to_what_is_never_decayed() -> None:
    learner = tiny_learner("clip")
    groups = parameter_groups(
        learner, weight_decay=0.2, gain_bias_decay=0.1, exclude=["posit_embed", "*.token_embed.*"]
    )
    names = {id(p): name for name, p in learner.named_parameters()}
    assert [names[id(p)] for p in groups[-1]["params"]] == [
        "model.textual.posit_embed", "model.textual.token_embed.weight", "model.scorer.log_scale",
    ]  # fmt: skip


def test_what_is_named_is_frozen_and_the_rest_trains() -> None:
    learner = tiny_learner("meru")
    fixed = {n for n, p in learner.named_parameters() if not p.requires_grad}
    parameter_groups(learner, weight_decay=0.2, gain_bias_decay=0.1, frozen=["model.textual.*", "*.log_curv"])
    frozen = {n for n, p in learner.named_parameters() if not p.requires_grad} - fixed
    assert frozen == {n for n, _ in learner.named_parameters() if "model.textual." in n} | {
        "model.geometry.log_curv"
    }
    both = tiny_learner("clip")
    parameter_groups(
        both, weight_decay=0, gain_bias_decay=0, trainable=["*_head.*"], frozen=["model.visual_head.*"]
    )
    trained = [n for n, p in both.named_parameters() if p.requires_grad]
    assert trained == ["model.textual_head.projection.weight"]
    with pytest.raises(
        ValueError, match=r"frozen: 'model\.text\.\*' names no trainable parameter; the closest is model\.t"
    ):
        parameter_groups(learner, weight_decay=0.2, gain_bias_decay=0.1, frozen=["model.text.*"])
    with pytest.raises(ValueError, match="they leave no parameter to train"):
        parameter_groups(learner, weight_decay=0.2, gain_bias_decay=0.1, frozen=["*"])
    with pytest.raises(
        ValueError, match=r"frozen: got 'model\.textual\.\*'; expected a list of names or patterns"
    ):
        freeze(learner, frozen="model.textual.*")


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "much"])
def test_decays_and_rates_have_a_range(value: float) -> None:
    learner = tiny_learner("clip")
    arguments = {"weight_decay": 0.2, "gain_bias_decay": 0.2}
    for wrong in ({"weight_decay": value}, {"gain_bias_decay": value}, {"lr": {"model.scorer.*": value}}):
        name = next(iter(wrong))
        with pytest.raises(ValueError, match=rf"{name}.*: got .*; expected a number of at least 0"):
            parameter_groups(learner, **{**arguments, **wrong})


def test_named_parameters_have_a_rate_of_their_own_through_the_schedule() -> None:
    learner = tiny_learner("meru")
    plain = parameter_groups(learner, weight_decay=0.2, gain_bias_decay=0.1)
    rates = {"*_head.log_scale": 0.5, "model.textual.ln_final.*": 0.25, "*.log_scale": 9.0}
    groups = parameter_groups(learner, weight_decay=0.2, gain_bias_decay=0.1, lr=rates)
    assert [(g["weight_decay"], g.get("lr")) for g in groups] == [
        (0.2, None), (0.1, None), (0.0, None), (0.0, 0.5), (0.1, 0.25), (0.0, 9.0),
    ]  # fmt: skip
    model = learner.model
    heads = [model.visual_head.log_scale, model.textual_head.log_scale]
    assert [id(p) for p in groups[3]["params"]] == [id(p) for p in heads]  # the first pattern that fits
    assert [id(p) for p in groups[5]["params"]] == [id(model.scorer.log_scale)]
    assert sum(len(g["params"]) for g in groups) == sum(len(g["params"]) for g in plain)
    optimizer = torch.optim.SGD(groups, lr=1.0)
    schedule = warmup_cosine(optimizer, total_steps=10, warmup_steps=2)
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5, 0.5, 0.25, 0.125, 4.5]


def test_a_rate_for_nothing_is_an_error() -> None:
    learner = tiny_learner("clip")
    with pytest.raises(ValueError, match=r"lr: '\*.norm_power' names no trainable parameter; the closest is"):
        parameter_groups(learner, weight_decay=0.2, gain_bias_decay=0.2, lr={"*.norm_power": 1e-3})
