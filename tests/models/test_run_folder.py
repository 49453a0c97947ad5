"""The checkpoint of a run folder."""

import re
from pathlib import Path

import pytest
import torch

from hypvl.errors import CheckpointError
from hypvl.models.checkpoint_io import checkpoint_file, checkpoints, last_checkpoint, load_checkpoint


def test_the_checkpoint_that_the_pointer_names(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_0000010.pth").touch()
    (tmp_path / "last_checkpoint.txt").write_text("checkpoint_0000010.pth\n")
    assert checkpoint_file(tmp_path) == last_checkpoint(tmp_path) == tmp_path / "checkpoint_0000010.pth"
    (tmp_path / "checkpoint_final.pth").touch()  # of the run before it was made longer
    assert checkpoint_file(tmp_path) == tmp_path / "checkpoint_0000010.pth"
    (tmp_path / "last_checkpoint.txt").write_text("checkpoint_final.pth\n")
    assert checkpoint_file(str(tmp_path)) == tmp_path / "checkpoint_final.pth"


@pytest.mark.parametrize(("final", "newest"), [(6, "checkpoint_00000009.pth"), (9, "checkpoint_final.pth")])
@pytest.mark.parametrize("pointer", [None, "checkpoint_00000012.pth"])
def test_without_a_pointer_the_newest_is_found_by_looking(
    tmp_path: Path, final: int, newest: str, pointer: str | None
) -> None:
    for iteration in (3, 9):
        torch.save({"iteration": iteration}, tmp_path / f"checkpoint_{iteration:08d}.pth")
    torch.save({"iteration": final}, tmp_path / "checkpoint_final.pth")
    (tmp_path / "checkpoint_old.pth").touch()
    if pointer is not None:
        (tmp_path / "last_checkpoint.txt").write_text(pointer)
    assert checkpoint_file(tmp_path) == last_checkpoint(tmp_path) == tmp_path / newest
    assert len(checkpoints(tmp_path)) == 3


def test_a_final_checkpoint_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    torch.save({"iteration": 3}, tmp_path / "checkpoint_00000003.pth")
    (tmp_path / "checkpoint_final.pth").write_bytes(b"PK half a file")
    with pytest.raises(CheckpointError, match=r"checkpoint_final\.pth: truncated or damaged"):
        load_checkpoint(tmp_path)


def test_a_file_is_itself_whether_or_not_it_is_there(tmp_path: Path) -> None:
    assert checkpoint_file(tmp_path / "gone.pth") == tmp_path / "gone.pth"


def test_a_folder_without_checkpoints(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    with pytest.raises(CheckpointError, match=r"neither checkpoint_final\.pth nor last_checkpoint\.txt"):
        checkpoint_file(tmp_path)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("checkpoint_0000010.pth", "is not there"),
        ("../elsewhere/checkpoint_0000010.pth", "is not the name of a file in this folder"),
    ],
)
def test_a_checkpoint_that_is_gone_is_named(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "last_checkpoint.txt").write_text(name)
    with pytest.raises(
        CheckpointError, match=re.escape(f"names {name}, which {what}, and {tmp_path} has no checkpoint")
    ):
        checkpoint_file(tmp_path)
