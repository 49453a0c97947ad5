import contextlib
import errno
import io
import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loguru import logger

from hypvl.errors import CheckpointError, ConfigError
from hypvl.models.checkpoint_io import last_checkpoint, load_checkpoint
from hypvl.training.checkpoints import files
from hypvl.training.checkpoints.files import (
    checkpoint_name,
    newest_good,
    save_checkpoint,
)
from hypvl.training.random_state import random_state, restore_random_state
from hypvl.training.run_folder import RunFolder


@contextlib.contextmanager
def said() -> Iterator[list[str]]:
    """Warnings that are logged in the block."""
    lines: list[str] = []
    handler = logger.add(lambda message: lines.append(str(message)), format="{message}", level="WARNING")
    try:
        yield lines
    finally:
        logger.remove(handler)


def test_saved_whole_and_found_again(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, {"iteration": 7}, name=checkpoint_name(7))
    assert path.name == "checkpoint_00000007.pth"
    assert last_checkpoint(tmp_path) == path
    content = torch.load(path, weights_only=True)
    assert content == {"iteration": 7}
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


@pytest.mark.parametrize("keep", [0, -1])
def test_a_checkpoint_is_never_removed_as_soon_as_it_is_written(tmp_path: Path, keep: int) -> None:
    with pytest.raises(ValueError, match=f"keep: got {keep}; expected a whole number of at least 1"):
        save_checkpoint(tmp_path, {}, name=checkpoint_name(1), keep=keep)
    assert list(tmp_path.iterdir()) == []


def test_after_the_pointer_was_set_back_later_files_do_not_count(tmp_path: Path) -> None:
    for iteration in (10, 20, 30, 40):
        save_checkpoint(tmp_path, {}, name=checkpoint_name(iteration))
    for iteration in (15, 20):  # on from 10, with other settings
        save_checkpoint(tmp_path, {}, name=checkpoint_name(iteration), keep=2)
        assert last_checkpoint(tmp_path) == tmp_path / checkpoint_name(iteration)
    assert [p.name[11:19] for p in sorted(tmp_path.glob("*.pth"))] == [
        "00000015",
        "00000020",
        "00000030",
        "00000040",
    ]
    save_checkpoint(tmp_path, {}, name=checkpoint_name(40), keep=2)  # overtaken: now they are old ones
    assert [p.name[11:19] for p in sorted(tmp_path.glob("*.pth"))] == ["00000030", "00000040"]


def flip(path: Path, value: torch.Tensor) -> None:
    """One bit of a tensor in a file."""
    content = bytearray(path.read_bytes())
    content[content.index(value.numpy().tobytes()) + 9] ^= 16
    path.write_bytes(content)


def truncate(path: Path, value: torch.Tensor) -> None:
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize("damage", [flip, truncate])
@pytest.mark.parametrize("pointer", [True, False])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, damage: Callable[[Path, torch.Tensor], None], pointer: bool
) -> None:
    weights = torch.arange(64.0)
    for iteration in (10, 20):
        save_checkpoint(
            tmp_path, {"weights": weights, "iteration": iteration}, name=checkpoint_name(iteration)
        )
    save_checkpoint(tmp_path, {"weights": weights, "iteration": 30}, name="checkpoint_final.pth")
    if not pointer:
        (tmp_path / "last_checkpoint.txt").unlink()
    with said() as lines:
        assert newest_good(tmp_path) == tmp_path / "checkpoint_final.pth"
    assert lines == (
        []
        if pointer
        else [f"{tmp_path}: has no last_checkpoint.txt; taking checkpoint_final.pth, the newest\n"]
    )
    damage(tmp_path / "checkpoint_final.pth", weights)
    with said() as lines:
        assert newest_good(tmp_path) == tmp_path / checkpoint_name(20)
    assert len(lines) == 2 - pointer and "checkpoint_final.pth: damaged (" in lines[-1]
    with pytest.raises(CheckpointError, match=r"checkpoint_final\.pth: truncated or damaged"):
        load_checkpoint(tmp_path)  # an evaluation does not take another one
    for iteration in (10, 20):
        damage(tmp_path / checkpoint_name(iteration), weights)
    with pytest.raises(
        CheckpointError, match=r"damaged are checkpoint_final\.pth .*, checkpoint_00000020.*00000010"
    ):
        newest_good(tmp_path)


def test_the_one_before_is_not_a_later_one(tmp_path: Path) -> None:
    weights = torch.arange(64.0)
    for iteration in (10, 20, 30):
        save_checkpoint(tmp_path, {"weights": weights}, name=checkpoint_name(iteration))
    (tmp_path / "last_checkpoint.txt").write_text(checkpoint_name(20))
    flip(tmp_path / checkpoint_name(20), weights)
    assert newest_good(tmp_path) == tmp_path / checkpoint_name(10)


def test_a_full_disk_is_the_systems_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = save_checkpoint(tmp_path, {"iteration": 1}, name=checkpoint_name(1))

    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() + len(data) > 4096:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

        def fileno(self) -> int:
            return os.open(tmp_path, os.O_RDONLY)

    monkeypatch.setattr("hypvl.io.files.open_new", lambda path: Full())
    with pytest.raises(OSError, match="No space left on device"):
        save_checkpoint(tmp_path, {"weights": torch.zeros(5000)}, name=checkpoint_name(2))
    assert last_checkpoint(tmp_path) == old


def test_one_run_at_a_time_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with RunFolder(folder, resume=False) as first, RunFolder(folder, resume=False) as second:
        assert first.start() is second.start() is None
        assert not folder.exists()
        first.make()
        with pytest.raises(ConfigError, match=r"another run is writing into .*run; wait for its end"):
            second.make()
        with (
            RunFolder(folder, resume=True) as third,
            pytest.raises(ConfigError, match="another run is writing"),
        ):
            third.start()
        save_checkpoint(folder, {}, name=checkpoint_name(1))
    with RunFolder(folder, resume=True) as later:  # the lock ends with its run
        assert later.start() == folder / checkpoint_name(1)


def test_a_run_that_came_and_went_in_between_is_not_written_over(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with RunFolder(folder, resume=False) as slow:
        assert slow.start() is None
        with RunFolder(folder, resume=False) as fast:
            fast.start()
            fast.make()
            save_checkpoint(folder, {}, name=checkpoint_name(1))
        with pytest.raises(ConfigError, match="already holds a run"):
            slow.make()


@pytest.mark.parametrize(
    ("name", "content", "held"),
    [
        ("checkpoint_00000003.pth", b"", "checkpoint_00000003.pth"),
        ("checkpoint_final.pth", b"", "checkpoint_final.pth"),
        ("metrics.jsonl", b"{}\n", "metrics.jsonl, without a checkpoint"),
        ("metrics.jsonl", b"", None),  # nothing was trained
        ("notes.md", b"mine", None),
    ],
)
def test_leftovers_of_a_run_are_recognised(
    tmp_path: Path, name: str, content: bytes, held: str | None
) -> None:
    (tmp_path / name).write_bytes(content)
    with RunFolder(tmp_path, resume=False) as place:
        if held is None:
            assert place.start() is None
        else:
            with pytest.raises(ConfigError, match=re.escape(f"already holds a run ({held}); add --resume")):
                place.start()


def test_a_resume_that_finds_nothing_says_so_in_a_line(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", resume=True) as place, said() as lines:
        assert place.start() is None
    assert lines == [f"--resume: no checkpoint in {tmp_path / 'run'}; starting at iteration 0\n"]


def test_half_written_files_of_killed_runs_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint_00000009.pth.4711.part").write_bytes(b"half")
    (tmp_path / "mine.part").write_bytes(b"mine")
    with RunFolder(tmp_path, resume=False) as place:
        place.start()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "mine.part"]


POINTERS = {
    "missing file": (b"checkpoint_00000005.pth\n", r"names checkpoint_00000005\.pth, which is not there"),
    "empty": (b"\n", "is empty"),
    "not text": (b"\xff\xfe\x00c", "is not text"),
    "outside": (
        b"../other/checkpoint_00000010.pth",
        "names .*, which is not the name of a file in this folder",
    ),
    "absolute": (b"/etc/passwd", "names /etc/passwd, which is not the name of a file in this folder"),
    "itself": (b".", r"names \., which is not the name of a file in this folder"),
    "above": (b"..", r"names \.\., which is not there"),
    "zeros": (
        bytes(24),
        r"names .*, which is not the name of a file in this folder",
    ),  # what a power failure leaves
    "too long": (b"x" * 300, "names xxx.*, which is not there"),
    "no text file": (b"x" * 5000, "cannot be read \\(more than 4096 bytes\\)"),
    "two lines": (
        b"checkpoint_00000010.pth\ncheckpoint_00000020.pth\n",
        "names .*, which is not the name of a file in this folder",
    ),
    "a screen's commands": (b"\x1b[31mx", r"names \\x1b\[31mx, which is not there"),
}


@pytest.mark.parametrize("case", POINTERS)
def test_a_pointer_to_no_checkpoint_of_the_folder_gives_way_to_the_newest(tmp_path: Path, case: str) -> None:
    content, what = POINTERS[case]
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "last_checkpoint.txt").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=rf"last_checkpoint\.txt: {what}, and .* has no checkpoint; put one back"
    ):
        last_checkpoint(folder)
    for iteration in (9, 20):
        save_checkpoint(folder, {}, name=checkpoint_name(iteration))
    (tmp_path / "other").mkdir()
    save_checkpoint(tmp_path / "other", {}, name=checkpoint_name(10))
    (folder / "last_checkpoint.txt").write_bytes(content)
    with said() as lines:
        assert newest_good(folder) == folder / checkpoint_name(20)
    assert len(lines) == 1 and re.search(rf"{what}; taking checkpoint_00000020\.pth, the newest\n$", lines[0])
    with RunFolder(folder, resume=False) as place, pytest.raises(ConfigError, match="already holds a run"):
        place.start()


def test_a_pointer_that_is_a_folder_gives_way_to_the_newest(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {}, name=checkpoint_name(1))
    (tmp_path / "last_checkpoint.txt").unlink()
    (tmp_path / "last_checkpoint.txt").mkdir()
    with said() as lines:
        assert newest_good(tmp_path) == tmp_path / checkpoint_name(1)
    assert "cannot be read (not a regular file but a folder)" in lines[0]


def test_a_pointer_may_name_the_file_by_its_path(tmp_path: Path) -> None:
    for iteration in (1, 2):
        save_checkpoint(tmp_path, {}, name=checkpoint_name(iteration))
    (tmp_path / "last_checkpoint.txt").write_text(f"{tmp_path / checkpoint_name(1)}\n")
    assert last_checkpoint(tmp_path) == tmp_path / checkpoint_name(1)


def test_random_state_comes_back_through_a_file(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"rng": random_state()}, name="x.pth")
    drawn = (torch.rand(3), random.random(), np.random.rand(3))  # noqa: NPY002
    restore_random_state(torch.load(tmp_path / "x.pth", weights_only=True)["rng"])
    again = (torch.rand(3), random.random(), np.random.rand(3))  # noqa: NPY002
    assert torch.equal(drawn[0], again[0])
    assert drawn[1] == again[1]
    assert (drawn[2] == again[2]).all()


@pytest.mark.parametrize("removals", [1, 99])
def test_a_run_that_goes_on_may_remove_what_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removals: int
) -> None:
    """A watcher takes the checkpoint that has come instead, and no whole one for a damaged one."""
    real, looked = files.checkpoint_damage, []

    def meanwhile(path: Path) -> str | None:
        looked.append(path.name)
        if len(looked) <= removals:  # the run writes the next one, and keeps only that
            save_checkpoint(tmp_path, {"iteration": 0}, name=checkpoint_name(len(looked)), keep=1)
        return real(path)

    save_checkpoint(tmp_path, {"iteration": 0}, name=checkpoint_name(0), keep=1)
    monkeypatch.setattr(files, "checkpoint_damage", meanwhile)
    with said() as lines:
        if removals == 1:
            assert newest_good(tmp_path) == tmp_path / checkpoint_name(1)
            assert looked == [checkpoint_name(0), checkpoint_name(1)]
        else:
            with pytest.raises(CheckpointError, match="removed faster than they can be read"):
                newest_good(tmp_path)
    assert lines == []
