"""Objectives with several boxes for each image: loss and gradients do not depend on the number of ranks."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hypvl import distributed
from hypvl.config import LazyConfig, instantiate
from hypvl.geometry.base import Geometry
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.product import Product
from hypvl.losses.base import IMAGE, TEXT, Objective, View
from tests.losses.implementations import forced
from tests.losses.toy import GeometryOnly, context, random_features
from tests.ranks import run_ranks

COMMON = Path(__file__).resolve().parents[2] / "configs" / "common"
BOX_IMAGE, BOX_TEXT = View.parse("image:box_image"), View.parse("text:box_text")
# Block of the objective, block of the model whose scorer it uses, geometry.
OBJECTIVES: dict[str, tuple[str, str, type[Geometry]]] = {
    "uncha": ("uncha", "uncha", Lorentz),
    "argent": ("argent", "meru", Lorentz),
    "hycoclip": ("hycoclip", "meru", Lorentz),
    "phyclip": ("hycoclip", "phyclip", Product),
}
# Boxes of each sample, and whether tiles are forced.
CASES = {
    "uneven": ((2, 1, 3, 0, 1, 4), "chosen"),
    "none on a rank": ((0, 0, 1, 2, 0, 3), "tiled"),
    "one": ((0, 0, 0, 0, 0, 1), "chosen"),
}


def build(name: str) -> tuple[Objective, GeometryOnly]:
    objective_block, model_block, geometry = OBJECTIVES[name]
    objective = instantiate(LazyConfig.load(COMMON / "objective" / f"{objective_block}.py").objective)
    scorer = instantiate(LazyConfig.load(COMMON / "model" / f"{model_block}.py").model.scorer)
    model = GeometryOnly(geometry(4, 2) if geometry is Product else geometry(), scorer)
    objective.check({"student": model})
    return objective, model


def step(objective: Objective, model: GeometryOnly, boxes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """The loss and its terms over all ranks, and the averaged gradients of all rows and scalars."""
    model.zero_grad()
    rank, world = distributed.rank(), distributed.world_size()
    samples = len(boxes)
    owner = torch.arange(samples).repeat_interleave(torch.tensor(boxes))
    first, last = rank * samples // world, (rank + 1) * samples // world
    mine = (owner >= first) & (owner < last)
    every, rows = {}, {}
    for i, view in enumerate((IMAGE, TEXT, BOX_IMAGE, BOX_TEXT)):
        owned = view in (BOX_IMAGE, BOX_TEXT)
        x = random_features(sum(boxes) if owned else samples, 8, seed=i).requires_grad_()
        every[str(view)] = x
        rows[view] = x[mine] if owned else x[first:last]
    output = objective(context(model, rows, box_owner=owner[mine] - first))
    output.total.backward()
    scalars = {key: p for key, p in model.named_parameters() if p.grad is not None}
    found = {key: x.grad for key, x in (every | scalars).items()} | {"loss": output.total.detach()}
    for key, term in output.terms.items():
        found[f"term {key}"] = term
    return {key: distributed.all_reduce_mean(value) for key, value in found.items() if value is not None}


def steps() -> dict[str, Any]:
    results = {}
    for name in OBJECTIVES:
        objective, model = build(name)
        for case, (boxes, implementation) in CASES.items():
            with forced(implementation):
                results[f"{name}, {case}"] = step(objective, model, boxes)
    return results


@pytest.fixture(scope="module")
def by_ranks() -> list[dict[str, Any]]:
    """What one process finds, and each of two and of three."""
    return [steps(), *run_ranks(2, steps), *run_ranks(3, steps)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_number_of_ranks_changes_nothing(name: str, by_ranks: list[dict[str, Any]]) -> None:
    for case in CASES:
        expected = by_ranks[0][f"{name}, {case}"]
        assert {"loss", "scorer.log_scale", "geometry.log_curv", str(BOX_IMAGE)} <= expected.keys()
        for found in by_ranks:
            result = found[f"{name}, {case}"]
            assert result.keys() == expected.keys()
            for key, value in expected.items():
                assert torch.allclose(result[key], value, rtol=1e-10, atol=1e-10), (case, key)
