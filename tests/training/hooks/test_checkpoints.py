import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hypvl.errors import DataError, UserError
from hypvl.losses.base import Objective
from hypvl.training.checkpoints.files import save_checkpoint
from hypvl.training.hooks.checkpoints import Checkpoints
from hypvl.training.loop import Hook, StepResult, Trainer
from hypvl.training.step import Learner
from tests.training.test_loop import Poisoned, trainer
from tests.training.tiny import tiny_learner, tiny_model


def saving(folder: Path, *, period: int) -> Checkpoints:
    return Checkpoints(
        folder,
        collect=lambda t: {"iteration": t.iteration},
        period=period,
        keep=2,
        final_extra=lambda t: {"root": torch.ones(2)},
    )


def test_periodic_and_final_checkpoints(tmp_path: Path) -> None:
    trainer(tiny_learner("clip"), iterations=6, hooks=(saving(tmp_path, period=2),)).run()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint_00000002.pth", "checkpoint_00000004.pth", "checkpoint_final.pth", "last_checkpoint.txt",
    ]  # fmt: skip
    final = torch.load(tmp_path / "checkpoint_final.pth", weights_only=True)
    assert final["iteration"] == 6
    assert torch.equal(final["root"], torch.ones(2))
    assert (tmp_path / "last_checkpoint.txt").read_text().strip() == "checkpoint_final.pth"


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.glob("*.pth"))


def test_weights_that_are_not_finite_never_replace_good_ones(tmp_path: Path) -> None:
    """The step itself is finite; the rate it is taken with is not."""

    class Explode(Hook):
        def after_step(self, trainer: Trainer, step: StepResult) -> None:
            if trainer.iteration == 5:
                trainer.learner.model.visual_head.projection.weight.data[0, 0] = float("inf")

    run = trainer(tiny_learner("clip"), iterations=12, hooks=(Explode(), saving(tmp_path, period=2)))
    with pytest.raises(
        UserError, match=r"iteration 6, 1 weights are not finite .*visual_head\.projection\.weight"
    ):
        run.run()
    assert names(tmp_path) == ["checkpoint_00000002.pth", "checkpoint_00000004.pth"]
    assert (tmp_path / "last_checkpoint.txt").read_text().strip() == "checkpoint_00000004.pth"


def test_while_steps_are_skipped_nothing_is_saved(tmp_path: Path) -> None:
    learner = Learner(tiny_model("clip"), Objective({"a": Poisoned(4, 5)}))
    trainer(learner, iterations=9, hooks=(saving(tmp_path, period=4),)).run()
    assert names(tmp_path) == ["checkpoint_00000006.pth", "checkpoint_00000008.pth", "checkpoint_final.pth"]


def test_a_last_step_that_is_not_finite_leaves_the_weights_of_the_one_before(tmp_path: Path) -> None:
    saved = []
    for iterations, bad in ((5, ()), (6, (6,))):
        learner = Learner(tiny_model("clip"), Objective({"a": Poisoned(*bad, gradient=True)}))
        run = trainer(learner, iterations=iterations)
        run.scheduler = torch.optim.lr_scheduler.LambdaLR(run.optimizer, lambda step: 1.0)
        run.hooks = (
            Checkpoints(
                tmp_path / str(iterations),
                collect=lambda t: {"model": t.learner.model.state_dict()},
                period=100,
                keep=2,
            ),
        )
        run.run()
        saved.append(
            torch.load(tmp_path / str(iterations) / "checkpoint_final.pth", weights_only=True)["model"]
        )
    assert all(torch.equal(value, saved[1][name]) for name, value in saved[0].items())


def test_the_final_state_is_saved_before_what_can_fail(tmp_path: Path) -> None:
    def fail(trainer: Trainer) -> dict[str, Any]:
        raise DataError("root: no data")

    def hook(extra: Callable[[Trainer], dict[str, Any]]) -> Checkpoints:
        collect = lambda t: {"iteration": t.iteration}  # noqa: E731
        return Checkpoints(tmp_path, collect=collect, period=4, keep=1, final_extra=extra)

    with pytest.raises(DataError, match="root: no data"):
        trainer(tiny_learner("clip"), iterations=6, hooks=(hook(fail),)).run()
    assert names(tmp_path) == ["checkpoint_00000004.pth", "checkpoint_00000006.pth"]
    assert (tmp_path / "last_checkpoint.txt").read_text().strip() == "checkpoint_00000006.pth"
    extra = {"root": torch.ones(2)}
    trainer(tiny_learner("clip"), iterations=6, iteration=6, hooks=(hook(lambda t: extra),)).run()  # a resume
    assert names(tmp_path) == ["checkpoint_00000004.pth", "checkpoint_final.pth"]
    assert torch.equal(torch.load(tmp_path / "checkpoint_final.pth")["root"], extra["root"])


def test_a_stale_final_checkpoint_is_not_that_of_a_longer_run(tmp_path: Path) -> None:
    for iterations in (4, 8):
        trainer(tiny_learner("clip"), iterations=iterations, hooks=(saving(tmp_path, period=3),)).run()
    (tmp_path / "checkpoint_final.pth").unlink()
    save_checkpoint(tmp_path, {"iteration": 4}, name="checkpoint_final.pth")
    save_checkpoint(tmp_path, {"iteration": 8}, name="checkpoint_00000008.pth")  # stopped right at the end
    trainer(tiny_learner("clip"), iterations=8, iteration=8, hooks=(saving(tmp_path, period=3),)).run()
    assert torch.load(tmp_path / "checkpoint_final.pth")["iteration"] == 8


def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("hypvl.training.hooks.checkpoints.save_checkpoint", full)
    with pytest.raises(
        UserError, match=r"checkpoint_00000002\.pth: cannot be written \(No space left on device\)"
    ):
        trainer(tiny_learner("clip"), hooks=(saving(tmp_path, period=2),)).run()
