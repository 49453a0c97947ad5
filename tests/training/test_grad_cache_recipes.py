"""Gradient caching gives the step of every training recipe: loss, terms, features, gradients, and where it leads.

The default suite tries one recipe of each kind, as tests/test_demo_recipes.py does.
"""

import copy
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hypvl import distributed
from hypvl.config import instantiate
from hypvl.data.loader import Loader
from hypvl.losses.base import LossOutput, PairContext
from hypvl.training.accumulation import GradCache
from hypvl.training.hooks.episodes import episodic_terms, kmeans_labels
from hypvl.training.step import Learner, Precision, forward_backward, optimizer_step
from tests.ranks import run_ranks
from tests.test_configs import learner_of
from tests.test_demo_recipes import DEMOS, RECIPES, shard, tiny

__all__ = ["shard"]  # a fixture

EACH, STEPS = 5, 3  # samples per process
MICRO_BATCHES = {torch.float32: (3,), torch.float64: (1, 3, EACH + 1)}  # 3 divides no batch
LIMIT = {torch.float32: 1e-5, torch.float64: 1e-10}
FULL = Precision.choose(False, torch.device("cpu"))


def without_twins(batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """Boxes that are the whole image or text, changed a little: rounding decides the angle at a point to itself."""
    for whole, part in (("image", "box_image"), ("text", "box_text")):
        if part in batch:
            length = min(batch[whole].shape[-1], batch[part].shape[-1])
            wholes = batch[whole][batch["box_owner"]] if "box_owner" in batch else batch[whole]
            same = wholes[..., :length].eq(batch[part][..., :length]).flatten(1).all(1)
            batch[part].flatten(1)[same, 1] += 1
    return batch


class Run:
    """A recipe with a tiny model, and a few batches of its data."""

    def __init__(self, path: Path, shard: Path) -> None:
        self.cfg = tiny(path, shard)
        self.cfg.train.init_checkpoint = None
        if self.cfg.model.textual is not None and "dropout" in self.cfg.model.textual:
            self.cfg.model.textual.dropout = 0.0  # rows would draw other numbers in parts
        world = distributed.world_size()
        loader = Loader(
            instantiate(self.cfg.dataset), global_batch_size=EACH * world, rank=distributed.rank(),
            world_size=world, num_workers=0, seed=0,
        )  # fmt: skip
        self.batches = [without_twins(next(loader)) for _ in range(STEPS)]

        torch.manual_seed(0)
        for term in self.cfg.train.objective.terms.values():
            if "queue_size" in term:
                term.queue_size = 4 * EACH * world
            if "episode" in term:
                term.update(episode=STEPS * EACH * world, clusters=4)
        self.new = learner_of(self.cfg).train()
        self._begin_episodes()
        instantiate(self.cfg.optim.parameters)(self.new)  # freezes what the recipe freezes

    @torch.no_grad()
    def _begin_episodes(self) -> None:
        """Of the terms that have some: the batches are one."""
        for term in episodic_terms(self.new).values():
            contexts = [self.new.context(batch, term.episode_needs) for batch in self.batches]
            parts = [term.episode_rows(ctx) for ctx in contexts]
            order = torch.cat([distributed.gather(batch["position"]) for batch in self.batches]).argsort()
            rows = {k: torch.cat([distributed.gather(part[k]) for part in parts])[order] for k in parts[0]}
            term.begin_episode_(rows, first=0, cluster=partial(kmeans_labels, seed=0))

    def learner(self, dtype: torch.dtype) -> Learner:
        return copy.deepcopy(self.new).to(dtype)

    def step(
        self, learner: Learner, batch: Mapping[str, Any], micro_batch: int | None
    ) -> tuple[LossOutput, PairContext]:
        learner.constrain_()
        module: nn.Module = learner
        if micro_batch is None and distributed.world_size() > 1:
            module = nn.parallel.DistributedDataParallel(learner, static_graph=True, broadcast_buffers=False)
        cache = None if micro_batch is None else GradCache(micro_batch)
        return forward_backward(module, batch, precision=FULL, scaler=FULL.make_scaler(), cache=cache)

    def gradients(self, dtype: torch.dtype, micro_batch: int | None) -> dict[str, Tensor]:
        """Of the second batch, where no term is in its first state: loss, terms, features and ``.grad``."""
        learner = self.learner(dtype)
        with torch.no_grad():
            learner.update_(learner(self.batches[0])[1])
        output, ctx = self.step(learner, self.batches[1], micro_batch)
        result = {name: p.grad for name, p in learner.named_parameters() if p.grad is not None}
        assert all(p.requires_grad for p in learner.parameters() if p.grad is not None)
        values = {"value total": output.total.detach()}
        values |= {f"value {name}": value for name, value in output.terms.items()}
        values |= {f"value of {view}": ctx.embeddings(view).detach() for view in learner.views}
        return {**result, **values}

    def trained(self, micro_batch: int | None) -> dict[str, Tensor]:
        """The whole state after a few optimizer steps in float64."""
        learner = self.learner(torch.float64)
        optimizer = instantiate(self.cfg.optim.optimizer)(instantiate(self.cfg.optim.parameters)(learner))
        parameters = [p for p in learner.parameters() if p.requires_grad]
        for batch in self.batches:
            _, ctx = self.step(learner, batch, micro_batch)
            optimizer_step(optimizer, parameters, scaler=FULL.make_scaler(), clip_norm=1.0)
            learner.update_(ctx)
        return learner.state_dict()


def error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Relative norm of the difference over all entries together."""
    assert found.keys() == expected.keys()
    difference = sum((found[k].double() - expected[k].double()).square().sum() for k in expected) ** 0.5
    return float(difference / sum(expected[k].double().square().sum() for k in expected) ** 0.5)


def parted(found: dict[str, Tensor], *, values: bool) -> dict[str, Tensor]:
    return {key: x for key, x in found.items() if key.startswith("value ") == values}


def errors(path: Path, shard: Path) -> dict[str, float]:
    """Everything that has to agree, over the allowed difference: at most 1."""
    run, out = Run(path, shard), {}
    for dtype, micro_batches in MICRO_BATCHES.items():
        expected = run.gradients(dtype, None)
        for micro_batch in micro_batches:
            result = run.gradients(dtype, micro_batch)
            for values in (False, True):
                # an angle between points that almost coincide magnifies the rounding of the encoders
                limit = LIMIT[dtype] * (10 if values else 1)
                key = f"{'values' if values else 'gradients'}, {dtype}, {micro_batch}"
                out[key] = error(parted(result, values=values), parted(expected, values=values)) / limit
    out["state after steps"] = error(run.trained(3), run.trained(None)) / LIMIT[torch.float64]
    return out


def all_errors(paths: list[Path], shard: Path) -> dict[str, dict[str, float]]:
    return {path.stem: errors(path, shard) for path in paths}


@pytest.mark.parametrize("path", RECIPES)
def test_a_cached_step_is_the_step(path: Path, shard: Path) -> None:
    result = errors(path, shard)
    assert {key: value for key, value in result.items() if not value <= 1} == {}


FEW = (
    "hycoclip",
    "i0t_async",
    "ceclip",
)  # four views, batch statistics over ranks, several negatives per sample


@pytest.mark.slow
@pytest.mark.parametrize("paths", [
    pytest.param([path for path in DEMOS if path.stem.removeprefix("train_").removesuffix("_demo") in FEW], id="few"),
    pytest.param(DEMOS, id="all"),
])  # fmt: skip
def test_also_on_two_processes(paths: list[Path], shard: Path) -> None:
    for rank, recipes in enumerate(run_ranks(2, all_errors, paths, shard)):
        assert len(recipes) == len(paths) >= len(FEW)
        for name, result in recipes.items():
            wrong = {key: value for key, value in result.items() if not value <= 1}
            assert wrong == {}, f"{name}, rank {rank}"
