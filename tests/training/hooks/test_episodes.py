"""Episodes: clusters of the very samples that are trained on next, on one and two processes, and resumed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from loguru import logger
from omegaconf import DictConfig

from hypvl.config import LazyCall as L
from hypvl.errors import ConfigError
from hypvl.losses.base import Objective
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.proto_clip import ProtoCLIP
from hypvl.training.hooks.episodes import kmeans_labels
from hypvl.training.run import RunOptions, run_training
from hypvl.training.teachers import FrozenTeacher
from tests.ranks import run_ranks
from tests.test_demo_recipes import CONFIGS, shard, tiny
from tests.training.test_teacher_cache import Short
from tests.training.tiny import tiny_model

__all__ = ["shard"]  # a fixture


def test_kmeans_by_hand() -> None:
    rows = torch.tensor([[0.0, 0.0], [0.0, 1.0], [9.0, 9.0], [9.0, 8.0], [torch.nan, 0.0]])
    labels = kmeans_labels(rows, count=2, iterations=20, seed=0)
    assert labels.dtype == torch.int64 and labels[0] == labels[1] == labels[4] != labels[2] == labels[3]
    assert kmeans_labels(rows[:2], count=5, iterations=3, seed=0).max() <= 1


def config(shard: Path, *, episode: int = 16) -> DictConfig:
    cfg = tiny(CONFIGS / "train_clip_demo.py", shard)
    cfg.train.update(num_iterations=4, total_batch_size=8, root_samples=4, amp="fp32", checkpoint_period=3)
    cfg.train.init_checkpoint = None
    cfg.dataset, cfg.model = L(Short)(), L(tiny_model)(recipe="clip")
    proto = L(ProtoCLIP)(
        embed_dim=12,
        clusters=4,
        external_clusters=3,
        episode=episode,
        features=6,
        hidden=8,
        external="text@teacher",
    )
    cfg.train.objective = L(Objective)(terms={"contrastive": L(Contrastive)(), "proto": proto})
    cfg.train.teachers = {"teacher": L(FrozenTeacher)(model=L(tiny_model)(recipe="clip", seed=3))}
    return cfg


def train(cfg: DictConfig, folder: Path, **options: Any) -> list[dict[str, float]]:
    run_training(cfg, RunOptions(output_dir=folder, log_period=1, **options))
    logger.remove()
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [record for record in records if "loss" in record]


def test_every_sample_of_a_step_has_its_labels(tmp_path: Path, shard: Path) -> None:
    cfg = config(shard)
    records = train(cfg, tmp_path / "run")
    assert len(records) == 4 and all(0 < record["proto"] < 100 for record in records)
    state = torch.load(tmp_path / "run" / "checkpoint_final.pth", weights_only=True)["objective"]
    labels = state["terms.proto.labels"]
    assert state["terms.proto.first_position"] == 16  # the second episode
    assert labels.shape == (3, 16) and labels.min() == 0 and labels[:2].max() <= 3 and labels[2].max() <= 2


def test_resumed_inside_an_episode_the_run_is_the_same(tmp_path: Path, shard: Path) -> None:
    whole = train(config(shard), tmp_path / "whole")
    cfg = config(shard)
    cfg.train.num_iterations = 3
    train(cfg, tmp_path / "parts")
    cfg.train.num_iterations = 4
    parts = train(cfg, tmp_path / "parts", resume=True)
    assert [r["loss"] for r in parts] == pytest.approx([r["loss"] for r in whole], rel=1e-6)


def _train(folder: str, shard: str) -> None:
    cfg = config(Path(shard))
    run_training(cfg, RunOptions(output_dir=Path(folder), log_period=1))


def test_two_processes_cluster_as_one_does(tmp_path: Path, shard: Path) -> None:
    one = train(config(shard), tmp_path / "one")
    run_ranks(2, _train, str(tmp_path / "two"), str(shard))
    lines = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    two = [record for record in map(json.loads, lines) if "loss" in record]
    assert [r["proto"] for r in two] == pytest.approx([r["proto"] for r in one], rel=1e-4)


def test_an_episode_of_parts_of_a_batch_is_refused(tmp_path: Path, shard: Path) -> None:
    with pytest.raises(ConfigError, match=r"proto\.episode: got 12 with train\.total_batch_size=8"):
        train(config(shard, episode=12), tmp_path / "run")
    assert not (tmp_path / "run").exists()
