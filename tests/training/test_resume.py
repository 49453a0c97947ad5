"""Ranks resume from one checkpoint, or not at all."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from hypvl import distributed
from hypvl.cli.common import load_config
from hypvl.errors import CheckpointError
from hypvl.models.checkpoint_io import last_checkpoint
from hypvl.training.checkpoints.files import checkpoint_name, newest_good, save_checkpoint
from hypvl.training.resume import _ranks, read_resumed
from hypvl.training.run import RunOptions, run_training
from hypvl.training.state import ENTRIES
from tests.cli.test_train import ROOT, SMALL, shards as shards
from tests.ranks import run_ranks

RUN = Path("run")  # below the working directory, of which every rank has its own


def save(folder: Path, iteration: int, *, value: float = 1.0) -> None:
    state: dict[str, Any] = {name: {} for name in ENTRIES}
    state |= {"model": {"a": torch.full((4,), value)}, "iteration": iteration, "format_version": 1}
    save_checkpoint(folder, state, name=checkpoint_name(iteration))


def _resumed(folder: str) -> tuple[str, str]:
    os.chdir(Path(folder) / str(distributed.rank()))
    try:
        state = read_resumed(lambda: newest_good(RUN))
    except CheckpointError as error:
        return "error", str(error)
    return "state", repr(None if state is None else state["iteration"])


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """The run's folder as each of two machines sees it."""
    places = [tmp_path / str(rank) / RUN for rank in range(2)]
    for place in places:
        place.mkdir(parents=True)
    return places


def test_equal_copies_are_one_checkpoint(folders: list[Path], tmp_path: Path) -> None:
    for folder in folders:
        save(folder, 20)
    save(folders[1], 30)  # of no interest: rank 0 decides
    assert run_ranks(2, _resumed, str(tmp_path)) == [("state", "20")] * 2


def test_without_a_checkpoint_on_rank_0_all_start_anew(folders: list[Path], tmp_path: Path) -> None:
    save(folders[1], 30)
    assert run_ranks(2, _resumed, str(tmp_path)) == [("state", "None")] * 2


def test_another_checkpoint_of_the_same_name_is_named(folders: list[Path], tmp_path: Path) -> None:
    save(folders[0], 20)
    save(folders[1], 20, value=2.0)
    (first, message), second = run_ranks(2, _resumed, str(tmp_path))
    assert first == "error" and second == (first, message)
    assert message.startswith(
        "--resume: the ranks do not find the same checkpoint at run/checkpoint_00000020.pth: rank 0 found 'iteration 20"
    )
    assert message.count("iteration 20, checksum ") == 2 and "; rank 1 found 'iteration 20" in message


def test_a_rank_that_does_not_see_the_file_is_named(folders: list[Path], tmp_path: Path) -> None:
    save(folders[0], 20)
    save(folders[1], 10)
    (first, message), second = run_ranks(2, _resumed, str(tmp_path))
    assert first == "error" and second == (first, message)
    assert "rank 0 found 'iteration 20, checksum " in message
    assert "; rank 1 found 'run/checkpoint_00000020.pth: no such file" in message


def test_one_process_gets_the_sentence_of_the_reader(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"model": {"a": torch.ones(1)}}, name=checkpoint_name(1))
    with pytest.raises(
        CheckpointError, match=r"00001\.pth: has no data, .*, so training cannot continue from it; [^;]*$"
    ):
        read_resumed(lambda: last_checkpoint(tmp_path))


@pytest.mark.parametrize(("numbers", "text"), [([3], "rank 3"), ([0, 2, 3, 4, 7], "ranks 0, 2-4, 7")])
def test_ranks_are_named_in_ranges(numbers: list[int], text: str) -> None:
    assert _ranks(numbers) == text


def _trained(folder: str, shards: str) -> tuple[str, list[str]]:
    """A run of two steps more, or why there is none; and what is in the folder then."""
    own = Path(folder) / str(distributed.rank())
    os.chdir(own)
    config = str(ROOT / "configs" / "train_clip_demo.py")
    cfg = load_config(config, [*SMALL, shards, "train.log_period=1"], required=("train",))
    try:
        run_training(cfg, RunOptions(RUN, resume=(own / "resume").is_file()))
        said = "trained"
    except CheckpointError as error:
        said = str(error)
    return said, sorted(path.name for path in (own / RUN).glob("*")) if (own / RUN).is_dir() else []


@pytest.mark.slow
def test_ranks_without_a_shared_folder_train_nothing(tmp_path: Path, shards: str) -> None:
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
    run_ranks(2, _trained, str(tmp_path), shards)
    for rank in range(2):
        (tmp_path / str(rank) / "resume").touch()
    (tmp_path / "0" / RUN / "last_checkpoint.txt").write_text(checkpoint_name(3))
    before = {
        path: path.stat().st_mtime_ns
        for path in tmp_path.rglob("*")
        if path.is_file() and path.name != ".lock"
    }
    (said, _), (other, seen) = run_ranks(2, _trained, str(tmp_path), shards)
    assert said == other and "rank 1 found 'run/checkpoint_00000003.pth: no such file" in said
    assert "log-rank1.txt" in seen and not any(name.endswith(".pth") for name in seen)
    assert {path: path.stat().st_mtime_ns for path in before} == before
