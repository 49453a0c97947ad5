"""``train.gather = "ring"``: the same steps as with gathered keys, and less of the global batch on each rank."""

import pytest
import torch
from torch import nn

from hypvl import distributed
from hypvl.errors import ConfigError
from hypvl.losses.base import Objective
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.himo import PrincipalContrastive
from hypvl.losses.ring import Gather
from hypvl.training.accumulation import GradCache, GradientAverage, naive_forward_backward
from hypvl.training.config import TrainConfig
from hypvl.training.step import Learner, Precision, forward_backward
from tests.ranks import run_ranks
from tests.training.tiny import RECIPES, ragged_batch, rows_of, tiny_learner, tiny_model

PRECISION = Precision.choose(False, torch.device("cpu"))


def gradients(recipe: str, way: str, gather: Gather) -> dict[str, torch.Tensor]:
    """The loss and all gradients after the second of two steps; ``way`` is how the step is taken."""
    given = tiny_learner(recipe)
    learner = Learner(given.model, given.objective, gather=gather).double()
    module: nn.Module = learner
    if way == "ddp" and distributed.world_size() > 1:
        module = nn.parallel.DistributedDataParallel(learner, static_graph=True, broadcast_buffers=False)
    how = {"precision": PRECISION, "scaler": PRECISION.make_scaler()}
    for seed in range(2):
        learner.zero_grad()
        batch = rows_of(ragged_batch(seed=seed), distributed.rank(), distributed.world_size())
        if way == "naive":
            output, _ = naive_forward_backward(
                module, [batch, batch], parts=2, average=GradientAverage(), **how
            )  # type: ignore[arg-type]
        else:
            cache = GradCache(3) if way == "cache" else None
            output, _ = forward_backward(module, batch, cache=cache, **how)  # type: ignore[arg-type]
    result = {k: p.grad for k, p in learner.named_parameters() if p.grad is not None}
    terms = {name: distributed.all_reduce_mean(value) for name, value in output.terms.items()}
    return {**result, **terms}


def of_all_ways() -> dict[str, list[dict[str, torch.Tensor]]]:
    cases = [(recipe, "ddp") for recipe in RECIPES] + [("meru", "cache"), ("meru", "naive")]
    return {
        f"{recipe}, {way}": [gradients(recipe, way, gather) for gather in ("all", "ring")]
        for recipe, way in cases
    }


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_steps_are_those_with_gathered_keys(world: int) -> None:
    for results in run_ranks(world, of_all_ways):
        for name, (gathered, ring) in results.items():
            assert gathered.keys() == ring.keys(), name
            for key, value in gathered.items():
                torch.testing.assert_close(
                    ring[key], value, rtol=1e-8, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
                )


def test_a_term_that_needs_every_row_is_refused_at_the_start() -> None:
    terms = Objective({"pairs": Contrastive(), "principal": PrincipalContrastive()})
    assert Learner(tiny_model("clip"), terms).gather == "all"
    with pytest.raises(
        ValueError, match=r"terms\.principal: PrincipalContrastive needs the rows of every rank"
    ):
        Learner(tiny_model("clip"), terms, gather="ring")


def test_another_word_is_refused() -> None:
    assert TrainConfig.read({"objective": {}, "gather": "ring"}).gather == "ring"
    with pytest.raises(ConfigError, match=r"train\.gather: got 'rings'; expected 'all' or 'ring'"):
        TrainConfig.read({"objective": {}, "gather": "rings"})
