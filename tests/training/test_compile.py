"""A compiled learner on texts of changing lengths: the same numbers, and graphs that stay few."""

import pytest
import torch
from torch import nn

from hypvl import distributed
from tests.ranks import run_ranks
from tests.training.tiny import ragged_batch, rows_of, tiny_learner


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


def third_gradients(backend: str | None, whole: bool = False) -> dict[str, torch.Tensor]:
    """Of the last of three batches, cut into other groups of texts on each rank; None = not compiled.

    ``whole``: the objective, too, as a user of the library may.
    """
    learner = tiny_learner("meru")
    module: nn.Module = learner
    if backend is not None and whole:
        module = torch.compile(learner, backend=backend)  # type: ignore[assignment]  # typed as a callable
    elif backend is not None:
        learner.compile(backend=backend)
    if distributed.world_size() > 1:
        module = nn.parallel.DistributedDataParallel(module, static_graph=True, broadcast_buffers=False)
    for seed in range(3):
        learner.zero_grad()
        batch = rows_of(ragged_batch(seed=seed), distributed.rank(), distributed.world_size())
        module(batch)[0].total.backward()
    return {k: p.grad for k, p in learner.named_parameters() if p.grad is not None}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "whole"), [("aot_eager", False), ("aot_eager", True), ("inductor", False)]
)
def test_compiled_ranks_equal_one_eager_process(backend: str, whole: bool) -> None:
    expected = third_gradients(None)
    for found in run_ranks(2, third_gradients, backend, whole):
        assert found.keys() == expected.keys()
        for name, grad in expected.items():
            torch.testing.assert_close(found[name], grad, rtol=1e-4, atol=1e-6)
