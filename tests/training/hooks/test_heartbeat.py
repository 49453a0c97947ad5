"""The file that a watcher reads: what the run does, also while nothing moves."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from hypvl.errors import UserError
from hypvl.training.hooks.heartbeat import Heartbeat
from hypvl.training.loop import CHECKPOINT, EVALUATION, Hook, StepResult, Trainer
from tests.training.test_loop import trainer
from tests.training.tiny import tiny_learner


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "heartbeat.json").read_text())


class Watcher(Hook):
    """Waits in the second step until the file says each state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[str] = []

    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        if trainer.iteration != 1:
            return
        self._wait("training")
        for doing in (f"{EVALUATION} colors", CHECKPOINT):
            trainer.between_steps = doing
            self._wait({CHECKPOINT: "writing a checkpoint"}.get(doing, "evaluating"))
            assert read(self.folder)["doing"] == doing
        trainer.between_steps = None
        trainer.signals.interruptible = True
        self._wait("waiting for data")
        trainer.signals.interruptible = False

    def _wait(self, state: str) -> None:
        deadline = time.monotonic() + 20
        while read(self.folder)["state"] != state:
            assert time.monotonic() < deadline, (state, read(self.folder))
            time.sleep(0.002)
        self.seen.append(state)


def test_it_says_what_the_run_does(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path)
    run = trainer(tiny_learner("clip"), iterations=3, hooks=(Heartbeat(tmp_path, seconds=0.005), watcher))
    run.run()
    assert watcher.seen == ["training", "evaluating", "writing a checkpoint", "waiting for data"]
    last = read(tmp_path)
    assert (last["state"], last["iteration"], last["num_iterations"]) == ("finished", 3, 3)
    assert last["pid"] == os.getpid() and last["world_size"] == 1 and last["started"] <= last["time"]
    assert [path.name for path in tmp_path.iterdir()] == ["heartbeat.json"]  # nothing is left over


class Asks(Hook):
    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_that_was_asked_to_stop_says_so(tmp_path: Path) -> None:
    trainer(tiny_learner("clip"), iterations=50, hooks=(Heartbeat(tmp_path), Asks())).run()
    assert read(tmp_path)["state"] == "stopped" and read(tmp_path)["iteration"] < 50


class Broken(Hook):
    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        raise ValueError("broken")


def test_a_failed_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"):
        trainer(tiny_learner("clip"), iterations=3, hooks=(Heartbeat(tmp_path), Broken())).run()
    assert read(tmp_path)["state"] == "failed" and read(tmp_path)["iteration"] == 1


class NoRoom(Hook):
    def after_train(self, trainer: Trainer) -> None:
        raise UserError("checkpoint_final.pth: cannot be written (No space left on device).")


@pytest.mark.parametrize("ended_by", ["its last step", "SIGTERM"])
def test_a_run_whose_last_checkpoint_fails_has_failed(ended_by: str, tmp_path: Path) -> None:
    asks = [Asks()] if ended_by == "SIGTERM" else []
    with pytest.raises(UserError, match="No space"):
        trainer(tiny_learner("clip"), iterations=3, hooks=(Heartbeat(tmp_path), *asks, NoRoom())).run()
    assert read(tmp_path)["state"] == "failed"


class Closes(Hook):
    """Notes what the heartbeat says when this hook, which comes after it, is closed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = folder, ""

    def close(self, trainer: Trainer) -> None:
        self.seen = read(self.folder)["state"]


def test_the_end_is_said_when_all_else_has_ended(tmp_path: Path) -> None:
    last = Closes(tmp_path)
    trainer(tiny_learner("clip"), iterations=3, hooks=(Heartbeat(tmp_path), last)).run()
    assert last.seen not in ("", "finished") and read(tmp_path)["state"] == "finished"


def test_a_file_that_cannot_be_written_is_one_warning(tmp_path: Path) -> None:
    lines: list[str] = []
    handle = logger.add(lambda line: lines.append(line.record["message"]))
    trainer(tiny_learner("clip"), iterations=3, hooks=(Heartbeat(tmp_path / "absent", seconds=0.001),)).run()
    logger.remove(handle)
    assert len(lines) == 1 and lines[0].endswith(
        "heartbeat.json: cannot be written (No such file or directory)"
    )
