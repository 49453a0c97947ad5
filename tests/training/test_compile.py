"""A compiled learner on texts of changing lengths: the same numbers, and graphs that stay few."""

from typing import Any

import pytest
import torch
from torch import nn

from hypvl.data.batch import row_lengths
from tests.training.tiny import tiny_batch, tiny_learner


def batch_of(seed: int) -> dict[str, Any]:
    batch, generator = tiny_batch(8, seed=seed), torch.Generator().manual_seed(seed)
    for row, length in zip(
        batch["text"], torch.randint(2, 6, (8,), generator=generator).tolist(), strict=True
    ):
        row[length:], row[length - 1] = 0, 49
    return batch | {"text_lengths": row_lengths(batch["text"])}


@pytest.mark.slow
def test_compiled_steps_equal_eager_ones_for_any_lengths() -> None:
    eager, traced = tiny_learner("meru"), tiny_learner("meru")
    # traced by Dynamo and AOTAutograd as for any backend, run without a C++ compiler
    compiled: nn.Module = torch.compile(traced, backend="aot_eager")  # type: ignore[assignment]  # typed as a callable
    graphs = torch._dynamo.utils.counters["stats"]
    counts = []
    for seed in range(6):
        for learner, module in ((eager, eager), (traced, compiled)):
            learner.zero_grad()
            module(batch_of(seed))[0].total.backward()
        for ours, theirs in zip(traced.parameters(), eager.parameters(), strict=True):
            if theirs.grad is not None:
                torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)
        counts.append(graphs["unique_graphs"])
    assert counts[-1] - counts[1] <= 3, counts  # not one for each plan of groups
