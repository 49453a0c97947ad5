"""Checkpoints written while training continues: the same files, no wait, no error lost, never two at once."""

import collections
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from hypvl import distributed
from hypvl.errors import UserError
from hypvl.io import tensors
from hypvl.training.checkpoints.background import BackgroundWriter, on_host
from hypvl.training.checkpoints.files import newest_good
from hypvl.training.hooks import checkpoints as module
from hypvl.training.hooks.checkpoints import Checkpoints
from hypvl.training.loop import Hook, StepResult, Trainer
from tests.ranks import run_ranks
from tests.training.checkpoints.test_files import said
from tests.training.test_loop import batches, trainer
from tests.training.tiny import rows_of, tiny_learner


def saving(folder: Path, *, background: bool = True, period: int = 2) -> Checkpoints:
    def collect(trainer: Trainer) -> dict[str, Any]:
        return {
            "model": trainer.learner.model.state_dict(),
            "optimizer": trainer.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "iteration": trainer.iteration,
        }

    return Checkpoints(folder, collect=collect, period=period, keep=None, background=background)


class Release(Hook):
    """Lets the disk go on after a step."""

    def __init__(self, disk: threading.Event, *, after: int) -> None:
        self.disk, self.after = disk, after

    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        if trainer.iteration == self.after:
            self.disk.set()


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every write of a checkpoint takes 0.4 s; the names of those that are being written, then written."""
    seen: list[str] = []
    real = module.save_checkpoint

    def slow(folder: Path, state: Any, **options: Any) -> Path:
        seen.append(f"begin {options['name']}")
        time.sleep(0.4)
        path = real(folder, state, **options)
        seen.append(f"end {options['name']}")
        return path

    monkeypatch.setattr(module, "save_checkpoint", slow)
    return seen


def test_files_are_those_of_writing_at_once(tmp_path: Path) -> None:
    for name, background in (("at_once", False), ("background", True)):
        torch.manual_seed(3)
        trainer(tiny_learner("meru"), hooks=(saving(tmp_path / name, background=background),)).run()
    names = sorted(path.name for path in (tmp_path / "at_once").iterdir())
    assert names == [
        "checkpoint_00000002.pth",
        "checkpoint_00000004.pth",
        "checkpoint_final.pth",
        "last_checkpoint.txt",
    ]
    assert sorted(path.name for path in (tmp_path / "background").iterdir()) == names
    for name in names:
        assert (tmp_path / "at_once" / name).read_bytes() == (tmp_path / "background" / name).read_bytes(), (
            name
        )


@pytest.mark.parametrize("background", [True, False])
def test_steps_do_not_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    """A disk that takes nothing before step 5 has ended gets the checkpoint of step 4 only from a thread."""
    real, disk, taken = module.save_checkpoint, threading.Event(), []

    def waiting(folder: Path, state: Any, **options: Any) -> Path:
        taken.append(disk.wait(30.0 if background else 0.2))
        return real(folder, state, **options)

    monkeypatch.setattr(module, "save_checkpoint", waiting)
    hooks = (saving(tmp_path, background=background, period=4), Release(disk, after=5))
    trainer(tiny_learner("clip"), hooks=hooks).run()
    assert taken[0] is background and disk.is_set()


def test_never_two_at_once_and_none_is_lost(tmp_path: Path, slow_disk: list[str]) -> None:
    trainer(tiny_learner("clip"), hooks=(saving(tmp_path, period=1),)).run()
    assert len(slow_disk) == 12
    for begin, end in zip(slow_disk[::2], slow_disk[1::2], strict=True):
        assert begin.split()[1] == end.split()[1] and (begin[:5], end[:3]) == ("begin", "end")
    assert not [thread for thread in threading.enumerate() if thread.name == "checkpoint"]


class Full:
    """A disk that is full from the second checkpoint on."""

    def __init__(self) -> None:
        self.real, self.calls = tensors.write_torch, 0

    def __call__(self, path: Path, state: Any) -> None:
        self.calls += 1
        if self.calls > 1:
            raise OSError(28, "No space left on device", str(path))
        self.real(path, state)


def test_an_error_of_the_thread_ends_the_run_at_a_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hypvl.training.checkpoints.files.write_torch", Full())

    class Wait(Hook):  # until the thread has ended
        def after_step(self, trainer: Trainer, step: StepResult) -> None:
            for thread in threading.enumerate():
                if thread.name == "checkpoint":
                    thread.join()

    run = trainer(tiny_learner("clip"), hooks=(Wait(), saving(tmp_path, period=2)))
    run.num_iterations = 100
    with pytest.raises(
        UserError, match=r"00004\.pth: cannot be written \(No space left on device\); the checkpoints"
    ):
        run.run()
    assert 5 <= run.iteration <= 7
    assert newest_good(tmp_path) == tmp_path / "checkpoint_00000002.pth"


def _of_two(folder: str) -> tuple[int, str]:
    from hypvl.training.checkpoints import files as checkpoint

    checkpoint.write_torch = Full()  # type: ignore[assignment]
    run = trainer(tiny_learner("clip"), hooks=(saving(Path(folder), period=2),))
    run.num_iterations = 2000
    run.loader = (rows_of(batch, distributed.rank(), 2) for batch in batches() for _ in range(1000))
    try:
        run.run()
    except UserError as error:
        return run.iteration, str(error)
    return run.iteration, "no error"


def test_an_error_of_the_thread_reaches_every_rank(tmp_path: Path) -> None:
    one, two = run_ranks(2, _of_two, str(tmp_path))
    assert one == two and one[0] < 2000 and "checkpoint_00000004.pth: cannot be written (No space" in one[1]


def test_a_request_to_stop_waits_for_the_thread(tmp_path: Path, slow_disk: list[str]) -> None:
    class Send(Hook):
        def after_step(self, trainer: Trainer, step: StepResult) -> None:
            if trainer.iteration == 5:
                os.kill(os.getpid(), signal.SIGTERM)

    run = trainer(tiny_learner("clip"), hooks=(Send(), saving(tmp_path, period=4)))
    run.num_iterations = 100
    run.run()
    assert [path.name for path in sorted(tmp_path.glob("*.pth"))] == [
        "checkpoint_00000004.pth",
        "checkpoint_00000005.pth",
    ]
    assert newest_good(tmp_path) == tmp_path / "checkpoint_00000005.pth"


def test_after_another_error_the_thread_still_ends(tmp_path: Path, slow_disk: list[str]) -> None:
    class Fail(Hook):
        def after_step(self, trainer: Trainer, step: StepResult) -> None:
            if trainer.iteration == 5:
                raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        trainer(tiny_learner("clip"), hooks=(Fail(), saving(tmp_path, period=4))).run()
    assert newest_good(tmp_path) == tmp_path / "checkpoint_00000004.pth"


def test_a_copy_shares_what_was_shared_and_nothing_with_the_state() -> None:
    weight = torch.arange(4.0)
    state = {"a": weight, "tied": weight.view(4), "list": [torch.ones(2), (1, "x")], "none": torch.ones(0)}
    ordered = collections.OrderedDict(w=weight)
    ordered._metadata = {"version": 2}  # type: ignore[attr-defined]  # as a state_dict has
    kept = on_host({**state, "model": ordered})
    weight += 1
    state["list"].append(3)  # type: ignore[attr-defined]
    assert kept["a"].tolist() == [0, 1, 2, 3] and kept["tied"].data_ptr() == kept["a"].data_ptr()
    assert kept["model"]._metadata == {"version": 2} and kept["model"]["w"] is kept["a"]
    assert len(kept["list"]) == 2 and kept["list"][1] == (1, "x")


def test_an_error_is_raised_once() -> None:
    writer = BackgroundWriter()
    writer.start(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        writer.finish()
    writer.finish()
    assert not writer.failed
    writer.start(lambda: 1 / 0)
    with said() as lines:
        writer.close()
    assert lines == ["a checkpoint could not be written: division by zero\n"]
