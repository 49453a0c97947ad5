"""Files of tensors: whole or not at all, and a full disk is an OSError that names the file."""

import errno
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from hypvl.io.tensors import write_safetensors, write_torch
from tests.io.limits import largest_file

BIG = {"a": torch.arange(50_000.0)}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_torch(tmp_path / "a.pth", BIG)
    assert torch.equal(torch.load(tmp_path / "a.pth", weights_only=True)["a"], BIG["a"])
    write_safetensors(tmp_path / "a.safetensors", BIG, metadata={"n": 3, "name": "\udcff ä"})
    with safe_open(tmp_path / "a.safetensors", "pt") as file:  # type: ignore[no-untyped-call]
        assert torch.equal(file.get_tensor("a"), BIG["a"])
        assert file.metadata() == {"n": "3", "name": "\\udcff ä"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth", "a.safetensors"]


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_full_disk_names_the_file_and_leaves_what_was_there(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"before")
    with largest_file(1000), pytest.raises(OSError) as caught:  # what is asked is below
        if name.endswith(".pth"):
            write_torch(path, BIG)
        else:
            write_safetensors(path, BIG, metadata={})
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert path.read_bytes() == b"before" and [p.name for p in tmp_path.iterdir()] == [name]
