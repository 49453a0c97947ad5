"""scheduler_optim.json: learning-rate multipliers, the rates an optimizer sees, weight-decay groups."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hypvl.config import LazyConfig, instantiate
from hypvl.training.optim import parameter_groups, warmup_cosine, warmup_cosine_multiplier
from tests.parity.recipes import official_to_ours
from tests.parity.reference import cases

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize("case", cases("scheduler_optim", "schedule"))
def test_multipliers(case: dict[str, Any]) -> None:
    total, warmup = case["total_steps"], case["warmup_steps"]
    for step, expected in case["multipliers"].items():
        result = warmup_cosine_multiplier(int(step), total_steps=total, warmup_steps=warmup)
        # Differs: the published schedule rises again after the last step, ours stays at 0
        assert result == pytest.approx(expected if int(step) <= total else 0.0, rel=1e-12, abs=1e-15), step


@pytest.mark.parametrize("case", cases("scheduler_optim"))
def test_rates_an_optimizer_sees(case: tuple[str, Any]) -> None:
    key, walk = case
    if key != "schedule_walk":
        return
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=walk["base_lr"])
    schedule = warmup_cosine(optimizer, total_steps=walk["total_steps"], warmup_steps=walk["warmup_steps"])
    for expected in walk["lr_used_by_optimizer_step_1_2_3_etc"]:
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-12, abs=1e-18)
        parameter.grad = torch.zeros(1)
        optimizer.step()
        schedule.step()


@pytest.fixture(scope="module")
def models() -> dict[str, torch.nn.Module]:
    return {
        family: instantiate(LazyConfig.load(CONFIGS / f"train_{family.lower()}_vit_s.py").model)
        for family in ("CLIP", "MERU", "ATMG")
    }


@pytest.mark.parametrize("case", cases("scheduler_optim", "param_groups"))
def test_parameter_groups(case: tuple[str, Any], models: dict[str, torch.nn.Module]) -> None:
    key, expected = case
    model = models[key.split("_")[0]]
    if key.endswith("_excluded_group_names"):
        groups = parameter_groups(model, weight_decay=0.2, gain_bias_decay=0.2)
        ours = official_to_ours(model)
        result = {name for name, p in model.named_parameters() if any(p is q for q in groups[-1]["params"])}
        assert result == {ours[name] for name in expected[0]}
        return
    decays = [group["weight_decay"] for group in expected]
    groups = parameter_groups(model, weight_decay=decays[0], gain_bias_decay=decays[1])
    ours = dict(model.named_parameters())
    published = {id(ours[own]): official for official, own in official_to_ours(model).items() if own in ours}
    assert len(groups) == len(expected)
    for group, wanted in zip(groups, expected, strict=True):
        parameters = group["params"]
        assert group["weight_decay"] == pytest.approx(wanted["weight_decay"])
        assert len(parameters) == wanted["n_tensors"]
        if "n_values" in wanted:
            assert sum(p.numel() for p in parameters) == wanted["n_values"]
        if "names" in wanted:
            assert {published[id(p)] for p in parameters} == set(wanted["names"])
