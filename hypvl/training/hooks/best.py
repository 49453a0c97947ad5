"""The checkpoint with the best value of a metric: ``checkpoint_best.pth``, beside the periodic ones."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loguru import logger

from hypvl import distributed
from hypvl.checks import one_of
from hypvl.errors import CheckpointError
from hypvl.io.tensors import write_torch
from hypvl.models.checkpoint_io import BEST_NAME, load_checkpoint
from hypvl.training.config import Mode
from hypvl.training.hooks.checkpoints import check_weights_finite, saving, write_on_main
from hypvl.training.loop import Trainer
from hypvl.training.parallel import gathered


@dataclasses.dataclass
class BestCheckpoint:
    """Keeps the state of the step at which a metric was best, in one file that a better one replaces.

    Its entry ``best`` says of which metric it is, and the value; a resumed run reads it there, so that file and value
    cannot disagree. The file holds all that other checkpoints hold, and ``--resume`` never chooses it by itself.
    """

    folder: Path  # of the run
    metric: str  # "<evaluation>/<metric>"
    _: dataclasses.KW_ONLY
    mode: Mode = "max"  # whether the greatest or the least value is the best
    collect: Callable[[Trainer], dict[str, Any]]  # the state to save (a collective)
    value: float | None = dataclasses.field(default=None, init=False)  # the best so far; None = none was seen

    def __post_init__(self) -> None:
        one_of("mode", self.mode, Mode)

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / BEST_NAME

    def start(self, trainer: Trainer) -> None:
        """Take over the best value of the run that is resumed (a collective)."""
        self.value = (
            distributed.from_main(lambda: self._stored(trainer.iteration)) if trainer.iteration > 0 else None
        )

    def offer(self, trainer: Trainer, value: float) -> bool:
        """Save the present state if its value is better than all before; whether it was (a collective).

        Raises:
            UserError: for weights that are not finite, or a disk that cannot be written to.
        """
        value, better = distributed.broadcast_object((value, self._is_better(value)))
        if not better:
            return False
        check_weights_finite(trainer)
        about = {"metric": self.metric, "mode": self.mode, "value": value, "iteration": trainer.iteration}
        with saving(trainer):
            state = gathered({**self.collect(trainer), "best": about})
            write_on_main(self.path, lambda: write_torch(self.path, state))
        self.value = value
        return True

    def _is_better(self, value: float) -> bool:
        if self.value is None:
            return True
        return value > self.value if self.mode == "max" else value < self.value

    def _stored(self, resumed_at: int) -> float | None:
        if not self.path.is_file():
            return None
        try:
            about = load_checkpoint(self.path).get("best")
        except CheckpointError as error:
            logger.warning("{}; the next evaluation replaces it", error)
            return None
        if not isinstance(about, dict) or (about.get("metric"), about.get("mode")) != (
            self.metric,
            self.mode,
        ):
            logger.warning(
                "{}: is the best by another metric than train.keep_best; the next evaluation replaces it",
                self.path,
            )
            return None
        value, iteration = float(about["value"]), about.get("iteration")
        logger.info("best so far: {} {:.6g}, at iteration {}", self.metric, value, iteration)
        if isinstance(iteration, int) and iteration > resumed_at:
            logger.warning(
                "{}: is from iteration {}, after iteration {} where the run goes on: with the same settings it will be "
                "reached again; with others it stays from the steps before, until a better value replaces it",
                self.path, iteration, resumed_at,
            )  # fmt: skip
        return value
