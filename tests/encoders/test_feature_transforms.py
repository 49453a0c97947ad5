"""Centring and batch standardisation: hand values, torch's own batch norm, purity, two processes."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hypvl import distributed
from hypvl.encoders.feature_transforms import BatchStandardize, Centering


def rows(count: int, *, seed: int = 0, dim: int = 3) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def standardize(**options: Any) -> BatchStandardize:
    """In double precision, gamma and beta away from 1 and 0."""
    module = BatchStandardize(3, **options).double()
    with torch.no_grad():
        module.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        module.bias.copy_(torch.tensor([0.1, -0.2, 0.0]))
    return module


def test_a_new_centering_changes_nothing_and_a_filled_one_subtracts() -> None:
    module, x = Centering(3).double(), rows(4)
    assert torch.equal(module(x), x)
    module.fill_(torch.tensor([1.0, 0.0, -2.0]))
    torch.testing.assert_close(module(x[None]), (x - torch.tensor([1.0, 0.0, -2.0]))[None])
    assert set(module.state_dict()) == {"mean"} and not list(module.parameters())


@pytest.mark.parametrize("mean", [torch.zeros(2), torch.tensor([0.0, math.nan, 0.0])])
def test_a_mean_that_cannot_be_used_is_refused(mean: Tensor) -> None:
    with pytest.raises(ValueError, match=r"mean: got shape.*expected \(3,\) finite numbers"):
        Centering(3).fill_(mean)


def test_two_rows_by_hand() -> None:
    module = BatchStandardize(2, eps=0.0).double()
    x = torch.tensor([[1.0, 5.0], [3.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(module(x), torch.tensor([[-1.0, 1.0], [1.0, -1.0]], dtype=torch.float64))
    module.update_(x)  # means 2, 3; unbiased variances 2, 8
    torch.testing.assert_close(module.running_mean, torch.tensor([0.2, 0.3], dtype=torch.float64))
    torch.testing.assert_close(module.running_var, torch.tensor([1.1, 1.7], dtype=torch.float64))


def test_equals_torch_in_training_and_evaluation_over_steps() -> None:
    ours, theirs = standardize(momentum=0.3), nn.BatchNorm1d(3, momentum=0.3).double()
    theirs.load_state_dict(ours.state_dict())
    for step in range(3):
        x = 2.0 * rows(7, seed=step) + 1.0
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)
        ours.update_(x)
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(dict(ours.named_buffers())[name], buffer, rtol=1e-12, atol=1e-12)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)


def test_forward_changes_no_state_whatever_the_mode() -> None:
    module = standardize()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    for mode in (True, False):
        module.train(mode)
        module(rows(5))
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_gradients_go_through_the_statistics() -> None:
    module, x = standardize(), rows(4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w, b: module(x), (x, module.weight, module.bias))
    weights = rows(4, seed=1)
    (module(x) * weights).sum().backward()
    assert x.grad is not None
    # A shift of all rows does nothing.
    assert torch.allclose(x.grad.sum(0), torch.zeros(3, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("x", [rows(1), torch.zeros(4, 3).double(), torch.ones(4, 3).double() * 1e4])
def test_rows_without_variance_become_beta_with_finite_gradients(x: Tensor) -> None:
    module, x = standardize(), x.clone().requires_grad_()
    out = module(x)
    torch.testing.assert_close(out, module.bias.expand_as(out))
    out.sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()
    module.update_(x.detach())
    assert torch.isfinite(module.running_var).all()


def test_more_axes_are_rows_and_halves_are_computed_in_fp32() -> None:
    module, x = standardize(), rows(6)
    torch.testing.assert_close(module(x.reshape(2, 3, 3)).reshape(6, 3), module(x))
    assert module.float()(x.bfloat16()).dtype == torch.float32


def test_variance_of_rows_far_from_zero_keeps_its_digits() -> None:
    x = rows(64).float()
    _, variance, count = distributed.batch_statistics(x + 1000.0)
    torch.testing.assert_close(variance, x.var(0, correction=0), rtol=1e-3, atol=0)
    assert count == 64


def test_a_momentum_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"momentum: got 1\.5; expected a number of at least 0 and up to 1"):
        BatchStandardize(3, momentum=1.5)


def three_steps() -> dict[str, list[Tensor]]:
    """Loss, gradients of rows and gamma, and buffers, of three steps; run on two processes by tests/training."""
    module, world, rank = standardize(), distributed.world_size(), distributed.rank()
    result: dict[str, list[Tensor]] = {"loss": [], "rows": [], "gamma": [], "mean": [], "var": []}
    for step in range(3):
        x = (rows(6, seed=step) + 3.0).chunk(world)[rank].clone().requires_grad_()
        loss = (module(x) ** 3 * rows(6, seed=9).chunk(world)[rank]).mean()
        module.zero_grad()
        loss.backward()
        module.update_(x.detach())
        assert x.grad is not None and module.weight.grad is not None
        values = (loss.detach(), x.grad, module.weight.grad, module.running_mean, module.running_var)
        for name, value in zip(result, values, strict=True):
            result[name].append(value.clone())
    return result


def check_two_processes(one: dict[str, list[Tensor]], two: list[dict[str, list[Tensor]]]) -> None:
    """What :func:`three_steps` gave on one process against what it gave on two."""
    for step in range(3):
        for name in ("loss", "gamma"):  # averaged over ranks, as DDP does
            average = (two[0][name][step] + two[1][name][step]) / 2
            torch.testing.assert_close(average, one[name][step], rtol=1e-11, atol=1e-12)
        joined = torch.cat([ranked["rows"][step] for ranked in two]) / 2
        torch.testing.assert_close(joined, one["rows"][step], rtol=1e-10, atol=1e-12)
        for ranked in two:
            for name in ("mean", "var"):
                torch.testing.assert_close(ranked[name][step], one[name][step], rtol=1e-12, atol=1e-12)
