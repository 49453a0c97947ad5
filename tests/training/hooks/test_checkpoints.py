import os
import signal
from pathlib import Path

import pytest
import torch

from hypvl.errors import ConfigError
from hypvl.training.hooks.checkpoints import Checkpoints, OrderlyStop
from hypvl.training.loop import Hook, StepResult, Trainer
from tests.training.test_loop import trainer
from tests.training.tiny import tiny_learner


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


def test_sigterm_saves_and_stops_and_gives_the_signal_back(tmp_path: Path) -> None:
    class Terminate(Hook):
        def after_step(self, trainer: Trainer, step: StepResult) -> None:
            if trainer.iteration == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    run = trainer(
        tiny_learner("clip"), iterations=6, hooks=(Terminate(), OrderlyStop(), saving(tmp_path, period=100))
    )
    run.run()
    assert run.iteration == 3
    assert (tmp_path / "last_checkpoint.txt").read_text().strip() == "checkpoint_00000003.pth"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("keep", [0, -1])
def test_keeping_no_checkpoint_is_refused(tmp_path: Path, keep: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"train\.keep_checkpoints: got {keep}; expected at least 1, or null"
    ):
        Checkpoints(tmp_path, collect=lambda t: {}, period=1, keep=keep)
