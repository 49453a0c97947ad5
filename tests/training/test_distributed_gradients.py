"""Gradients over 1, 2 and 4 processes equal those of one process with the same global batch."""

import pytest
import torch
from torch import nn

from hypvl import distributed
from tests.losses.implementations import forced
from tests.ranks import run_ranks
from tests.training.tiny import RECIPES, ragged_batch, rows_of, tiny_batch, tiny_learner

DTYPES = {"float32": torch.float32, "float64": torch.float64}
LIMIT = {"float32": 1e-5, "float64": 1e-10}


def both_forms() -> list[dict[str, dict[str, torch.Tensor]]]:
    """Gradients as the terms choose to compute them, and with tiles smaller than the batch."""
    result = [gradients()]
    with forced("tiled"):
        result.append(gradients())
    return result


def gradients() -> dict[str, dict[str, torch.Tensor]]:
    """For each recipe and precision: the averaged gradients after one DDP step, and the mean loss."""
    results = {}
    for recipe in RECIPES:
        for name, dtype in DTYPES.items():
            learner = tiny_learner(recipe).to(dtype)
            batch = rows_of(tiny_batch(), distributed.rank(), distributed.world_size())
            module: nn.Module = learner
            if distributed.world_size() > 1:
                module = nn.parallel.DistributedDataParallel(
                    learner, static_graph=True, broadcast_buffers=False
                )
            learner.constrain_()
            output, _ = module(batch)
            output.total.backward()
            result = {k: p.grad for k, p in learner.named_parameters() if p.grad is not None}
            result["loss"] = distributed.all_reduce_mean(output.total.detach())
            results[f"{recipe}-{name}"] = result
    for name, dtype in DTYPES.items():
        results[f"meru, texts in groups-{name}"] = third_step(dtype)
    return results


def third_step(
    dtype: torch.dtype, backend: str | None = None, whole: bool = False
) -> dict[str, torch.Tensor]:
    """Gradients of the last of three batches, whose texts are cut into other groups on each rank, in each step.

    ``backend`` compiles the encoders; ``whole`` the objective with them, as a user of the library may.
    """
    learner = tiny_learner("meru").to(dtype)
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
        output, _ = module(batch)
        output.total.backward()
    return {k: p.grad for k, p in learner.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module")
def one_process() -> dict[str, dict[str, torch.Tensor]]:
    return gradients()


@pytest.mark.parametrize("world", [1, 2, 4])
def test_gradients_do_not_depend_on_the_number_of_processes(
    world: int, one_process: dict[str, dict[str, torch.Tensor]]
) -> None:
    per_rank = [both_forms()] if world == 1 else run_ranks(world, both_forms)
    for rank, i, results in ((r, i, x) for r, both in enumerate(per_rank) for i, x in enumerate(both)):
        for case, expected in one_process.items():
            result = results[case]
            assert result.keys() == expected.keys(), f"{case}: parameters with a gradient"
            difference = sum((result[k] - expected[k]).double().square().sum() for k in expected) ** 0.5
            norm = sum(expected[k].double().square().sum() for k in expected) ** 0.5
            limit = LIMIT[case.split("-")[1]]
            assert difference / norm <= limit, (
                f"{case}, {world} processes, rank {rank}, implementation {i}: {difference}"
            )


def test_every_trainable_parameter_gets_a_gradient(one_process: dict[str, dict[str, torch.Tensor]]) -> None:
    for recipe in RECIPES:
        trainable = {k for k, p in tiny_learner(recipe).named_parameters() if p.requires_grad}
        assert trainable == one_process[f"{recipe}-float64"].keys() - {"loss"}


def test_gather_is_the_identity_without_processes() -> None:
    x = torch.randn(3, 2, requires_grad=True)
    assert distributed.gather(x) is x
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
