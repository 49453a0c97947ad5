"""Hyper3-CLIP's objective on any number of ranks, with any number of boxes and queries: DDP and cached steps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hypvl import distributed
from hypvl.config import LazyConfig, instantiate
from hypvl.encoders.conv_vit import ConvStemViT
from hypvl.encoders.text import TextTransformer
from hypvl.training.accumulation import GradCache
from hypvl.training.step import Learner, Precision, forward_backward
from tests.ranks import run_ranks
from tests.training.tiny import ragged_batch

COMMON = Path(__file__).resolve().parents[2] / "configs" / "common"
BOXES = (2, 1, 3, 0, 0, 0)  # of each sample: the last of two and of three ranks has none
QUERIES = (3, 1, 4, 2, 0, 0)  # the last of three ranks has none
FULL = Precision.choose(False, torch.device("cpu"))


def learner() -> Learner:
    """The recipe's model and objective, with HiMo's term and tiny encoders."""
    config = LazyConfig.load(COMMON / "model" / "hyper3clip.py").model
    config.visual = config.textual = None
    config.visual_head.out_features = config.textual_head.out_features = 12
    config.query_pooling.heads = 2
    torch.manual_seed(0)
    model = instantiate(
        config,
        visual=ConvStemViT(16, 1, heads=2, image_size=16, patch_size=4, pool="class_token"),
        textual=TextTransformer("L1_W16_A2", vocab_size=50, context_length=8, activation="quick_gelu"),
    )
    cfg = LazyConfig.load(COMMON / "objective" / "hyper3clip_himo.py").objective
    cfg.terms.query_text_shuffled = {**cfg.terms.query_text_entailment, "parents": "shuffled"}
    return Learner(model, instantiate(cfg)).double()


def batch() -> dict[str, Any]:
    """What this rank has of a batch; the queries of a sample are a chain below its first one."""
    rank, world = distributed.rank(), distributed.world_size()
    each = len(BOXES) // world
    mine, wholes = slice(rank * each, (rank + 1) * each), ragged_batch(len(BOXES))
    found = {key: wholes[key][mine] for key in ("image", "text", "text_lengths", "position")}
    for name, counts, seed in (("box", BOXES, 1), ("query", QUERIES, 2)):
        rows, before = ragged_batch(sum(counts), seed=seed), sum(counts[: mine.start])
        here = slice(before, before + sum(counts[mine]))
        found |= {f"{name}_{key}": rows[key][here] for key in ("image", "text", "text_lengths")}
        found[f"{name}_owner"] = np.repeat(np.arange(each), counts[mine])
    del found["query_image"]
    places = torch.tensor([place for count in QUERIES[mine] for place in range(count)], dtype=torch.int64)
    rows_here = torch.arange(len(places))
    return found | {
        "query_parent": torch.where(places == 0, -1, rows_here - 1),
        "query_weight": torch.tensor([0.0, 1.0, 0.75, 0.5], dtype=torch.float64)[places],
    }


def steps() -> list[dict[str, Tensor]]:
    """Mean loss and averaged gradients: directly, and cached."""
    results = []
    for cache in (None, GradCache(2)):
        ours, given = learner(), batch()
        module: nn.Module = ours
        if distributed.world_size() > 1 and cache is None:
            module = nn.parallel.DistributedDataParallel(ours, static_graph=True, broadcast_buffers=False)
        for _ in range(2):  # a static graph is used from the second step on
            ours.zero_grad()
            output, ctx = forward_backward(
                module, given, precision=FULL, scaler=FULL.make_scaler(), cache=cache
            )
        assert all(p.grad is not None for p in ours.parameters() if p.requires_grad)
        result = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
        for name, value in {"total": output.total.detach(), **output.terms}.items():
            result[f"value {name}"] = distributed.all_reduce_mean(value)
        ours.update_(ctx)
        results.append(result)
    return results


@pytest.mark.slow
def test_the_step_does_not_depend_on_the_number_of_ranks() -> None:
    alone = steps()
    expected = alone[0]
    assert all(expected[key] != 0 for key in expected if key.startswith("value"))
    for results in [alone, *run_ranks(2, steps), *run_ranks(3, steps)]:
        for i, result in enumerate(results):
            assert result.keys() == expected.keys()
            for key, value in expected.items():
                difference = (result[key] - value).norm() / value.norm().clamp(min=1.0)
                assert difference <= 1e-10, f"{key}, way {i}: {difference}"
