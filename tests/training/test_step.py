import pytest
import torch
from torch import nn

from hypvl import distributed
from hypvl.training.step import Precision, forward_backward, optimizer_step, to_device
from tests.ranks import run_ranks
from tests.training.tiny import tiny_batch, tiny_learner

CPU = torch.device("cpu")


def test_bf16_step_keeps_geometry_and_loss_in_fp32() -> None:
    learner = tiny_learner("meru")
    precision = Precision.choose("bf16", CPU)
    output, ctx = forward_backward(learner, tiny_batch(), precision=precision, scaler=precision.make_scaler())
    assert output.total.dtype == torch.float32
    assert all(x.dtype == torch.float32 for x in (ctx.embeddings(v) for v in learner.views))
    full, _ = tiny_learner("meru")(tiny_batch())
    # bf16 has 8 bits: trunk features differ by about 2^-8, the loss by no more
    assert output.total.item() == pytest.approx(full.total.item(), rel=2e-2)


def test_gradients_are_clipped_and_the_norm_before_is_returned() -> None:
    parameter = nn.Parameter(torch.tensor([0.0, 0.0]))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    parameter.grad = torch.tensor([3.0, 4.0])
    scaler = Precision.choose(False, CPU).make_scaler()
    norm, stepped = optimizer_step(optimizer, [parameter], scaler=scaler, clip_norm=1.0)
    assert norm.item() == pytest.approx(5.0)
    assert stepped
    torch.testing.assert_close(parameter.detach(), torch.tensor([-0.6, -0.8]))
    assert parameter.grad is None


def test_without_clipping_the_gradient_is_left_alone() -> None:
    parameter = nn.Parameter(torch.tensor([0.0, 0.0]))
    parameter.grad = torch.tensor([3.0, 4.0])
    scaler = Precision.choose(False, CPU).make_scaler()
    norm, _ = optimizer_step(torch.optim.SGD([parameter], lr=1.0), [parameter], scaler=scaler, clip_norm=None)
    assert norm.item() == pytest.approx(5.0)
    torch.testing.assert_close(parameter.detach(), torch.tensor([-3.0, -4.0]))


def test_fp16_overflow_skips_the_step() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale((parameter * float("inf")).sum()).backward()
    _, stepped = optimizer_step(optimizer, [parameter], scaler=scaler, clip_norm=None)
    assert not stepped
    assert parameter.item() == 1.0
    assert scaler.get_scale() < 4.0


def _adamw(*, fused: bool) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    return parameter, torch.optim.AdamW([parameter], lr=0.1, weight_decay=0.5, fused=fused)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize(
    ("gradient", "loss"),
    [(float("nan"), 1.0), (float("inf"), 1.0), (1.0, float("nan")), (1.0, -float("inf"))],
)
def test_a_step_that_is_not_finite_is_skipped(
    fused: bool, clip: float | None, gradient: float, loss: float
) -> None:
    """Weights, moments and step counts are those of a run without the bad step."""
    scaler = Precision.choose(False, CPU).make_scaler()
    states = []
    for steps in ([(0.5, 2.0), (gradient, loss), (0.25, 1.0)], [(0.5, 2.0), (0.25, 1.0)]):
        parameter, optimizer = _adamw(fused=fused)
        taken = []
        for value, total in steps:
            parameter.grad = torch.tensor([1.0, value])
            _, stepped = optimizer_step(
                optimizer, [parameter], scaler=scaler, clip_norm=clip, loss=torch.tensor(total)
            )
            assert parameter.grad is None
            taken.append(bool(stepped))
        assert taken == [value == 0.5 or (value, total) == (0.25, 1.0) for value, total in steps]
        state = optimizer.state[parameter]
        states.append(
            [parameter.detach(), *(torch.as_tensor(state[k]) for k in ("step", "exp_avg", "exp_avg_sq"))]
        )
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
    assert states[0][1].item() == 2


def test_a_scale_that_has_reached_zero_takes_no_steps() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=0.0)
    stepped = []
    for _ in range(3):
        scaler.scale((parameter * 2.0).sum()).backward()
        stepped.append(optimizer_step(optimizer, [parameter], scaler=scaler, clip_norm=None)[1])
    assert [bool(x) for x in stepped] == [False] * 3
    assert scaler.get_scale() == 0.0 and parameter.item() == 1.0


def _one_rank_of_two() -> tuple[bool, float]:
    parameter, optimizer = _adamw(fused=True)
    parameter.grad = torch.ones(2)
    loss = torch.tensor(float("inf") if distributed.rank() == 1 else 1.0)
    scaler = Precision.choose(False, CPU).make_scaler()
    _, stepped = optimizer_step(optimizer, [parameter], scaler=scaler, clip_norm=None, loss=loss)
    return bool(stepped), parameter[0].item()


@pytest.mark.slow
def test_a_loss_of_one_rank_skips_the_step_on_all() -> None:
    assert run_ranks(2, _one_rank_of_two) == [(False, 1.0), (False, 1.0)]


def test_to_device_moves_nested_tensors_and_keeps_the_rest() -> None:
    batch = {"image": torch.zeros(1), "crops": {"160": torch.ones(1)}, "bad": [("key", "why")]}
    moved = to_device(batch, CPU)
    assert moved["bad"] is batch["bad"]
    assert torch.equal(moved["crops"]["160"], torch.ones(1))
