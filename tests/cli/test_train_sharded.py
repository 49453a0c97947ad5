"""Runs whose weights are sharded over two processes: what they write, and how they go on."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from loguru import logger

from hypvl import distributed, from_pretrained
from hypvl.cli.common import run_main
from hypvl.cli.convert import main as convert
from hypvl.config import instantiate
from hypvl.models.checkpoint_io import checkpoint_digest, load_checkpoint
from hypvl.training.run import RunOptions, run_training
from tests.cli.test_train import shards as shards, train
from tests.ranks import run_ranks
from tests.test_demo_recipes import CONFIGS, shard as shard, tiny

FSDP = "train.parallel=fsdp"
PERIODIC = "checkpoint_00000003"


def in_turn(*runs: tuple[str, ...]) -> list[int]:
    """Several runs one after the other, each with its folder, the shards and overrides; their exit codes."""
    return [train(Path(folder), shards, *more) for folder, shards, *more in runs]


def run_and_resume(folder: str, shards: str) -> list[int]:
    """A run of six steps, and another that goes on from its third step."""
    codes = in_turn((f"{folder}/whole", shards, FSDP))
    if distributed.is_main():
        half(Path(folder) / "whole", Path(folder) / "again")
    distributed.barrier()
    return codes + in_turn((f"{folder}/again", shards, FSDP, "--resume"))


def half(source: Path, folder: Path) -> Path:
    """A run's folder after three of six steps."""
    folder.mkdir()
    name = PERIODIC if (source / PERIODIC).is_dir() else f"{PERIODIC}.pth"
    (shutil.copytree if (source / name).is_dir() else shutil.copy)(source / name, folder / name)
    (folder / "last_checkpoint.txt").write_text(f"{name}\n")
    return folder


def final(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "checkpoint_final.pth", weights_only=True)
    return state


def check_close(state: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert list(state["model"]) == list(expected["model"])
    for name, tensor in expected["model"].items():
        ours, theirs = state["model"][name], tensor
        if name.endswith(
            ("in_proj_bias", "qkv.bias")
        ):  # a shift of all keys changes nothing: Adam moves it by rounding
            ours, theirs = (bias[torch.arange(len(bias)) // (len(bias) // 3) != 1] for bias in (ours, theirs))
        torch.testing.assert_close(
            ours, theirs, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.fixture(scope="module")
def folders(shards: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sharded runs on two ranks: ``whole``, and ``again``, which was resumed."""
    folder = tmp_path_factory.mktemp("runs")
    assert run_ranks(2, run_and_resume, str(folder), shards) == [[0, 0]] * 2
    return folder


@pytest.mark.slow  # trains on two ranks
def test_periodic_checkpoints_are_folders_of_shards_and_the_final_one_a_file(folders: Path) -> None:
    names = {path.name for path in (folders / "whole").iterdir()}
    assert {PERIODIC, "checkpoint_final.pth"} < names and f"{PERIODIC}.pth" not in names
    assert {path.name for path in (folders / "whole" / PERIODIC).iterdir()} == {
        "__0_0.distcp", "__1_0.distcp", "state.pth", "metadata.json",
    }  # fmt: skip
    periodic, last = load_checkpoint(folders / "whole" / PERIODIC), final(folders / "whole")
    assert periodic.keys() == last.keys() and periodic["iteration"] == 3
    assert list(periodic["model"]) == list(last["model"])
    moments = periodic["optimizer"]["state"]
    assert {i: {k: v.shape for k, v in state.items()} for i, state in moments.items()} == {
        i: {k: v.shape for k, v in state.items()} for i, state in last["optimizer"]["state"].items()
    }


@pytest.mark.slow  # trains on two ranks
def test_a_resumed_run_is_bit_for_bit_the_whole_one(folders: Path) -> None:
    whole, resumed = final(folders / "whole"), final(folders / "again")
    for name, tensor in whole["model"].items():
        assert torch.equal(resumed["model"][name], tensor), name
    for i, state in whole["optimizer"]["state"].items():
        for key, tensor in state.items():
            assert torch.equal(resumed["optimizer"]["state"][i][key], tensor), (i, key)


@pytest.mark.slow
def test_one_process_goes_on_from_two_ranks(folders: Path, shards: str, tmp_path: Path) -> None:
    folder = half(folders / "whole", tmp_path / "one")
    assert train(folder, shards, "--resume") == 0
    check_close(final(folder), final(folders / "whole"))


@pytest.mark.slow  # trains on two ranks
def test_a_sharded_checkpoint_is_loaded_and_converted(folders: Path, tmp_path: Path) -> None:
    source = folders / "whole" / PERIODIC
    assert run_main(convert, [str(source), "--to", str(tmp_path / "weights")]) == 0
    assert {path.name for path in (tmp_path / "weights").iterdir()} == {"config.json", "model.safetensors"}
    models = [from_pretrained(place).state_dict() for place in (source, tmp_path / "weights")]
    for name, tensor in load_checkpoint(source)["model"].items():
        assert torch.equal(models[0][name], tensor) and torch.equal(models[1][name], tensor)
    assert len(checkpoint_digest(source)) == 64


@pytest.mark.slow
def test_runs_change_between_replicas_shards_and_numbers_of_ranks(
    folders: Path, shards: str, tmp_path: Path
) -> None:
    replicated, sharded = half(folders / "whole", tmp_path / "ddp"), tmp_path / "fsdp"
    assert (
        run_ranks(2, in_turn, (str(replicated), shards, "--resume"), (str(tmp_path / "whole"), shards))
        == [[0, 0]] * 2
    )
    half(tmp_path / "whole", sharded)
    four = half(folders / "whole", tmp_path / "four")
    assert (
        run_ranks(4, in_turn, *((str(f), shards, FSDP, "--resume") for f in (sharded, four))) == [[0, 0]] * 4
    )
    for folder in (replicated, sharded, four, tmp_path / "whole"):
        check_close(final(folder), final(folders / "whole"))


RECIPES = (
    "train_hycoclip_demo", "train_ceclip_demo", "train_uncha_demo", "train_dino_demo", "train_protoclip_demo",
    "train_i0t_stage1_demo", "train_distill_seed_demo", "train_meru_from_clip_lora_demo",
)  # fmt: skip


def both_kinds(folder: str) -> None:
    """Three steps of each recipe, replicated and sharded, on the shard in a folder."""
    for name in RECIPES:
        for kind in ("ddp", "fsdp"):
            cfg = tiny(CONFIGS / f"{name}.py", Path(folder) / "few.tar")
            if cfg.train.init_checkpoint is not None:
                cfg.train.init_checkpoint = f"{folder}/first_stage.pth"
            cfg.train.update(parallel=kind, num_iterations=3)
            run_training(cfg, RunOptions(output_dir=Path(folder) / f"{name}-{kind}"))
            logger.remove()


@pytest.mark.slow
def test_recipes_of_every_kind_train_as_with_ddp(shard: Path) -> None:
    """Boxes, negatives, teachers, prototypes, episodes, mean removal, cached teachers, adapters."""
    torch.save(
        {"model": instantiate(tiny(CONFIGS / "train_clip_demo.py", shard).model).state_dict()},
        shard.parent / "first_stage.pth",
    )
    run_ranks(2, both_kinds, str(shard.parent))
    for name in RECIPES:
        one, two = (
            [
                json.loads(line)
                for line in (shard.parent / f"{name}-{kind}" / "metrics.jsonl").read_text().splitlines()
            ]
            for kind in ("ddp", "fsdp")
        )
        assert len(one) == len(two) == 3
        for record, other in zip(
            one[:2], two, strict=False
        ):  # Adam then moves what has no gradient by rounding
            for key in ("loss", "grad_norm"):
                assert other[key] == pytest.approx(record[key], rel=1e-6), (name, key)
