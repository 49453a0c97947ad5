"""Runs as `scripts/train.py` makes them, with the batch divided: same records, resumed exactly, refused clearly."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from loguru import logger
from omegaconf import DictConfig

from hypvl.config import LazyCall as L
from hypvl.encoders.image import TimmImageEncoder
from hypvl.errors import ConfigError
from hypvl.models.checkpoint_io import load_checkpoint
from hypvl.training.run import RunOptions, run_training
from tests.test_demo_recipes import CONFIGS, shard, tiny

__all__ = ["shard"]  # a fixture


def config(shard: Path, **settings: Any) -> DictConfig:
    cfg = tiny(CONFIGS / "train_ceclip_demo.py", shard)
    cfg.train.init_checkpoint = None
    cfg.train.update(num_iterations=4, total_batch_size=12, checkpoint_period=2, root_samples=12)
    cfg.train.update(settings)
    return cfg


def records(cfg: DictConfig, folder: Path, *, resume: bool = False) -> list[dict[str, Any]]:
    run_training(cfg, RunOptions(output_dir=folder, resume=resume))
    logger.remove()
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_records_are_those_of_the_plain_run(shard: Path, tmp_path: Path) -> None:
    plain = records(config(shard), tmp_path / "plain")
    divided = {
        "cached": {"grad_cache": {"micro_batch": 5}},
        "accumulated": {"accumulate": 3},
    }
    for name, settings in divided.items():
        result = records(config(shard, **settings), tmp_path / name)
        assert [record.keys() for record in result] == [record.keys() for record in plain]
        for record, expected in zip(result, plain, strict=True):
            for key in ("loss", "contrastive", "grad_norm", "lr", "consumed", "epoch"):
                # float32, four steps on; AdamW makes much of gradients that are 0 up to rounding
                assert record[key] == pytest.approx(expected[key], rel=1e-3), (name, record["iteration"], key)
        assert result[0]["grad_norm"] == pytest.approx(plain[0]["grad_norm"], rel=1e-5)
    log = (tmp_path / "accumulated" / "log-rank0.txt").read_text()
    assert "gradient caching: encoders see 4 rows at once, the loss all of them" in log


@pytest.mark.parametrize("settings", [{"grad_cache": {"micro_batch": 5}}, {"naive_accumulate": 2}], ids=str)
def test_resumed_exactly(settings: dict[str, Any], shard: Path, tmp_path: Path) -> None:
    cfg = config(shard, **settings)
    assert [record["consumed"] for record in records(cfg, tmp_path / "whole")] == [12, 24, 36, 48]
    again = tmp_path / "again"
    again.mkdir()
    shutil.copy(tmp_path / "whole" / "checkpoint_00000002.pth", again)
    (again / "last_checkpoint.txt").write_text("checkpoint_00000002.pth\n")
    assert [record["iteration"] for record in records(cfg, again, resume=True)] == [3, 4]
    first, second = (load_checkpoint(tmp_path / name / "checkpoint_final.pth") for name in ("whole", "again"))
    for part in ("model", "objective"):
        for name, value in first[part].items():
            assert torch.equal(value, second[part][name]), name


def test_what_cannot_be_done_is_refused_before_anything_is_written(shard: Path, tmp_path: Path) -> None:
    cfg = config(shard, grad_cache={"micro_batch": 4})
    cfg.model.visual = L(TimmImageEncoder)(arch="resnet10t", image_size=32)
    with pytest.raises(
        ConfigError, match=r"^train.grad_cache.micro_batch: model.visual.trunk.conv1.1 is a BatchN"
    ):
        records(cfg, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"train.accumulate: got 13, but a process has 12 samples"):
        records(config(shard, accumulate=13), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"train.naive_accumulate: got 5 with train.total_batch_size=12"):
        records(config(shard, naive_accumulate=5), tmp_path / "run")
    logger.remove()
    assert not (tmp_path / "run").exists()
