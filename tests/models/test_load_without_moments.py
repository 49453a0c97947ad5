"""Weights of a training checkpoint are read without the state of its optimizer in memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hypvl.errors import CheckpointError
from hypvl.io.tensors import write_torch
from hypvl.models.checkpoint_io import load_checkpoint, load_without_moments

MODEL = 2_000_000  # numbers: 8 MB


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "checkpoint_final.pth"
    weight = torch.arange(MODEL, dtype=torch.float32)
    moments = {i: {"exp_avg": torch.ones(10 * MODEL), "step": torch.tensor(3.0)} for i in range(2)}
    state = {
        "model": {"w": weight, "tied": weight},
        "optimizer": {"state": moments},
        "root": torch.ones(3),
        "iteration": 7,
    }
    write_torch(path, state)
    return path


def peak_of(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and by how many MB memory was higher at its highest than before."""

    def line(name: str) -> float:
        status = Path("/proc/self/status").read_text()
        return int(status.partition(f"{name}:")[2].split()[0]) / 1000

    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    except OSError:
        pytest.skip("the system does not reset the peak of a process")
    before = line("VmRSS")
    result = call()
    return result, line("VmHWM") - before


def test_the_moments_are_never_in_memory(path: Path) -> None:
    whole, much = peak_of(lambda: load_checkpoint(path))
    weights, little = peak_of(lambda: load_without_moments(path))
    assert much > 150 and little < 40  # of 160 MB of moments and 8 of weights
    assert weights.keys() == {"model", "root", "iteration"}
    assert torch.equal(weights["model"]["w"], whole["model"]["w"])
    assert weights["model"]["tied"].data_ptr() == weights["model"]["w"].data_ptr()


def test_the_file_may_be_written_over_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"model": {"w": torch.arange(100_000.0)}, "optimizer": {}}, path)
    content = load_without_moments(path)
    path.write_bytes(b"")
    assert content["model"]["w"].sum() == 100_000 * 99_999 / 2


def test_damage_and_old_pickles_are_as_for_the_whole_file(path: Path, tmp_path: Path) -> None:
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1  # in the moments
    (tmp_path / "x.pth").write_bytes(changed)
    with pytest.raises(CheckpointError, match=r"x\.pth: truncated or damaged"):
        load_without_moments(tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"none\.pth: no such file"):
        load_without_moments(tmp_path / "none.pth")
    old = {"model": {"w": torch.ones(3)}, "optimizer": {}}
    torch.save(old, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert load_without_moments(tmp_path / "old.pth")["model"]["w"].tolist() == [1, 1, 1]
