"""Batched L-BFGS on functions whose minima are known."""

import pytest
import torch
from torch import Tensor

from hypvl.evaluation.learning.lbfgs import minimise


def quadratics(scales: Tensor, centres: Tensor):
    """sum of scale (x - centre)^2 / 2, per problem."""

    def evaluate(x: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        off = x - centres[which]
        return (scales[which] * off.square()).sum(dim=1) / 2, scales[which] * off

    return evaluate


def test_every_problem_gets_to_its_own_minimum_and_then_rests() -> None:
    scales = torch.tensor([[1.0, 1.0], [1.0, 100.0], [1e-3, 1e3]], dtype=torch.float64)
    centres = torch.tensor([[0.0, 0.0], [3.0, -1.0], [-2.0, 5.0]], dtype=torch.float64)
    asked: list[list[int]] = []
    plain = quadratics(scales, centres)

    def evaluate(x: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        asked.append(which.tolist())
        return plain(x, which)

    found = minimise(evaluate, torch.zeros(3, 2, dtype=torch.float64), tolerance=1e-9)
    torch.testing.assert_close(found.x, centres, atol=1e-6, rtol=0)
    assert found.converged.all() and found.iterations[0] == 0 and found.evaluations == len(asked)
    assert all(0 not in which for which in asked[1:])  # it began at its minimum
    assert torch.equal(found.value, plain(found.x, torch.arange(3))[0])


def test_one_at_a_time_gives_the_same_points() -> None:
    generator = torch.Generator().manual_seed(0)
    scales = torch.rand(4, 6, dtype=torch.float64, generator=generator) * 50 + 0.1
    centres = torch.randn(4, 6, dtype=torch.float64, generator=generator)
    start = torch.zeros(4, 6, dtype=torch.float64)
    together = minimise(quadratics(scales, centres), start)
    for k in range(4):
        alone = minimise(quadratics(scales[k : k + 1], centres[k : k + 1]), start[k : k + 1])
        torch.testing.assert_close(alone.x[0], together.x[k], atol=1e-12, rtol=0)
        assert alone.iterations[0] == together.iterations[k]


def test_a_curved_valley() -> None:
    """Rosenbrock's function from its usual start, minimum 0 at (1, 1); not convex."""

    def evaluate(x: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x[:, 0], x[:, 1]
        value = (1 - a) ** 2 + 100 * (b - a * a) ** 2
        return value, torch.stack([-2 * (1 - a) - 400 * a * (b - a * a), 200 * (b - a * a)], dim=1)

    found = minimise(evaluate, torch.tensor([[-1.2, 1.0]], dtype=torch.float64), tolerance=1e-10)
    torch.testing.assert_close(found.x, torch.ones(1, 2, dtype=torch.float64), atol=1e-8, rtol=0)
    assert found.iterations < 60  # the plain gradient takes thousands


def test_an_end_without_convergence_is_told() -> None:
    scales = torch.logspace(-3, 3, 30, dtype=torch.float64)[None]
    evaluate = quadratics(scales, torch.ones_like(scales))
    found = minimise(evaluate, torch.zeros_like(scales), max_iterations=3, tolerance=1e-9)
    assert not found.converged[0] and found.iterations[0] == 3 and found.gradient_norm[0] > 1e-9


def test_the_tolerance_shrinks_with_small_values() -> None:
    """2 cosh(x) - 1, its minimum 1, times 2 and times 0.01, which is small against 0.5."""
    factors = torch.tensor([2.0, 0.01], dtype=torch.float64)

    def evaluate(x: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        f = factors[which]
        return f * (2 * x[:, 0].cosh() - 1), 2 * f[:, None] * x.sinh()

    start = torch.full((2, 1), 0.3, dtype=torch.float64)
    plain = minimise(evaluate, start, tolerance=0.1)
    assert plain.iterations[1] == 0 and bool(plain.converged.all())  # its gradient of 0.006 will do
    found = minimise(evaluate, start, tolerance=0.1, small_value=0.5)
    assert found.iterations[1] > 0 and bool(found.converged.all())
    assert found.gradient_norm[1] <= 0.1 * found.value[1] / 0.5 and found.gradient_norm[0] <= 0.1


def test_no_step_is_taken_into_infinity_or_where_none_helps() -> None:
    def wall(x: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """-log(1 - x) - 2 x with its minimum at 1/2, not a number beyond 1."""
        return -(1 - x[:, 0]).log() - 2 * x[:, 0], 1 / (1 - x) - 2

    found = minimise(wall, torch.tensor([[-50.0]], dtype=torch.float64), tolerance=1e-9)
    assert float(found.x[0, 0]) == pytest.approx(0.5, abs=1e-8)

    def liar(x: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        return x.square().sum(dim=1), -x  # uphill

    found = minimise(liar, torch.ones(1, 1, dtype=torch.float64), tolerance=1e-9)
    assert not found.converged[0] and found.x[0, 0] == 1.0 and found.iterations[0] == 0


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"got start \(3,\)"):
        minimise(quadratics(torch.ones(1, 3), torch.ones(1, 3)), torch.zeros(3))
