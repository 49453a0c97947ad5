"""Means over rows from blocks of rows: values and gradients of whole matrices, which are never held."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hypvl.geometry import tiles
from hypvl.geometry.lorentz import Lorentz
from hypvl.ops import row_means
from hypvl.ops.row_means import Combine, by_rows, mean_over_rows
from tests.losses.toy import random_features


@pytest.fixture(autouse=True)
def _three_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_means, "block_rows", lambda columns, device: 3)


def _log_mean_exp(z: Tensor) -> Tensor:
    return z.logsumexp((0, 1)) - math.log(z.numel())


FUNCTIONS: dict[Combine, Callable[..., Tensor]] = {
    "mean": lambda z, w, of_rows, other: ((z - w + of_rows[:, None]).square() * other).sum(1).mean(),
    "log_mean_exp": lambda z, w, of_rows, other: _log_mean_exp(other * (z + 0.1 * w * of_rows[:, None])),
}


@pytest.mark.parametrize("combine", FUNCTIONS)
@pytest.mark.parametrize("scale", ["one", "of each row"])
def test_gradcheck(combine: Combine, scale: str) -> None:
    """Of every tensor that two matrices of 4 rows and 5 columns are made of, and of further arguments."""
    x, y = (random_features(n, 3, seed=n).requires_grad_() for n in (4, 5))
    of_rows = random_features(4, 1, seed=3)[:, 0].requires_grad_()
    other, curv = (torch.tensor(c, dtype=torch.float64, requires_grad=True) for c in (0.7, 1.3))
    factor = (random_features(4, 1, seed=9) + 2).requires_grad_() if scale == "of each row" else other

    def value(x: Tensor, y: Tensor, of_rows: Tensor, other: Tensor, curv: Tensor, factor: Tensor) -> Tensor:
        distances = tiles.negative_lorentz_distance(x, y, curv=curv).scaled(factor)
        angles = Lorentz(curv_init=1.0).double().tiled_exterior_angle(x, y)
        return mean_over_rows(
            FUNCTIONS[combine], [distances, angles], rows=[of_rows], others=[other], combine=combine
        )

    inputs = (x, y, of_rows, other, curv, factor)
    assert torch.autograd.gradcheck(value, inputs)


@pytest.mark.parametrize("combine", FUNCTIONS)
def test_blocks_of_any_size_give_the_same(combine: Combine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where one block outweighs the others by exp(1000), first or last."""
    x, y = random_features(7, seed=0), random_features(6, seed=1)
    for outlier in (0, 6):
        x[outlier] *= 400
        found = []
        for size in (1, 3, 7):
            monkeypatch.setattr(row_means, "block_rows", lambda columns, device, size=size: size)
            a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
            z = tiles.inner_product(a, b)
            one, rows = torch.ones((), dtype=torch.float64), torch.zeros(7, dtype=torch.float64)
            value = mean_over_rows(FUNCTIONS[combine], [z, z], rows=[rows], others=[one], combine=combine)
            found.append([value.detach(), *torch.autograd.grad(3 * value, [a, b])])
        whole = FUNCTIONS[combine](x @ y.mT, x @ y.mT, torch.zeros(7), 1.0)
        torch.testing.assert_close(found[0][0], whole, rtol=1e-12, atol=0)
        for parts in found[1:]:
            for p, q in zip(parts, found[0], strict=True):
                torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)
        x[outlier] /= 400


def test_rows_that_are_columns_too_have_one_gradient() -> None:
    """Of x x^T and x y^T, the same x in three places."""
    x, y = random_features(4, seed=0).requires_grad_(), random_features(4, seed=1).requires_grad_()

    def value(x: Tensor, y: Tensor) -> Tensor:
        pairs = [tiles.inner_product(x, x), tiles.inner_product(x, y)]
        return mean_over_rows(lambda z, w: (z - w).square().sum(1).mean(), pairs)

    assert torch.autograd.gradcheck(value, (x, y))
    assert len(value(x, y).grad_fn.saved_tensors) == 2  # type: ignore[union-attr]


def test_no_more_than_a_block_is_ever_there() -> None:
    seen = []

    def function(z: Tensor) -> Tensor:
        seen.append((tuple(z.shape), z.requires_grad))
        return z.sum(1).mean()

    x = random_features(8, seed=0).requires_grad_()
    scores = tiles.inner_product(x, random_features(5, seed=1))
    mean_over_rows(function, [scores]).backward()
    assert seen == [((3, 5), True), ((3, 5), True), ((2, 5), True)]  # and nothing is computed again
    seen.clear()
    with torch.no_grad():
        mean_over_rows(function, [scores])
    assert seen == [((3, 5), False), ((3, 5), False), ((2, 5), False)]


def test_a_block_is_as_large_as_the_device_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    cpu, device = torch.device("cpu"), torch.device("cuda")
    assert row_means.block_rows(8192, cpu) == 128
    assert row_means.block_rows(2**22, cpu) == 64  # from there on memory grows with the columns
    assert row_means.block_rows(8192, device) == 8192


def test_gradients_reach_only_those_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detached queue takes no product; a second backward pass gives the same again."""
    calls = []
    real = Tensor.addmm_

    def counted(self: Tensor, left: Tensor, right: Tensor) -> Tensor:
        calls.append(tuple(self.shape))
        return real(self, left, right)

    monkeypatch.setattr(Tensor, "addmm_", counted)
    x, queue = random_features(4, seed=0).requires_grad_(), random_features(6, seed=1)
    value = mean_over_rows(lambda z: z.logsumexp(1).mean(), [tiles.inner_product(x, queue)])
    assert calls == [(3, 4), (1, 4)]  # of the rows alone
    first, second = (torch.autograd.grad(value, x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    expected = torch.autograd.grad((x @ queue.mT).logsumexp(1).mean(), x)[0]
    torch.testing.assert_close(first, expected, rtol=1e-12, atol=0)


def test_a_result_for_each_row() -> None:
    """Attention of 7 rows, in blocks of 3: gradients of both arguments, or of one."""

    def function(x: Tensor, y: Tensor) -> Tensor:
        seen.append(len(x))
        return (x @ y.mT).softmax(1) @ y

    seen: list[int] = []
    x, y = random_features(7, seed=0).requires_grad_(), random_features(5, seed=1).requires_grad_()
    torch.testing.assert_close(by_rows(function, x, y), (x @ y.mT).softmax(1) @ y, rtol=1e-12, atol=0)
    assert seen == [3, 3, 1]
    assert torch.autograd.gradcheck(lambda x, y: by_rows(function, x, y), (x, y))
    assert torch.autograd.gradcheck(lambda y: by_rows(function, x.detach(), y), (y,))
    assert torch.autograd.gradcheck(lambda x: by_rows(function, x, y.detach()), (x,))
