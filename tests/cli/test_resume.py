"""`scripts/train.py --resume` with another config than the run was started with."""

import gc
import re
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hypvl.training import resume as resume_module
from hypvl.training.loop import Trainer
from tests.cli.test_train import finished as finished, shards as shards, train


@pytest.fixture
def half(finished: Path, tmp_path: Path) -> Path:
    """The run's folder after three of six steps."""
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(finished / "checkpoint_00000003.pth", folder)
    (folder / "last_checkpoint.txt").write_text("checkpoint_00000003.pth\n")
    return folder


def test_a_new_rate_and_decay_take_effect_and_are_listed(half: Path, shards: str) -> None:
    new = ["optim.optimizer.lr=1e-9", "optim.parameters.weight_decay=0", "optim.parameters.gain_bias_decay=0"]
    assert train(half, shards, *new, "--resume", "--log-period", "1") == 0
    before, after = (
        torch.load(half / name, weights_only=True)
        for name in ("checkpoint_00000003.pth", "checkpoint_final.pth")
    )
    moved = max((after["model"][k] - v).abs().max().item() for k, v in before["model"].items())
    assert 0 < moved < 1e-7
    assert {group["weight_decay"] for group in after["optimizer"]["param_groups"]} == {0.0}
    assert after["optimizer"]["state"][0]["step"] == 6
    log = (half / "log-rank0.txt").read_text()
    assert log.count("config: optim.optimizer.lr was 0.0005 and is 1e-09; takes effect") == 1
    assert log.count("config: train.log_period was 2 and is 1; takes effect") == 1
    assert log.count("config: ") == 4
    assert len((half / "metrics.jsonl").read_text().splitlines()) == 3  # every step
    config = yaml.safe_load((half / "config.yaml").read_text())
    assert float(config["optim"]["optimizer"]["lr"]) == 1e-9 and config["train"]["log_period"] == 1


REFUSED = {
    "a term less": (["~train.objective.terms.entailment", "~train.objective.weights.entailment"], r"terms\.entailment"),
    "a warm-up": (["+train.objective.warmup={entailment: [1,2]}"], r"objective\.warmup"),
    "fp16": (["train.amp=fp16"], r"train\.amp is fp16 now, but the run had no loss scaler"),
    "seed": (["train.seed=5"], r"train\.seed was 0 and is 5"),
    "batch": (["train.total_batch_size=8"], r"train\.total_batch_size was 4 and is 8"),
    "architecture": (["model.visual.width=32"], r"model\.visual\.width was 16 and is 32"),
    "frozen": (["optim.parameters.frozen=[model.textual.*]"], r"trained other parameters than this config"),
    "decay below 0": (["optim.parameters.weight_decay=-1"], r"weight_decay: got -1"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_another_run_is_refused_in_one_sentence_and_nothing_is_written(
    case: str, half: Path, shards: str, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides, message = REFUSED[case]
    before = {path.name: path.stat().st_mtime_ns for path in half.iterdir() if path.name != ".lock"}
    assert train(half, shards, *overrides, "--resume") in (1, 2)
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in error
    assert re.search(message, lines[0]), lines[0]
    assert {path.name: path.stat().st_mtime_ns for path in half.iterdir() if path.name != ".lock"} == before


def test_the_checkpoint_is_not_kept_in_memory_while_the_run_goes_on(
    half: Path, shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: list[weakref.ref[Any]] = []
    alive: list[int] = []
    load, run = resume_module.read_state, Trainer.run

    def watch(path: Path) -> dict[str, Any]:
        state = load(path)
        watched.extend(weakref.ref(tensor) for tensor in state["model"].values())
        return state

    def count(self: Trainer) -> None:
        gc.collect()
        alive.append(sum(ref() is not None for ref in watched))
        run(self)

    monkeypatch.setattr(resume_module, "read_state", watch)
    monkeypatch.setattr(Trainer, "run", count)
    assert train(half, shards, "--resume") == 0
    assert len(watched) > 20 and alive == [0]
