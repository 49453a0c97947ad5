"""Files are written whole or not at all; locks exclude other processes; JSON is read within bounds."""

import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from hypvl.io.files import exclusive_lock, open_new, replacing, write_atomically
from hypvl.io.json_text import parse_json


def test_text_bytes_and_functions_are_written(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", "größer\n")
    write_atomically(tmp_path / "b", b"\x00\x01")
    write_atomically(tmp_path / "c", lambda file: file.writelines([b"x", b"y"]))
    assert (tmp_path / "a").read_text("utf-8") == "größer\n"
    assert (tmp_path / "b").read_bytes() == b"\x00\x01"
    assert (tmp_path / "c").read_bytes() == b"xy"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_a_failure_leaves_what_was_there_and_no_remains(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")

    def half(file: BinaryIO) -> None:
        file.write(b"new")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "a", half)
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    with replacing(tmp_path / "a") as part:
        part.symlink_to(tmp_path / "victim")
        with pytest.raises(FileExistsError):
            open_new(part)
        part.unlink()
        part.write_text("new")
    assert (tmp_path / "a").read_text() == "new" and (tmp_path / "victim").read_text() == "mine"
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic"), exclusive_lock(tmp_path / "lock"):
        pass


def test_a_process_forked_while_a_lock_is_held_does_not_hold_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    read, write = os.pipe()
    there, runs = os.pipe()
    with exclusive_lock(lock):
        child = os.fork()
        if child == 0:  # as a data worker that outlives a killed run
            os.write(runs, b"x")
            os.read(read, 1)
            os._exit(0)
    try:
        assert os.read(there, 1) == b"x"
        with exclusive_lock(lock, wait=False):
            pass
    finally:
        os.write(write, b"x")
        os.waitpid(child, 0)
    for handle in (read, write, there, runs):
        os.close(handle)


def test_a_lock_is_held_by_one_process_and_freed_when_it_dies(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = (
        "import sys, time; from pathlib import Path; from hypvl.io.files import exclusive_lock\n"
        "with exclusive_lock(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError), exclusive_lock(lock, wait=False):
            pass
        other.kill()
        other.wait()
        with exclusive_lock(lock, wait=False):
            pass


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a":' * 100_000, b"\xff", "1" * 5000])
def test_json_that_is_none_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(text)
