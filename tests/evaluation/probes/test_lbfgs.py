"""L-BFGS on functions whose minima are known."""

import math

import pytest
import torch
from torch import Tensor

from hypvl.evaluation.probes.lbfgs import Evaluate, Minimum, Point, minimise


def quadratic(scales: Tensor, centre: Tensor) -> Evaluate:
    """sum of scale (x - centre)^2 / 2."""

    def evaluate(x: Tensor) -> tuple[float, Tensor]:
        off = x - centre
        return float((scales * off.square()).sum() / 2), scales * off

    return evaluate


def search(evaluate: Evaluate, x: list[float], *, tolerance: float = 1e-9, **settings: int) -> Minimum:
    start = torch.tensor(x, dtype=torch.float64)
    at = Point(start, *evaluate(start))
    return minimise(evaluate, at, done=lambda value, norm: norm <= tolerance, **settings)


@pytest.mark.parametrize("history", [1, 3, 10])
def test_quadratics(history: int) -> None:
    scales = torch.tensor([1.0, 100.0, 1e-2], dtype=torch.float64)
    centre = torch.tensor([3.0, -1.0, 20.0], dtype=torch.float64)
    calls = 0
    plain = quadratic(scales, centre)

    def evaluate(x: Tensor) -> tuple[float, Tensor]:
        nonlocal calls
        calls += 1
        return plain(x)

    found = search(evaluate, [0.0, 0.0, 0.0], history=history)
    torch.testing.assert_close(found.point.x, centre, atol=1e-6, rtol=0)
    assert found.converged and found.evaluations == calls - 1  # the start was given
    assert found.point.value == pytest.approx(0.0, abs=1e-12)


def test_at_the_minimum_nothing_is_done() -> None:
    found = search(quadratic(torch.ones(2), torch.zeros(2)), [0.0, 0.0])
    assert (found.iterations, found.evaluations, found.converged) == (0, 0, True)


def test_the_direction_is_that_of_the_two_loops() -> None:
    """Nocedal and Wright's algorithm 7.4, on random pairs."""
    from hypvl.evaluation.probes.lbfgs import _Memory

    draws = torch.Generator().manual_seed(0)
    memory, pairs = _Memory(3), []
    for _ in range(5):
        s = torch.randn(8, dtype=torch.float64, generator=draws)
        y = s * torch.linspace(1, 5, 8) + 0.1 * torch.randn(8, dtype=torch.float64, generator=draws)
        memory.add(s, y)
        pairs = [*pairs, (s, y)][-3:]
    gradient = torch.randn(8, dtype=torch.float64, generator=draws)
    q, taken = gradient.clone(), []
    for s, y in reversed(pairs):
        taken.append((s @ q) / (s @ y))
        q -= taken[-1] * y
    s, y = pairs[-1]
    q *= (s @ y) / (y @ y)
    for (s, y), a in zip(pairs, reversed(taken), strict=True):
        q += (a - (y @ q) / (s @ y)) * s
    torch.testing.assert_close(memory.direction(gradient), -q)


def test_a_curved_valley() -> None:
    """Rosenbrock's function from its usual start, minimum 0 at (1, 1); not convex."""

    def evaluate(x: Tensor) -> tuple[float, Tensor]:
        a, b = x.tolist()
        slope = [-2 * (1 - a) - 400 * a * (b - a * a), 200 * (b - a * a)]
        return (1 - a) ** 2 + 100 * (b - a * a) ** 2, torch.tensor(slope, dtype=torch.float64)

    found = search(evaluate, [-1.2, 1.0], tolerance=1e-10)
    torch.testing.assert_close(found.point.x, torch.ones(2, dtype=torch.float64), atol=1e-8, rtol=0)
    assert found.converged and found.iterations < 60  # the plain gradient takes thousands


def test_an_end_without_convergence_is_told() -> None:
    scales = torch.logspace(-3, 3, 30, dtype=torch.float64)
    found = search(quadratic(scales, torch.ones(30)), [0.0] * 30, max_iterations=3)
    assert not found.converged and found.iterations == 3 and found.point.gradient.norm() > 1e-9


def test_noise_ends_the_search() -> None:
    """A gradient that is never below a hundredth: neither it nor the value gets better, so the search gives up."""
    calls = 0

    def evaluate(x: Tensor) -> tuple[float, Tensor]:
        nonlocal calls
        calls += 1
        wrong = torch.tensor([0.01 * math.cos(calls), 0.01 * math.sin(calls)], dtype=torch.float64)
        return 1.0 + float(x.square().sum()) / 2, x + wrong

    start = torch.tensor([3.0, 1.0], dtype=torch.float64)
    found = minimise(
        evaluate, Point(start, *evaluate(start)), done=lambda value, norm: norm < 1e-6, noise=1e-3
    )
    assert not found.converged and found.iterations < 60
    assert found.point.x.norm() < 0.1


def test_no_step_is_taken_into_infinity_or_where_none_helps() -> None:
    def wall(x: Tensor) -> tuple[float, Tensor]:
        """-log(1 - x) - 2 x with its minimum at 1/2, not a number beyond 1."""
        return float(-(1 - x).log() - 2 * x), 1 / (1 - x) - 2

    found = search(wall, [-50.0])
    assert float(found.point.x) == pytest.approx(0.5, abs=1e-8)

    def liar(x: Tensor) -> tuple[float, Tensor]:
        return float(x.square().sum()), -x  # uphill

    found = search(liar, [1.0])
    assert not found.converged and found.point.x[0] == 1.0 and found.iterations == 0


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"got start \(\)"):
        minimise(
            quadratic(torch.ones(1), torch.zeros(1)),
            Point(torch.tensor(0.0), 0.0, torch.tensor(0.0)),
            done=lambda value, norm: True,
        )
