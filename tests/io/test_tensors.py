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


def test_the_same_tensors_and_metadata_give_the_same_bytes(tmp_path: Path) -> None:
    """The library orders metadata anew in every call; of five orders at random hardly all are the same."""
    from safetensors import safe_open

    metadata = {name: f'{name} "\u00e9\n\x1f\x7f' for name in "dbcaef"}
    contents = set()
    for number in range(5):
        path = tmp_path / f"{number}.safetensors"
        write_safetensors(path, {"rows": torch.arange(3.0), "b": torch.ones(2, 2)}, metadata=metadata)
        contents.add(path.read_bytes())
    assert len(contents) == 1
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == metadata and file.get_tensor("rows").tolist() == [0, 1, 2]
