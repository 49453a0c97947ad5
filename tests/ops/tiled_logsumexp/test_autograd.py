"""Tiled log-sum-exps: values, gradients, and scores of any range."""

import pytest
import torch
from torch import Tensor

from hypvl.geometry import tiles
from hypvl.geometry.lorentz import Lorentz
from hypvl.losses.base import IMAGE, TEXT
from hypvl.losses.contrastive import Contrastive
from hypvl.ops.tiled_logsumexp import autograd
from hypvl.ops.tiled_logsumexp.autograd import log_sum_exps
from tests.losses.test_info_nce import MODELS, value_and_gradients
from tests.losses.toy import random_features


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("name", ["distance", "angle", "per-row scale", "labels"])
def test_gradcheck(name: str, columns: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 3, generator=generator, dtype=torch.float64, requires_grad=True) for n in (4, 5))
    log_curv = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([[2.0], [0.5], [1.0], [3.0]], dtype=torch.float64, requires_grad=True)
    space = Lorentz()

    def function(x: Tensor, y: Tensor, log_curv: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        if name == "angle":
            result = space.tiled_exterior_angle(x, y)
        else:
            result = tiles.negative_lorentz_distance(x, y, curv=log_curv.exp())
        if name == "per-row scale":
            result = result.scaled(scale)
        labels = (torch.tensor([1, 2, 1, 0]), torch.tensor([0, 1, 1, 2, 3])) if name == "labels" else None
        out = log_sum_exps(
            result, torch.tensor([4, 0, 2, 2]), labels=labels, columns=columns, sums=True, tile=(3, 2)
        )
        return tuple(part for part in out if len(part) and part.requires_grad)

    inputs = (x, y, log_curv, scale)
    assert torch.autograd.gradcheck(function, inputs)


def test_scores_that_underflow_as_a_whole_still_count() -> None:
    """Rows and tiles whose scores differ by thousands: the running maximum carries over."""
    x = torch.tensor([[0.0], [3000.0], [-4000.0]], dtype=torch.float64)
    z = x @ torch.ones(1, 4, dtype=torch.float64) * torch.tensor([1.0, -1.0, 0.5, 2.0], dtype=torch.float64)
    result = log_sum_exps(
        tiles.inner_product(x, torch.tensor([[1.0], [-1.0], [0.5], [2.0]], dtype=torch.float64)),
        torch.tensor([3, 1, 0]),
        columns=True,
        tile=(1, 1),
    )
    torch.testing.assert_close(result.rows, z.logsumexp(1))
    torch.testing.assert_close(result.columns, z.logsumexp(0))
    assert torch.equal(result.targets, z[torch.arange(3), torch.tensor([3, 1, 0])])


@pytest.mark.parametrize("name", MODELS)
def test_running_maxima_give_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU does always, and a processor where no one number suits all scores."""
    rows = {IMAGE: random_features(11, seed=0), TEXT: random_features(11, seed=1)}
    term = Contrastive(implementation="tiled", tile=(4, 3), label_smoothing=0.1)
    common = value_and_gradients(term, name, rows)
    monkeypatch.setattr(autograd, "_REACH", -1.0)
    for a, b in zip(value_and_gradients(term, name, rows), common, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


def test_one_row_out_of_reach_changes_nothing_for_the_others() -> None:
    """Scores of -3000 beside those of 5: exponentials relative to one number would lose a row."""
    x = 10 * torch.eye(4)
    x[2] = -300 * torch.ones(4)
    y = torch.full((4, 4), 0.5, dtype=torch.float32).requires_grad_()
    result = log_sum_exps(tiles.inner_product(x, y), torch.arange(4), columns=True)
    torch.testing.assert_close(result.rows.float(), (x @ y.mT).logsumexp(1))
    (grad,) = torch.autograd.grad(result.rows.sum(), y)
    torch.testing.assert_close(grad, x.sum(0).div(4).expand(4, 4))


def test_memory_is_for_the_matrix_and_not_for_a_larger_tile() -> None:
    x = random_features(5, seed=0)
    result = log_sum_exps(
        tiles.inner_product(x, x), torch.arange(5), tile=(1 << 24, 1 << 24)
    )  # 2 PiB, taken whole
    torch.testing.assert_close(result.rows, (x @ x.mT).logsumexp(1))


def test_scores_with_a_factor_for_each_row_are_not_symmetric() -> None:
    x = random_features(4, seed=0)
    scores = tiles.inner_product(x, x)
    assert scores.scaled(torch.tensor(2.0)).symmetric
    assert not scores.scaled(torch.ones(4, 1)).symmetric
