"""Runs whose weights are sharded over two processes: what they write, and how they go on."""

from pathlib import Path

import pytest
import torch

from tests.cli.test_train import shards as shards, train
from tests.ranks import run_ranks

FSDP = "train.parallel=fsdp"


def in_turn(*runs: tuple[str, ...]) -> list[int]:
    """Several runs one after the other, each with its folder, the shards and overrides; their exit codes."""
    return [train(Path(folder), shards, *more) for folder, shards, *more in runs]


def final(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / "checkpoint_final.pth", weights_only=True)["model"]
    return state


@pytest.fixture(scope="module")
def folders(shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on two ranks: replicated, sharded."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [
        (str(folder / "ddp"), shards),
        (str(folder / "fsdp"), shards, FSDP),
    ]
    assert run_ranks(2, in_turn, *runs) == [[0] * len(runs)] * 2
    return folder


def test_a_sharded_run_ends_with_the_weights_of_a_replicated_one(folders: Path) -> None:
    one, two = final(folders / "ddp"), final(folders / "fsdp")
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-5)
