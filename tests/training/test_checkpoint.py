import random
from pathlib import Path

import numpy as np
import pytest
import torch

from hypvl.errors import CheckpointError
from hypvl.models.run_folder import last_checkpoint
from hypvl.training.checkpoint import (
    checkpoint_name,
    random_state,
    restore_random_state,
    save_checkpoint,
)


def test_saved_whole_and_found_again(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, {"iteration": 7}, name=checkpoint_name(7))
    assert path.name == "checkpoint_00000007.pth"
    assert last_checkpoint(tmp_path) == path
    content = torch.load(path, weights_only=True)
    assert content == {"format_version": 1, "iteration": 7}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint_00000007.pth", "last_checkpoint.txt"]


def test_an_interrupted_write_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = save_checkpoint(tmp_path, {"iteration": 1}, name=checkpoint_name(1))

    def fail(state: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(tmp_path, {"iteration": 2}, name=checkpoint_name(2))
    assert last_checkpoint(tmp_path) == old
    assert torch.load(old, weights_only=True)["iteration"] == 1


def test_only_the_newest_periodic_checkpoints_stay(tmp_path: Path) -> None:
    for iteration in (10, 20, 30):
        save_checkpoint(tmp_path, {}, name=checkpoint_name(iteration), keep=2)
    save_checkpoint(tmp_path, {}, name="checkpoint_final.pth", keep=2)
    assert sorted(p.name for p in tmp_path.glob("*.pth")) == [
        "checkpoint_00000020.pth",
        "checkpoint_00000030.pth",
        "checkpoint_final.pth",
    ]


def test_pointer_to_a_missing_file_is_named(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    (tmp_path / "last_checkpoint.txt").write_text("checkpoint_00000005.pth\n")
    with pytest.raises(CheckpointError, match=r"names checkpoint_00000005\.pth, which is not in"):
        last_checkpoint(tmp_path)


def test_random_state_comes_back_through_a_file(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"rng": random_state()}, name="x.pth")
    drawn = (torch.rand(3), random.random(), np.random.rand(3))  # noqa: NPY002
    restore_random_state(torch.load(tmp_path / "x.pth", weights_only=True)["rng"])
    again = (torch.rand(3), random.random(), np.random.rand(3))  # noqa: NPY002
    assert torch.equal(drawn[0], again[0])
    assert drawn[1] == again[1]
    assert (drawn[2] == again[2]).all()
