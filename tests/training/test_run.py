"""What a run says and refuses about the checkpoint it starts from."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loguru import logger

from hypvl.config import LazyCall as L
from hypvl.data.mix import MixedSources
from hypvl.data.sample import Sample
from hypvl.data.stream import WebDatasetStream
from hypvl.errors import CheckpointError, ConfigError, DataError, StoppedError
from hypvl.training.config import TrainConfig
from hypvl.training.run import RunOptions, _start_from, run_training
from tests.test_demo_recipes import CONFIGS, shard, tiny
from tests.training.tiny import tiny_model

__all__ = ["shard"]  # a fixture


@pytest.fixture
def clip_file(tmp_path: Path) -> Path:
    torch.save({"model": tiny_model("clip", seed=1).state_dict()}, tmp_path / "clip.pth")
    return tmp_path / "clip.pth"


def start(path: Path, **settings: Any) -> str:
    given = {"objective": {}, "init_checkpoint": str(path), **settings}
    return _start_from(tiny_model("meru"), TrainConfig.read(given))


def test_what_is_missing_is_said_by_name(clip_file: Path) -> None:
    wanted = "3 missing: visual_head.log_scale, textual_head.log_scale, geometry.log_curv"
    for settings in ({}, {"init_missing": None}, {"init_missing": ["model.geometry.log_curv", "log_scale"]}):
        said = start(clip_file, **settings)
        assert said.startswith("started from ") and said.endswith(f"clip.pth: {wanted}")


class Noise:
    """A dataset of one's own with nothing but what docs/data.md asks for."""

    fingerprint = "noise"

    def __len__(self) -> int:
        return 24

    def sample(self, row: int, generator: np.random.Generator) -> Sample:
        pixels = torch.from_numpy(generator.integers(0, 256, (3, 32, 32), dtype=np.uint8))
        return {"key": str(row), "image": pixels, "text": torch.tensor([49406, 300 + row, 49407])}


class Nameless(Noise):
    """One that does not say when it changes, and has no samples either."""

    fingerprint = property(lambda self: getattr(self, "nothing"))  # type: ignore[assignment]  # noqa: B009
    sample = property(lambda self: getattr(self, "nothing"))  # type: ignore[assignment]  # noqa: B009


def test_a_dataset_of_ones_own_needs_no_prepare(shard: Path, tmp_path: Path) -> None:
    cfg = tiny(CONFIGS / "train_clip_demo.py", shard)
    cfg.train.update(num_iterations=4, total_batch_size=4, root_samples=4)
    cfg.train.init_checkpoint = None
    cfg.dataset = L(Noise)()
    run_training(cfg, RunOptions(output_dir=tmp_path / "run"))
    logger.remove()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["iteration"] == 4
    cfg.dataset = L(Nameless)()
    with pytest.raises(
        DataError,
        match=r"dataset: a Nameless has no fingerprint, sample; .* has __len__, fingerprint, sample \(",
    ):
        run_training(cfg, RunOptions(output_dir=tmp_path / "other"))
    logger.remove()


class Stopped(Noise):
    """One that is interrupted while it reads its first sample."""

    def sample(self, row: int, generator: np.random.Generator) -> Sample:
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # training has begun
            os.kill(os.getpid(), signal.SIGINT)
        return super().sample(row, generator)


def test_a_run_that_is_stopped_before_its_first_step_says_that_nothing_was_saved(
    shard: Path, tmp_path: Path
) -> None:
    cfg = tiny(CONFIGS / "train_clip_demo.py", shard)
    cfg.train.update(num_iterations=4, total_batch_size=4, root_samples=4, num_workers=0)
    cfg.dataset = L(Stopped)()
    with pytest.raises(StoppedError, match="iteration 0 of 4, before the first step, so nothing was saved"):
        run_training(cfg, RunOptions(output_dir=tmp_path / "run"))
    logger.remove()
    assert not list((tmp_path / "run").glob("*checkpoint*"))
    cfg.dataset = L(Noise)()
    run_training(cfg, RunOptions(output_dir=tmp_path / "run"))  # as the message says
    logger.remove()


def test_a_mixture_is_trained_on_and_its_shares_are_logged(shard: Path, tmp_path: Path) -> None:
    cfg = tiny(CONFIGS / "train_clip_demo.py", shard)
    cfg.train.update(num_iterations=3, total_batch_size=8, root_samples=4)
    cfg.dataset = L(MixedSources)(sources={"a": cfg.dataset, "b": cfg.dataset}, mix={"a": 3, "b": 1})
    run_training(cfg, RunOptions(output_dir=tmp_path / "run"))
    cfg.train.num_iterations = 4
    run_training(cfg, RunOptions(output_dir=tmp_path / "run", resume=True))
    logger.remove()
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(record["share/a"], record["share/b"]) for record in records] == [(0.75, 0.25)] * 4


def test_a_stream_is_trained_on_and_goes_on_with_the_next_shards(shard: Path, tmp_path: Path) -> None:
    cfg = tiny(CONFIGS / "train_clip_demo.py", shard)
    cfg.train.update(
        num_iterations=20, total_batch_size=8, root_samples=4, checkpoint_period=10, log_period=5
    )
    cfg.dataset = L(WebDatasetStream)(
        tarfiles=f"pipe:cat {shard}", allow_pipe=True, samples_per_epoch=32, shuffle_window=16,
        **{key: cfg.dataset[key] for key in ("mapper", "image_transform", "tokenizer")},
    )  # fmt: skip
    run_training(cfg, RunOptions(output_dir=tmp_path / "run"))
    cfg.train.num_iterations = 22
    run_training(cfg, RunOptions(output_dir=tmp_path / "run", resume=True))
    logger.remove()
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["iteration"] == 22 and records[-1]["consumed"] == 176
    assert records[3]["loss"] < records[0]["loss"] < 3
    state = torch.load(tmp_path / "run/checkpoint_final.pth", weights_only=True)["data"]
    assert len(state["places"]) == 1 and state["places"][0][0] > 5  # 176 samples are more than five times 32


def test_episodes_need_rows(shard: Path, tmp_path: Path) -> None:
    cfg = tiny(CONFIGS / "train_protoclip_demo.py", shard)
    cfg.dataset = L(WebDatasetStream)(
        tarfiles=str(shard), samples_per_epoch=32,
        **{key: cfg.dataset[key] for key in ("mapper", "image_transform", "tokenizer")},
    )  # fmt: skip
    with pytest.raises(
        ConfigError, match=r"^train\.objective\.terms\.\w+: reads the samples of an episode before"
    ):
        run_training(cfg, RunOptions(output_dir=tmp_path / "run"))
    logger.remove()
    assert not (tmp_path / "run").exists()


def test_only_what_is_listed_may_be_missing(clip_file: Path) -> None:
    with pytest.raises(CheckpointError, match=r"1 missing: geometry.log_curv"):
        start(clip_file, init_missing=["*_head.log_scale"])
    state = tiny_model("clip").state_dict()
    state["visual_head.projection.weight"] = state["visual_head.projection.weight"][:3]
    torch.save(state, clip_file)
    with pytest.raises(
        CheckpointError, match=r"1 of another shape: visual_head.projection.weight \(\(3, 16\)"
    ):
        start(clip_file, init_missing=["model.geometry.log_curv", "*_head.log_scale"])


def test_wrong_settings_are_errors_of_the_config(clip_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"train.init_missing: 'geometry.curv' names nothing in the model"):
        start(clip_file, init_missing=["model.geometry.curv"])
    with pytest.raises(ConfigError, match=r"train.init_missing: got the text 'geometry.log_curv'"):
        start(clip_file, init_missing="geometry.log_curv")
    with pytest.raises(ConfigError, match=r"train.init_positions: got 'longer'"):
        start(clip_file, init_positions="longer")
