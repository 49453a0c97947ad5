"""Small file systems in memory, for tests that need a full or read-only disk; skipped where nothing can be mounted."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(place: Path, *, kilobytes: int) -> Iterator[Path]:
    """A disk of this size, mounted at ``place``, which is made."""
    place.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k"]
    if subprocess.run(["mount", *options, "tmpfs", str(place)], capture_output=True).returncode != 0:
        pytest.skip("mounting needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def make_read_only(place: Path) -> None:
    """Mount it again, so that nobody can write to it."""
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
