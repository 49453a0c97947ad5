"""A damaged archive is distinguished from a whole one."""

import io
from pathlib import Path

import pytest
import torch

from hypvl.io.archives import zip_damage


@pytest.fixture(scope="module")
def content() -> bytes:
    buffer = io.BytesIO()
    torch.save({"weights": torch.arange(200.0), "iteration": 7}, buffer)
    return buffer.getvalue()


def test_a_whole_file_has_no_damage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    assert zip_damage(tmp_path / "x.pth") is None


def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path: Path, content: bytes) -> None:
    """One bit of every third byte: the damage is found, or torch.load refuses, or the content is the same."""
    path, result = tmp_path / "x.pth", 0
    whole = torch.arange(200.0)
    for position in range(0, len(content), 3):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        if zip_damage(path) is not None:
            result += 1
            continue
        try:
            loaded = torch.load(path, weights_only=True)
        except RuntimeError:
            continue
        assert torch.equal(loaded["weights"], whole) and loaded["iteration"] == 7, position
    assert result > 400  # of about 900; the others are padding


def test_a_flipped_bit_of_a_tensor_is_named(tmp_path: Path, content: bytes) -> None:
    at = content.index(torch.arange(200.0).numpy().tobytes())
    changed = bytearray(content)
    changed[at + 400] ^= 4
    (tmp_path / "x.pth").write_bytes(changed)
    assert zip_damage(tmp_path / "x.pth") == "data/0 was changed after it was written"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_no_archive(tmp_path: Path, content: bytes, share: float) -> None:
    (tmp_path / "x.pth").write_bytes(content[: int(share * len(content))])
    assert str(zip_damage(tmp_path / "x.pth")).startswith("no whole ZIP archive")


def test_what_cannot_be_read_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        zip_damage(tmp_path / "x.pth")
