"""Rates and weight decay of each parameter group, step by step."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from hypvl.errors import ConfigError
from hypvl.training.optim import build_optimizer, parameter_groups, warmup_cosine
from hypvl.training.schedules import (
    GroupSchedule,
    constant,
    cosine_between,
    half_cosine,
    half_cosine_multiplier,
)
from hypvl.training.state import set_step
from tests.training.tiny import tiny_learner

Make = Callable[..., GroupSchedule]


def optimizer_of(*groups: dict[str, Any], lr: float = 1.0) -> torch.optim.Optimizer:
    defaults: list[Any] = [
        {"params": [nn.Parameter(torch.zeros(1))]} | dict(group) for group in groups or ({},)
    ]
    return torch.optim.SGD(defaults, lr=lr)


def walk(schedule: GroupSchedule, steps: int, *, key: str = "lr") -> list[list[float]]:
    """The value of each group in each step."""
    optimizer, values = schedule.optimizer, []
    for _ in range(steps):
        values.append([group[key] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return [list(column) for column in zip(*values, strict=True)]


def test_half_cosine_by_hand() -> None:
    """A warm-up of 4 steps, then 1, 3/4, 1/2, 1/4 of half a cosine over 4, and 0."""
    assert [half_cosine_multiplier(s, total_steps=8, warmup_steps=4) for s in range(4)] == [
        0.25,
        0.5,
        0.75,
        1.0,
    ]
    after = [half_cosine_multiplier(s, total_steps=8, warmup_steps=4) for s in (4, 5, 6, 7, 8, 20)]
    root = math.sqrt(0.5)
    assert after == pytest.approx([1.0, (1 + root) / 2, 0.5, (1 - root) / 2, 0.0, 0.0])
    assert half_cosine_multiplier(0, total_steps=8, warmup_steps=0) == 1.0


def test_rates_of_half_cosine_and_constant() -> None:
    assert walk(half_cosine(optimizer_of(lr=2.0), total_steps=4, warmup_steps=2), 5) == [
        pytest.approx([1.0, 2.0, 2.0, 1.0, 0.0])
    ]
    assert walk(constant(optimizer_of(lr=2.0), total_steps=4), 5) == [[2.0] * 5]
    assert walk(constant(optimizer_of(lr=2.0), total_steps=9, warmup_steps=4), 5) == [
        [0.5, 1.0, 1.5, 2.0, 2.0]
    ]


def test_each_group_runs_in_its_window() -> None:
    """ProtoCLIP: the image encoder until step 6, then 0 (LiT); the rest from step 2 to 10."""
    optimizer = optimizer_of({"window": (0, 6)}, {"window": (2, None)}, {})
    visual, rest, other = walk(half_cosine(optimizer, total_steps=10, warmup_steps=2), 11)
    assert visual == pytest.approx(
        [0.5, 1.0, 1.0, 0.8535534, 0.5, 0.1464466, 0.0, 0.0, 0.0, 0.0, 0.0], abs=1e-7
    )
    assert rest[:2] == [0.0, 0.0]
    expected = [half_cosine_multiplier(s, total_steps=8, warmup_steps=2) for s in range(9)]
    assert rest[2:] == pytest.approx(expected)
    assert rest[2:5] == [0.5, 1.0, 1.0]
    assert other == [half_cosine_multiplier(s, total_steps=10, warmup_steps=2) for s in range(11)]
    steady = walk(constant(optimizer_of({"window": (1, 3)}), total_steps=4), 4)
    assert steady == [[0.0, 1.0, 1.0, 0.0]]


def test_windows_of_the_published_schedule() -> None:
    optimizer = optimizer_of({"window": (10, 30)})
    (rates,) = walk(warmup_cosine(optimizer, total_steps=100, warmup_steps=10), 31)
    assert rates[:11] == [0.0] * 11
    assert (rates[15], rates[20], rates[25]) == pytest.approx((0.5, 1.0, 0.5))
    assert rates[30] == 0.0


def test_weight_decay_moves_by_half_a_cosine() -> None:
    """DINO: 0.04 to 0.4; a quarter, a half and the whole of the run."""
    assert cosine_between(0.04, 0.4, step=0, steps=8) == pytest.approx(0.04)
    assert cosine_between(0.04, 0.4, step=2, steps=8) == pytest.approx(0.4 - 0.36 * (1 + math.sqrt(0.5)) / 2)
    assert cosine_between(0.04, 0.4, step=4, steps=8) == pytest.approx(0.22)
    assert cosine_between(0.04, 0.4, step=9, steps=8) == 0.4
    groups = parameter_groups(
        tiny_learner("clip"), weight_decay=0.04, weight_decay_end=0.4, gain_bias_decay=0.02
    )
    optimizer = torch.optim.SGD(groups, lr=1.0)
    decays = walk(constant(optimizer, total_steps=4), 5, key="weight_decay")
    assert decays[0] == pytest.approx(
        [0.04, 0.4 - 0.36 * (2 + math.sqrt(2)) / 4, 0.22, 0.4 - 0.36 * (2 - math.sqrt(2)) / 4, 0.4]
    )
    assert decays[1:] == [[0.02] * 5, [0.0] * 5]  # gains and biases, and what is excluded


@pytest.mark.parametrize("make", [half_cosine, warmup_cosine, constant])
def test_a_resumed_schedule_has_the_rates_and_decays_of_its_step(make: Make) -> None:
    def fresh() -> GroupSchedule:
        groups = [{"window": (3, 9), "weight_decay": 0.1}, {"weight_decay": 0.04, "weight_decay_end": 0.4}]
        return make(optimizer_of(*groups), total_steps=12, warmup_steps=2)

    straight = fresh()
    for step in range(1, 12):
        straight.optimizer.step()
        straight.step()
        resumed = fresh()
        set_step(resumed, step)
        for key in ("lr", "weight_decay"):
            values = [[group[key] for group in s.optimizer.param_groups] for s in (straight, resumed)]
            assert values[0] == values[1], (step, key)
        assert straight.last_epoch == resumed.last_epoch == step


def test_a_checkpoint_can_hold_the_state(tmp_path: Any) -> None:
    optimizer = optimizer_of({"window": (0, 2), "weight_decay": 0.04, "weight_decay_end": 0.4})
    schedule = half_cosine(optimizer, total_steps=4, warmup_steps=1)
    path = tmp_path / "state.pth"
    torch.save({"schedule": schedule.state_dict(), "optimizer": optimizer.state_dict()}, path)
    assert torch.load(path, weights_only=True)["schedule"]["last_epoch"] == 0


def test_parameters_are_grouped_by_window() -> None:
    learner = tiny_learner("clip")
    groups = parameter_groups(
        learner,
        weight_decay=0.2,
        gain_bias_decay=0.1,
        windows={"model.visual*": [0, 6], "model.textual*": [2, None]},
    )
    names = {id(p): name for name, p in learner.named_parameters()}
    by_window: dict[Any, set[str]] = {}
    for group in groups:
        by_window.setdefault(group.get("window"), set()).update(names[id(p)] for p in group["params"])  # type: ignore[attr-defined]
    assert by_window.keys() == {None, (0, 6), (2, None)}
    assert by_window[None] == {"model.scorer.log_scale"}
    assert {name.split(".")[1] for name in by_window[0, 6]} == {"visual", "visual_head"}
    assert {name.split(".")[1] for name in by_window[2, None]} == {"textual", "textual_head"}


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        (
            {"model.visual.*": [5, 5]},
            r"windows\.model\.visual\.\*\.1: got 5; expected a whole number of at least 6",
        ),
        (
            {"model.visual.*": [-1, 5]},
            r"windows\.model\.visual\.\*\.0: got -1; expected a whole number of at least 0",
        ),
        ({"model.visual.*": 5}, r"windows\.model\.visual\.\*: got 5; expected two steps, \[start, end\]"),
        ({"model.visual.*": "ab"}, r"windows\.model\.visual\.\*: got 'ab'; expected two steps"),
        (
            {"model.image.*": [0, 5]},
            r"windows: 'model\.image\.\*' names no trainable parameter; the closest is",
        ),
    ],
)
def test_windows_that_are_none(windows: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parameter_groups(tiny_learner("clip"), weight_decay=0.2, gain_bias_decay=0.1, windows=windows)


@pytest.mark.parametrize("make", [half_cosine, warmup_cosine, constant])
def test_schedules_out_of_range(make: Make) -> None:
    with pytest.raises(ValueError, match="warmup_steps: got 10; expected 0 to 9 for total_steps 10"):
        make(optimizer_of(), total_steps=10, warmup_steps=10)
    with pytest.raises(ValueError, match="total_steps: got 0; expected a whole number of at least 1"):
        make(optimizer_of(), total_steps=0, warmup_steps=0)
    with pytest.raises(ValueError, match=r"warmup_steps: got 4; expected 0 to 3 for the window \[2, 6\]"):
        make(optimizer_of({"window": (2, 6)}), total_steps=10, warmup_steps=4)
    with pytest.raises(
        ValueError, match=r"the window \[10, null\] of .* begins after all of the total_steps=10"
    ):
        make(optimizer_of({"window": (10, None)}), total_steps=10, warmup_steps=0)


def test_a_schedule_of_torch_is_refused_where_groups_ask_for_more() -> None:
    optim: dict[str, Any] = {
        "parameters": {
            "_target_": "hypvl.training.optim.parameter_groups", "_partial_": True,
            "weight_decay": 0.2, "gain_bias_decay": 0.2,
        },
        "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1},
        "lr_scheduler": {"_target_": "torch.optim.lr_scheduler.ExponentialLR", "_partial_": True, "gamma": 0.9},
    }  # fmt: skip
    build_optimizer(OmegaConf.create(optim), tiny_learner("clip"))
    optim["parameters"]["weight_decay_end"] = 0.4
    with pytest.raises(ConfigError, match=r"optim\.lr_scheduler: is a ExponentialLR, which knows no windows"):
        build_optimizer(OmegaConf.create(optim), tiny_learner("clip"))
    optim["parameters"]["weight_decay_end"] = -1
    with pytest.raises(
        ConfigError, match=r"^optim\.parameters\.weight_decay_end: got -1; expected a number of at"
    ):
        build_optimizer(OmegaConf.create(optim), tiny_learner("clip"))
