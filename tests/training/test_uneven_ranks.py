"""Boxes of which each rank has another number, also none: the step equals that of one process, with DDP and cached."""

from typing import Any
from unittest import mock

import numpy as np
import torch
from loguru import logger
from torch import nn

from hypvl import distributed
from hypvl.losses import info_nce as info_nce_file
from hypvl.losses.base import IMAGE, TEXT, LossTerm, Objective, PairContext, View
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.entailment import Entailment
from hypvl.losses.info_nce import info_nce
from hypvl.training.accumulation import GradCache
from hypvl.training.step import Learner, Precision, forward_backward
from tests.losses.implementations import forced
from tests.ranks import run_ranks
from tests.training.tiny import ragged_batch, tiny_model

BOX_IMAGE, BOX_TEXT = View.parse("image:box_image"), View.parse("text:box_text")
BOXES = (2, 1, 3, 0, 0, 0)  # of each sample: the last of two and of three ranks has none
FULL = Precision.choose(False, torch.device("cpu"))


class Masked(LossTerm):
    """Contrasts in which other rows of the same image are no keys."""

    uneven = True

    def __init__(self) -> None:
        super().__init__()
        self.declare(TEXT, BOX_IMAGE, BOX_TEXT)

    def forward(self, ctx: PairContext) -> torch.Tensor:
        local = info_nce(ctx, BOX_IMAGE, BOX_TEXT, same_whole="masked", both_directions=True)
        whole = info_nce(ctx, BOX_IMAGE, TEXT, same_whole="masked", wholes="per_row")
        return torch.cat([local, whole]).mean()


def learner() -> Learner:
    boxes = [(BOX_IMAGE, BOX_TEXT), (BOX_TEXT, BOX_IMAGE), (BOX_IMAGE, TEXT), (BOX_TEXT, IMAGE)]
    terms = {
        "contrastive": Contrastive([(IMAGE, TEXT), (TEXT, IMAGE), *boxes], label_smoothing=0.1),
        "masked": Masked(),
        "boxes": Entailment(general=BOX_TEXT, specific=BOX_IMAGE, aperture_factor=0.1),
        "across": Entailment(general=BOX_IMAGE, specific=IMAGE, aperture_factor=0.1),
    }
    return Learner(tiny_model("meru"), Objective(terms)).double()


def batch(boxes: tuple[int, ...] = BOXES) -> dict[str, Any]:
    """What this rank has of a batch."""
    rank, world = distributed.rank(), distributed.world_size()
    each = len(boxes) // world
    wholes, parts = ragged_batch(len(boxes)), ragged_batch(max(1, sum(boxes)), seed=1)
    mine, before = slice(rank * each, (rank + 1) * each), sum(boxes[: rank * each])
    counts = boxes[mine]
    found = {key: wholes[key][mine] for key in ("image", "text", "text_lengths", "position")}
    for key in ("image", "text", "text_lengths"):
        found[f"box_{key}"] = parts[key][before : before + sum(counts)]
    return found | {"box_owner": np.repeat(np.arange(each), counts)}


def steps() -> list[dict[str, torch.Tensor]]:
    """Mean loss and averaged gradients: directly, in small tiles, in tiles by choice, and cached.

    By choice: two ranks have 6 and 0 boxes, so that 36 and 0 scores are theirs, of which 15 are to be tiled.
    """
    results = []
    by_choice = mock.patch.object(info_nce_file, "TILED_FROM", 15)
    ways = (
        (forced("chosen"), None), (forced("tiled"), None), (by_choice, None), (forced("chosen"), GradCache(2)),
    )  # fmt: skip
    for implementation, cache in ways:
        ours, given = learner(), batch()
        module: nn.Module = ours
        if distributed.world_size() > 1 and cache is None:
            module = nn.parallel.DistributedDataParallel(ours, static_graph=True, broadcast_buffers=False)
        with implementation:
            for _ in range(2):  # a static graph is used from the second step on
                ours.zero_grad()
                output, ctx = forward_backward(
                    module, given, precision=FULL, scaler=FULL.make_scaler(), cache=cache
                )
        result = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
        result["loss"] = distributed.all_reduce_mean(output.total.detach())
        ours.update_(ctx)
        results.append(result)
    return results


def test_the_step_does_not_depend_on_the_number_of_ranks() -> None:
    alone = steps()
    expected = alone[0]
    norm = sum(gradient.square().sum() for gradient in expected.values()) ** 0.5
    for results in [alone, *run_ranks(2, steps), *run_ranks(3, steps)]:
        for i, result in enumerate(results):
            assert result.keys() == expected.keys()
            difference = sum((result[key] - expected[key]).square().sum() for key in expected) ** 0.5
            assert difference / norm <= 1e-10, f"way {i}: {difference / norm}"


def test_a_step_without_any_box_moves_what_it_can() -> None:
    ours, lines = learner(), []
    sink = logger.add(lines.append, format="{message}")
    for _ in range(2):
        output, _ = ours(batch((0,) * 6))
    logger.remove(sink)
    assert (
        [line for line in lines if line.startswith("'box_owner' is empty on every rank")] == lines[:1] != []
    )
    output.total.backward()
    assert (
        output.terms["masked"].item() == output.terms["boxes"].item() == output.terms["across"].item() == 0.0
    )
    assert all(p.grad is not None and p.grad.isfinite().all() for p in ours.parameters() if p.requires_grad)
    assert output.terms["contrastive"].item() > 0
