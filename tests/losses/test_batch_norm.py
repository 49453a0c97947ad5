"""Batch norms over the rows of all ranks, and the heads of ProtoCLIP that are made of them."""

import pytest
import torch
from torch import Tensor

from hypvl import distributed
from hypvl.losses.batch_norm import BatchNorm, RunningBatchNorm
from hypvl.losses.proto_clip import Projection
from tests.losses.toy import random_features
from tests.ranks import run_ranks


def test_statistics_of_the_batch_by_hand() -> None:
    norm = BatchNorm(2).double()
    norm.weight.data.fill_(2.0)
    norm.bias.data.fill_(1.0)
    x = torch.tensor([[1.0, 5.0], [3.0, 5.0]], dtype=torch.float64)
    root = (1 + 1e-5) ** -0.5
    expected = torch.tensor([[1 - 2 * root, 1.0], [1 + 2 * root, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_running_statistics_are_those_of_torch(dtype: torch.dtype) -> None:
    ours, theirs = RunningBatchNorm(3), torch.nn.BatchNorm1d(3)
    assert set(ours.state_dict()) == set(theirs.state_dict())  # heads of earlier checkpoints load
    x = random_features(8, 3).to(dtype)
    for _ in range(2):
        torch.testing.assert_close(ours(x), theirs(x.float()), rtol=1e-5, atol=1e-5)
        ours.update_(x)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-5, atol=1e-5)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x.float()), theirs(x.float()), rtol=1e-5, atol=1e-5)


def run_head() -> dict[str, Tensor]:
    """Rows, gradient and running statistics of a head whose rows are shared out among the ranks."""
    torch.manual_seed(0)
    head = Projection(3, 2, hidden_layers=2, hidden=4).double()
    x = random_features(8, 3).chunk(distributed.world_size())[distributed.rank()].clone().requires_grad_()
    rows = head(x)
    (rows[:, 0].sum() * distributed.world_size()).backward()
    assert x.grad is not None
    grad = x.grad / distributed.world_size()
    head.update_(x)
    return {"rows": rows.detach(), "grad": grad, **dict(head.named_buffers())}


def test_heads_on_two_ranks_are_those_of_one_process() -> None:
    whole, (first, second) = run_head(), run_ranks(2, run_head)
    for name in ("rows", "grad"):
        torch.testing.assert_close(torch.cat([first[name], second[name]]), whole[name])
    for name in set(whole) - {"rows", "grad"}:
        torch.testing.assert_close(first[name], whole[name])
        torch.testing.assert_close(second[name], whole[name])
