"""ProtoCLIP whose image tower stays as it is from some step on (LiT), by a window of the learning rate."""

import itertools
from pathlib import Path

import pytest
import torch
from loguru import logger

from hypvl.config import LazyConfig
from hypvl.models.checkpoint_io import load_checkpoint
from hypvl.training.run import RunOptions, run_training
from tests.test_demo_recipes import CONFIGS, shard, tiny

__all__ = ["shard"]  # a fixture


@pytest.mark.slow
def test_protoclip_leaves_the_image_tower_alone_after_its_window(shard: Path, tmp_path: Path) -> None:
    cfg = tiny(CONFIGS / "train_protoclip_demo.py", shard)
    cfg.train.update(num_iterations=8, checkpoint_period=2)
    cfg = LazyConfig.apply_overrides(cfg, ["+optim.parameters.windows={model.visual*:[0,4]}"])
    run_training(cfg, RunOptions(output_dir=tmp_path))
    logger.remove()
    weights = [
        load_checkpoint(tmp_path / f"checkpoint_{name}.pth")["model"]
        for name in ("00000002", "00000004", "final")
    ]
    moved = [
        {name.partition(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
        for before, after in itertools.pairwise(weights)
    ]
    assert moved[0] == {"visual", "visual_head", "textual", "textual_head", "scorer"}
    assert moved[1] == {"textual", "textual_head", "scorer"}
