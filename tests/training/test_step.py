import pytest
import torch
from torch import nn

from hypvl.training.precision import Precision
from hypvl.training.step import forward_backward, optimizer_step, to_device
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


def test_to_device_moves_nested_tensors_and_keeps_the_rest() -> None:
    batch = {"image": torch.zeros(1), "crops": {"160": torch.ones(1)}, "bad": [("key", "why")]}
    moved = to_device(batch, CPU)
    assert moved["bad"] is batch["bad"]
    assert torch.equal(moved["crops"]["160"], torch.ones(1))
