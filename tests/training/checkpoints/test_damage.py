"""Whatever happens to the newest checkpoint, it is noticed, and the one before it is used."""

import random
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from hypvl.io.archives import zip_checksum, zip_damage
from hypvl.io.tensors import write_torch
from hypvl.training.checkpoints.files import checkpoint_name, newest_good, save_checkpoint
from tests.training.checkpoints.test_files import said

STATE = {
    "model": {
        "weight": torch.arange(200.0),
        "count": torch.arange(7),
        "half": torch.ones(3, dtype=torch.float16),
    },
    "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.rand(40)}}},
    "iteration": 7,
    "config": "train: {seed: 0}",
}


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "x.pth"
    write_torch(path, STATE)
    return path.read_bytes()


def check_changed(content: bytes, positions: Iterable[int], path: Path) -> None:
    draw = random.Random(0)
    for position in positions:
        changed = bytearray(content)
        changed[position] ^= draw.randrange(1, 256)
        path.write_bytes(changed)
        assert zip_damage(path) is not None, position


def test_a_changed_byte_is_found_wherever_it_is(tmp_path: Path, content: bytes) -> None:
    """Random places in headers, members, padding and the table of contents; the whole end with its checksum."""
    places = random.Random(3).sample(range(len(content)), 300)
    check_changed(content, [*places, *range(len(content) - 93, len(content))], tmp_path / "x.pth")


@pytest.mark.slow
def test_every_changed_byte_is_found(tmp_path: Path, content: bytes) -> None:
    assert 3000 < len(content) < 10_000
    check_changed(content, range(len(content)), tmp_path / "x.pth")


def test_every_truncation_is_found(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pth"
    for length in [*range(0, len(content), 37), *range(len(content) - 100, len(content))]:
        path.write_bytes(content[:length])
        assert zip_damage(path) is not None, length


def test_lost_repeated_and_exchanged_blocks_are_found(tmp_path: Path, content: bytes) -> None:
    draw, path = random.Random(1), tmp_path / "x.pth"
    for _ in range(40):
        first, second, third = sorted(draw.sample(range(len(content)), 3))
        zeros = content[:first] + bytes(second - first) + content[second:]
        for changed in (
            zeros,
            content[:first] + content[second:],
            content[:second] + content[first:],
            content[:first] + content[second:third] + content[first:second] + content[third:],
            content + draw.randbytes(draw.randrange(1, 100)),
        ):
            path.write_bytes(changed)
            assert changed == content or zip_damage(path) is not None, (first, second, third)


def test_any_damage_of_the_newest_gives_way_to_the_one_before(tmp_path: Path, content: bytes) -> None:
    draw = random.Random(2)
    for iteration in (10, 20):
        save_checkpoint(tmp_path, STATE, name=checkpoint_name(iteration))
    newest = tmp_path / checkpoint_name(20)
    whole = newest.read_bytes()
    places = [draw.randrange(len(whole)) for _ in range(30)] + list(range(len(whole) - 100, len(whole), 5))
    for position in places:
        changed = bytearray(whole)
        changed[position] ^= draw.randrange(1, 256)
        newest.write_bytes(changed)
        with said() as lines:
            assert newest_good(tmp_path) == tmp_path / checkpoint_name(10), position
        assert len(lines) == 1 and "checkpoint_00000020.pth: damaged (" in lines[0]
    newest.write_bytes(whole)
    assert newest_good(tmp_path) == newest


def test_a_newest_that_cannot_be_read_gives_way_to_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for iteration in (10, 20):
        save_checkpoint(tmp_path, STATE, name=checkpoint_name(iteration))

    def failing(path: Path) -> str | None:
        if path.name == checkpoint_name(20):
            raise OSError(5, "Input/output error", str(path))
        return zip_damage(path)

    monkeypatch.setattr("hypvl.training.checkpoints.files.checkpoint_damage", failing)
    with said() as lines:
        assert newest_good(tmp_path) == tmp_path / checkpoint_name(10)
    assert "damaged (cannot be read: Input/output error); looking for the checkpoint before it" in lines[0]


def test_other_readers_take_a_file_with_a_checksum(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    for mmap in (False, True):
        state = torch.load(path, weights_only=True, mmap=mmap)
        assert torch.equal(state["model"]["weight"], STATE["model"]["weight"]) and state["iteration"] == 7
    assert subprocess.run(["python3", "-m", "zipfile", "-t", str(path)], capture_output=True).returncode == 0


def test_the_checksum_is_the_sha256_of_what_precedes_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    (tmp_path / "before").write_bytes(content[:-71])
    said = subprocess.run(
        ["sha256sum", str(tmp_path / "before")], capture_output=True, text=True, check=True
    ).stdout
    assert content[-71:].decode() == "sha256:" + said.split()[0] == f"sha256:{zip_checksum(path)}"


def test_a_file_without_a_checksum_is_compared_by_the_crcs_of_its_members(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "one.pth")
    torch.save({**STATE, "iteration": 8}, tmp_path / "other.pth")
    one, other = (zip_checksum(tmp_path / name) for name in ("one.pth", "other.pth"))
    assert zip_damage(tmp_path / "one.pth") is None and len(one) == 64 and one != other
    torch.save(STATE, tmp_path / "one.pth")
    assert zip_checksum(tmp_path / "one.pth") == one
