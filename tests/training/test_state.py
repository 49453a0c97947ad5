"""A run goes on with the moments it had and the rates it is given now; parameters are known by name."""

import copy
import weakref
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LRScheduler

from hypvl.errors import CheckpointError, ConfigError
from hypvl.training.hooks.metrics import Metrics
from hypvl.training.loop import Trainer
from hypvl.training.optim import parameter_groups, warmup_cosine
from hypvl.training.state import TrainState, set_step
from hypvl.training.step import Precision
from tests.training.tiny import tiny_batch, tiny_learner

CPU = torch.device("cpu")


class Data:
    """What a state asks of a loader."""

    class Bad:
        def state_dict(self) -> dict[str, Any]:
            return {}

        of_this_rank = state_dict

        def load_state_dict(self, state: Mapping[str, Any]) -> None: ...

        def merged(self, states: list[dict[str, Any]]) -> "Data.Bad":
            return self

    bad = Bad()

    def state(self, consumed: int) -> dict[str, int]:
        return {"consumed": consumed}

    def check_resume(self, state: Mapping[str, Any]) -> None: ...


def state(
    recipe: str = "meru", *, amp: Any = "fp32", groups: Mapping[str, Any] | None = None, **adam: Any
) -> TrainState:
    learner = tiny_learner(recipe)
    asked = {"weight_decay": 0.2, "gain_bias_decay": 0.1, **(groups or {})}
    optimizer = torch.optim.AdamW(parameter_groups(learner, **asked), **{"lr": 1e-2, **adam})
    precision = Precision.choose(amp, CPU)
    trainer = Trainer(
        learner=learner, module=learner, optimizer=optimizer,
        scheduler=warmup_cosine(optimizer, total_steps=10, warmup_steps=2),
        loader=[], precision=precision, scaler=torch.amp.GradScaler("cpu", enabled=amp == "fp16"),
        num_iterations=10, global_batch_size=8, epoch_size=8,
    )  # fmt: skip
    return TrainState(trainer, Data(), Metrics(period=100))  # type: ignore[arg-type]  # it asks for no more


def step(made: TrainState, count: int = 1) -> TrainState:
    trainer = made.trainer
    for seed in range(trainer.iteration, trainer.iteration + count):
        trainer.optimizer.zero_grad()
        trainer.learner(tiny_batch(seed=seed))[0].total.backward()
        trainer.optimizer.step()
        trainer.scheduler.step()
        trainer.iteration += 1
    return made


def weights(made: TrainState) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in made.trainer.learner.named_parameters()}


def moments(made: TrainState) -> dict[str, torch.Tensor]:
    optimizer = made.trainer.optimizer
    return {
        name: optimizer.state[p]["exp_avg"]
        for name, p in made.trainer.learner.named_parameters()
        if p in optimizer.state
    }


@pytest.fixture(scope="module")
def after_four() -> dict[str, Any]:
    return step(state(), 4).state_dict()


@pytest.fixture
def saved(after_four: dict[str, Any]) -> dict[str, Any]:
    """As from a file: the run that goes on takes the moments for its own."""
    return copy.deepcopy(after_four)


def resumed(saved: Mapping[str, Any], **arguments: Any) -> TrainState:
    made = state(**arguments)
    made.load_state_dict(saved)
    made.trainer.iteration = int(saved["iteration"])
    return made


def test_the_same_settings_go_on_bit_for_bit(saved: dict[str, Any]) -> None:
    whole, again = step(state(), 7), step(resumed(saved), 3)
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(whole).items())


def test_new_rates_decays_betas_and_epsilon_take_effect(saved: dict[str, Any]) -> None:
    new = {"lr": 1e-9, "betas": (0.5, 0.6), "eps": 1e-3}
    made = resumed(saved, **new, groups={"weight_decay": 0.0, "gain_bias_decay": 0.0})
    scale = 0.8535533905932737  # the schedule after 4 of 10 steps: cos(pi/2 (4 - 2) / (10 - 2))^2
    for group in made.trainer.optimizer.param_groups:
        assert group["lr"] == pytest.approx(1e-9 * scale, rel=1e-12)
        assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.5, 0.6), 1e-3, 0.0)
    assert all(s["step"] == 4 for s in made.trainer.optimizer.state.values())
    before = weights(made)
    after = weights(step(made))
    moved = max((after[n] - before[n]).abs().max().item() for n in before)
    assert 0 < moved < 1e-7


def test_moments_follow_names_into_other_groups(saved: dict[str, Any]) -> None:
    before = step(state(), 4)
    other = {"exclude": ["*.token_embed.*"], "lr": {"model.visual.*": 1e-3}}
    made = resumed(saved, groups=other)
    names = [n for n, _ in made.trainer.learner.named_parameters()]
    assert made.optimized() != before.optimized()  # another order
    expected = moments(before)
    assert all(torch.equal(value, moments(made)[name]) for name, value in expected.items())
    assert set(names) >= set(expected)


def test_other_parameters_are_refused_by_name(saved: dict[str, Any]) -> None:
    with pytest.raises(
        CheckpointError, match=r"--resume: .*other parameters.*\(model\.textual\.ln_final.*only one of"
    ):
        resumed(saved, groups={"frozen": ["model.textual.ln_final.*"]})
    with pytest.raises(CheckpointError, match=r"model\.scorer\.log_scale"):
        resumed(step(state(groups={"frozen": ["model.scorer.*"]})).state_dict())


def test_fp16_needs_the_scaler_of_the_run(saved: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigError, match=r"^--resume: train\.amp is fp16 now, but the run had no loss scaler"
    ):
        resumed(saved, amp="fp16")
    with_scaler = {**saved, "scaler": torch.amp.GradScaler("cpu", init_scale=8.0).state_dict()}
    assert resumed(with_scaler, amp="fp16").trainer.scaler.get_scale() == 8.0
    assert not resumed(with_scaler, amp="fp32").trainer.scaler.is_enabled()  # fp16 may become fp32


def test_an_objective_with_other_state_is_one_sentence(saved: dict[str, Any]) -> None:
    with pytest.raises(
        CheckpointError, match=r"^--resume: the objective .* another state .*steps.*; restore train\.obj"
    ):
        resumed({**saved, "objective": {"steps": torch.tensor(3)}})


@pytest.mark.parametrize(
    "make", [lambda o: ExponentialLR(o, 0.5), lambda o: CosineAnnealingLR(o, 7)], ids=["exp", "cos"]
)
def test_any_schedule_can_be_set_to_a_step(make: Any) -> None:
    def new() -> LRScheduler:
        made: LRScheduler = make(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1))
        return made

    walked, jumped = new(), new()
    for _ in range(5):
        walked.optimizer.step()
        walked.step()
    set_step(jumped, 5)
    assert jumped.get_last_lr() == walked.get_last_lr()
    assert jumped.last_epoch == 5


def test_weights_of_the_checkpoint_do_not_stay(saved: dict[str, Any]) -> None:
    """Moments are taken over; the file's weights are copied and need not be kept."""
    content = {**saved, "model": {k: v.clone() for k, v in saved["model"].items()}}
    watched = [weakref.ref(v) for v in content["model"].values()]
    made = resumed(content)
    del content
    assert made is not None and all(ref() is None for ref in watched)
