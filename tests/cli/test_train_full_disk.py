"""A run on a disk that fills up, or that nobody can write to: the checkpoints that are there stay whole."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from hypvl.training.checkpoints.files import newest_good
from hypvl.training.hooks.health import Stalls
from hypvl.training.loop import StepResult, Trainer
from tests.cli.test_train import finished as finished, shards as shards, train
from tests.disks import make_read_only, small_disk


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error: ")]


def test_a_disk_too_small_for_the_next_checkpoint(
    tmp_path: Path, shards: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = (finished / "checkpoint_00000003.pth").stat().st_size
    with small_disk(tmp_path / "disk", kilobytes=int(1.6 * size / 1024)) as disk:
        assert train(disk / "run", shards) == 1
        said = capsys.readouterr().err
        assert len(errors(said)) == 1 and "Traceback" not in said
        assert (
            "checkpoint_final.pth: cannot be written (No space left on device); the checkpoints before"
            in said
        )
        assert not list((disk / "run").glob(".*.part"))
        assert newest_good(disk / "run") == disk / "run" / "checkpoint_00000003.pth"
        shutil.copytree(disk / "run", tmp_path / "moved")
    assert train(tmp_path / "moved", shards, "--resume") == 0
    one, two = (
        torch.load(f / "checkpoint_final.pth", weights_only=True) for f in (finished, tmp_path / "moved")
    )
    assert all(torch.equal(value, two["model"][name]) for name, value in one["model"].items())


def test_a_disk_that_becomes_full_while_it_trains(
    tmp_path: Path,
    shards: str,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """No byte is left for metrics, log and TensorBoard either."""

    def fill(hook: Stalls, trainer: Trainer, step: StepResult) -> None:
        if trainer.iteration == 4:
            with (disk / "filler").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free)

    monkeypatch.setattr(Stalls, "after_step", fill)
    size = (finished / "checkpoint_00000003.pth").stat().st_size
    with small_disk(tmp_path / "disk", kilobytes=4 * size // 1024) as disk:
        assert train(disk / "run", shards, "train.log_period=1") == 1
        said = capfd.readouterr().err
        assert len(errors(said)) == 1 and "cannot be written" in errors(said)[0]
        assert "(No space left on device); " in errors(said)[0] and "Traceback" not in said
        assert newest_good(disk / "run") == disk / "run" / "checkpoint_00000003.pth"


def test_a_read_only_place_is_refused_before_anything_is_built(
    tmp_path: Path, shards: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk", kilobytes=64) as disk:
        make_read_only(disk)
        assert train(disk / "run", shards) == 2
        assert errors(capsys.readouterr().err) == [
            f"error: --output-dir: got {disk / 'run'}, but {disk} cannot be written to; name another one."
        ]
