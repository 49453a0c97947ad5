from typing import Any

import pytest
import torch
from torch import nn

from hypvl.encoders.conv_vit import ConvStemViT
from hypvl.encoders.heads import UnitProjectionHead
from hypvl.encoders.image import TimmImageEncoder
from hypvl.encoders.text import TextTransformer
from hypvl.geometry.scorers import Cosine
from hypvl.losses.base import Objective
from hypvl.losses.cloob import CLOOB
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.sigmoid import Sigmoid
from hypvl.models.dual_encoder import DualEncoder
from hypvl.training.freezing import freeze
from hypvl.training.optim import (
    layer_scale,
    parameter_groups,
    scale_rates_,
    warmup_cosine,
    warmup_cosine_multiplier,
)
from hypvl.training.step import Learner
from tests.training.tiny import tiny_batch, tiny_learner, tiny_model


def small_model() -> DualEncoder:
    """A vision transformer of two blocks and a text transformer of three."""
    model = tiny_model("clip")
    model.visual = ConvStemViT(16, 2, heads=2, image_size=16, patch_size=4, pool="class_token")
    model.textual = TextTransformer("L3_W16_A2", vocab_size=50, context_length=8)
    return model


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


def test_decayed_takes_away_from_what_is_never_decayed() -> None:
    """PHyCLIP as it was published: its scalars are decayed like matrices, the logit scale is not."""
    learner = tiny_learner("meru")
    patterns = ["model.geometry.log_curv", "model.*_head.log_scale"]
    groups = parameter_groups(learner, weight_decay=0.2, gain_bias_decay=0.1, decayed=patterns)
    names = {id(p): name for name, p in learner.named_parameters()}
    matrices, *_, excluded = ([names[id(p)] for p in group["params"]] for group in groups)
    assert excluded == ["model.scorer.log_scale"]
    assert {"model.geometry.log_curv", "model.visual_head.log_scale", "model.textual_head.log_scale"} <= {
        *matrices
    }
    with pytest.raises(ValueError, match=r"decayed: got model\.geometry\.log_curv, which exclude names too"):
        parameter_groups(
            learner, weight_decay=0.2, gain_bias_decay=0.1, decayed=patterns, exclude=patterns[:1]
        )
    with pytest.raises(ValueError, match="decayed"):
        parameter_groups(learner, weight_decay=0.2, gain_bias_decay=0.1, decayed=["model.nothing"])


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


def rates_of(learner: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    return {name: rates[id(p)] for name, p in learner.named_parameters() if id(p) in rates}


def decayed(learner: nn.Module, **arguments: Any) -> dict[str, float]:
    """Rates of SGD at 1.0, by name."""
    groups = parameter_groups(learner, weight_decay=0.2, gain_bias_decay=0.1, **arguments)
    optimizer = torch.optim.SGD(groups, lr=1.0)
    scale_rates_(optimizer)
    return rates_of(learner, optimizer)


def test_layer_scale_by_hand() -> None:
    """BEiT's: gamma^(L + 1 - i), of 2 blocks."""
    scales = [layer_scale(i, blocks=2, gamma=0.5) for i in range(4)]
    assert scales == [0.125, 0.25, 0.5, 1.0]
    scales = [layer_scale(i, blocks=2, gamma=0.5, backbone_scale=0.1) for i in range(4)]
    assert scales == pytest.approx([0.0125, 0.025, 0.05, 1.0])  # the last one without it


def test_rates_decay_towards_the_input_of_each_encoder() -> None:
    learner = Learner(small_model(), Objective({"contrastive": Contrastive()}))
    rates = decayed(learner, layer_decay={"model.visual": 0.5, "model.textual": 0.1})
    expected = {
        # the vision transformer, of two blocks
        "model.visual.cls_token": 0.125, "model.visual.stem.0.weight": 0.125,
        "model.visual.blocks.0.attn.qkv.weight": 0.25, "model.visual.blocks.1.norm2.bias": 0.5,
        "model.visual.norm.weight": 1.0,
        # the text transformer, of three
        "model.textual.token_embed.weight": 1e-4, "model.textual.posit_embed": 1e-4,
        "model.textual.resblocks.0.ln_1.weight": 1e-3, "model.textual.resblocks.1.ln_1.weight": 1e-2,
        "model.textual.resblocks.2.mlp.c_fc.bias": 1e-1, "model.textual.ln_final.bias": 1.0,
        # everything else
        "model.visual_head.projection.weight": 1.0, "model.scorer.log_scale": 1.0,
    }  # fmt: skip
    assert {name: rates[name] for name in expected} == pytest.approx(expected)
    assert set(rates) == {name for name, p in learner.named_parameters() if p.requires_grad}


def test_rates_decay_over_the_stages_of_a_resnet() -> None:
    learner = tiny_learner("clip")
    learner.model.visual = TimmImageEncoder("resnet10t", image_size=32)
    rates = decayed(learner, layer_decay={"model.visual": 0.5}, backbone_scale={"model.visual": 0.25})
    found = {name.split(".")[3]: rate for name, rate in rates.items() if name.startswith("model.visual.")}
    scale = {"layer4": 2**-3, "layer3": 2**-4, "layer2": 2**-5, "layer1": 2**-6, "conv1": 2**-7, "bn1": 2**-7}
    assert found == pytest.approx(scale)
    assert rates["model.textual.ln_final.weight"] == 1.0


def test_the_schedule_and_own_rates_multiply_the_scales() -> None:
    learner = Learner(small_model(), Objective({"contrastive": Contrastive()}))
    groups = parameter_groups(
        learner, weight_decay=0.2, gain_bias_decay=0.1,
        lr={"model.visual.norm.*": 3.0, "model.visual.blocks.1.*": 4.0}, layer_decay={"model.visual": 0.5},
    )  # fmt: skip
    assert "lr_scale" not in groups[0]  # the rate in the log
    optimizer = torch.optim.SGD(groups, lr=1.0)
    scale_rates_(optimizer)
    schedule = warmup_cosine(optimizer, total_steps=10, warmup_steps=2)
    optimizer.step()
    schedule.step()
    rates = rates_of(learner, optimizer)
    expected = {
        "model.visual.norm.weight": 1.5, "model.visual.blocks.1.attn.qkv.weight": 1.0,
        "model.visual.blocks.0.attn.qkv.weight": 0.125, "model.textual.ln_final.weight": 0.5,
    }  # fmt: skip
    assert {name: rates[name] for name in expected} == pytest.approx(expected)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    norm, block = learner.model.visual.norm, learner.model.visual.blocks[0]
    assert (decays[id(norm.weight)], decays[id(block.attn.qkv.weight)]) == (0.1, 0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"layer_decay": {"model.visual": 0}},
            r"layer_decay\.model\.visual: got 0; expected .* above 0 and up to 1",
        ),
        ({"layer_decay": {"model.visual": 1.5}}, r"layer_decay\.model\.visual: got 1\.5"),
        (
            {"backbone_scale": {"model.visual": 0}},
            r"backbone_scale\.model\.visual: got 0; expected .* above 0",
        ),
        (
            {"layer_decay": {"model.vision": 0.5}},
            r"layer_decay: got 'model\.vision'; expected .* encoder; the closest",
        ),
        ({"backbone_scale": {"": 0.5}}, r"backbone_scale: got ''; expected the name"),
        (
            {"layer_decay": {"model.scorer": 0.5}},
            r"layer_decay\.model\.scorer: Cosine has no row of numbered blocks",
        ),
        (
            {"layer_decay": {"model.textual": 0.5, "model": 0.5}},
            r"layer_decay\.model: lies in another encoder that is named, too",
        ),
    ],
)
def test_layer_decay_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decayed(Learner(small_model(), Objective({"contrastive": Contrastive()})), **arguments)
