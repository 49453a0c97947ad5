"""A real run that gives up because its steps are not finite, what it leaves in its folder, and how it goes on."""

import json
from pathlib import Path
from unittest import mock

import pytest
import torch
from loguru import logger

from hypvl.config import LazyCall as L
from hypvl.errors import UserError
from hypvl.losses.base import PairContext
from hypvl.losses.contrastive import Contrastive
from hypvl.training.run import RunOptions, run_training
from tests.test_demo_recipes import CONFIGS, shard, tiny
from tests.training.test_run import Noise

__all__ = ["shard"]  # a fixture


def test_it_can_be_resumed(shard: Path, tmp_path: Path) -> None:
    cfg = tiny(CONFIGS / "train_meru_demo.py", shard)
    cfg.train.update(num_iterations=9, total_batch_size=4, root_samples=4, max_skipped_steps=2)
    cfg.dataset = L(Noise)()
    folder, calls = tmp_path / "run", 0
    real = Contrastive.forward

    def breaks(self: Contrastive, ctx: PairContext) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return real(self, ctx) * (float("nan") if calls >= 4 else 1.0)

    with mock.patch.object(Contrastive, "forward", breaks), pytest.raises(UserError) as raised:
        run_training(cfg, RunOptions(output_dir=folder))
    logger.remove()
    message = str(raised.value)
    assert (
        "2 steps in a row up to iteration 5" in message and "the loss (contrastive) is not finite" in message
    )
    assert (folder / "checkpoint_00000005.pth").is_file() and "checkpoint_00000005.pth" in message
    dump = torch.load(folder / "skipped_batch_rank0.pt", weights_only=True)
    assert len(dump["batches"][0]["key"]) == len(dump["batches"][0]["image"]) == 4
    skipped = [json.loads(line) for line in (folder / "skipped_steps.jsonl").read_text().splitlines()]
    assert [record["iteration"] for record in skipped] == [4, 5]
    assert skipped[-1]["keys"] == dump["batches"][0]["key"]
    run_training(cfg, RunOptions(output_dir=folder, resume=True))
    logger.remove()
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["iteration"] for record in records] == list(range(1, 10))
    assert [record["skipped_steps"] for record in records] == [0, 0, 0, 1, 1, 0, 0, 0, 0]
