"""A compiled learner on texts of changing lengths: the same numbers, and graphs that stay few."""

import pytest
import torch

from tests.ranks import run_ranks
from tests.training.test_distributed_gradients import third_step
from tests.training.tiny import ragged_batch, tiny_learner


@pytest.mark.slow
def test_compiled_steps_equal_eager_ones_for_any_lengths() -> None:
    eager, traced = tiny_learner("meru"), tiny_learner("meru")
    traced.compile(backend="aot_eager")  # Dynamo and AOTAutograd as for any backend, without a C++ compiler
    graphs = torch._dynamo.utils.counters["stats"]
    counts = []
    for seed in range(6):
        for learner in (eager, traced):
            learner.zero_grad()
            learner(ragged_batch(seed=seed))[0].total.backward()
        for ours, theirs in zip(traced.parameters(), eager.parameters(), strict=True):
            if theirs.grad is not None:
                torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)
        counts.append(graphs["unique_graphs"])
    assert counts[-1] - counts[1] <= 3, counts  # not one for each plan of groups


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "whole"), [("aot_eager", False), ("aot_eager", True), ("inductor", False)]
)
def test_compiled_ranks_equal_one_eager_process(backend: str, whole: bool) -> None:
    expected = third_step(torch.float32)
    for result in run_ranks(2, third_step, torch.float32, backend, whole):
        assert result.keys() == expected.keys()
        for name, grad in expected.items():
            torch.testing.assert_close(result[name], grad, rtol=1e-4, atol=1e-6)
