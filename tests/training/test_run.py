"""What a run says and refuses about the checkpoint it starts from."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hypvl.errors import CheckpointError, ConfigError
from hypvl.training.config import TrainConfig
from hypvl.training.run import _start_from
from tests.training.tiny import tiny_model


@pytest.fixture
def clip_file(tmp_path: Path) -> Path:
    torch.save({"model": tiny_model("clip", seed=1).state_dict()}, tmp_path / "clip.pth")
    return tmp_path / "clip.pth"


def start(path: Path, **settings: Any) -> str:
    given = {"objective": {}, "init_checkpoint": str(path), **settings}
    return _start_from(tiny_model("meru"), TrainConfig.read(given))


def test_what_is_missing_is_said_by_name(clip_file: Path) -> None:
    wanted = "3 missing: visual_head.log_scale, textual_head.log_scale, geometry.log_curv"
    for settings in ({}, {"init_missing": None}, {"init_missing": ["geometry.log_curv", "*_head.log_scale"]}):
        said = start(clip_file, **settings)
        assert said.startswith("started from ") and said.endswith(f"clip.pth: {wanted}")


def test_only_what_is_listed_may_be_missing(clip_file: Path) -> None:
    with pytest.raises(CheckpointError, match=r"1 missing: geometry.log_curv"):
        start(clip_file, init_missing=["*_head.log_scale"])
    state = tiny_model("clip").state_dict()
    state["visual_head.projection.weight"] = state["visual_head.projection.weight"][:3]
    torch.save(state, clip_file)
    with pytest.raises(
        CheckpointError, match=r"1 of another shape: visual_head.projection.weight \(\(3, 16\)"
    ):
        start(clip_file, init_missing=["geometry.log_curv", "*_head.log_scale"])


def test_wrong_settings_are_errors_of_the_config(clip_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"train.init_missing: 'geometry.curv' names nothing in the model"):
        start(clip_file, init_missing=["geometry.curv"])
    with pytest.raises(ConfigError, match=r"train.init_missing: got the text 'geometry.log_curv'"):
        start(clip_file, init_missing="geometry.log_curv")
    with pytest.raises(ConfigError, match=r"train.init_positions: got 'longer'"):
        start(clip_file, init_positions="longer")
