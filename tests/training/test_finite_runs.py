"""200 steps on demo data in every geometry, in bf16 and in fp32: no step is skipped, no number is lost."""

import json
import math
from pathlib import Path

import pytest
import torch
from loguru import logger

from hypvl.config import LazyConfig, instantiate
from hypvl.geometry.base import Geometry
from hypvl.models.checkpoint_io import load_checkpoint
from hypvl.training.run import RunOptions, run_training
from tests.geometry.test_conformance import concrete
from tests.test_demo_recipes import CONFIGS, shard, tiny

__all__ = ["shard"]  # the fixture
RECIPES = ("clip", "siglip", "meru", "atmg", "uncha", "euclip", "euclip_cones", "phyclip")
STEPS = 200


def test_every_geometry_has_a_recipe_here() -> None:
    built = {
        type(instantiate(LazyConfig.load(CONFIGS / f"train_{name}_demo.py").model.geometry))
        for name in RECIPES
    }
    assert concrete(Geometry) <= built


@pytest.mark.slow
@pytest.mark.parametrize("amp", ["bf16", "fp32"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_stays_finite(recipe: str, amp: str, shard: Path, tmp_path: Path) -> None:
    cfg = tiny(CONFIGS / f"train_{recipe}_demo.py", shard)
    cfg.train.update(num_iterations=STEPS, total_batch_size=8, root_samples=8, amp=amp)
    run_training(cfg, RunOptions(output_dir=tmp_path / "run"))
    logger.remove()
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(records) == STEPS and sum(record["skipped_steps"] for record in records) == 0
    for name in ("loss", "grad_norm", *cfg.train.objective.terms):
        assert all(record[name] is not None and math.isfinite(record[name]) for record in records), name
    assert not (tmp_path / "run" / "skipped_steps.jsonl").read_text()
    saved = load_checkpoint(tmp_path / "run" / "checkpoint_final.pth")["model"]
    assert all(torch.isfinite(value).all() for value in saved.values() if value.is_floating_point())
