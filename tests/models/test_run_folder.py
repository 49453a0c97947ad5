"""The checkpoint of a run folder."""

from pathlib import Path

import pytest

from hypvl.errors import CheckpointError
from hypvl.models.run_folder import checkpoint_file, last_checkpoint


def test_the_final_checkpoint_else_the_last_one(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_0000010.pth").touch()
    (tmp_path / "last_checkpoint.txt").write_text("checkpoint_0000010.pth\n")
    assert checkpoint_file(tmp_path) == last_checkpoint(tmp_path) == tmp_path / "checkpoint_0000010.pth"
    (tmp_path / "checkpoint_final.pth").touch()
    assert checkpoint_file(str(tmp_path)) == tmp_path / "checkpoint_final.pth"


def test_a_file_is_itself_whether_or_not_it_is_there(tmp_path: Path) -> None:
    assert checkpoint_file(tmp_path / "gone.pth") == tmp_path / "gone.pth"


def test_a_folder_without_checkpoints(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    with pytest.raises(CheckpointError, match=r"neither checkpoint_final\.pth nor last_checkpoint\.txt"):
        checkpoint_file(tmp_path)


@pytest.mark.parametrize("name", ["checkpoint_0000010.pth", "../elsewhere/checkpoint_0000010.pth"])
def test_a_checkpoint_that_is_gone_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "last_checkpoint.txt").write_text(name)
    with pytest.raises(CheckpointError, match=r"names checkpoint_0000010\.pth, which is not in"):
        checkpoint_file(tmp_path)
