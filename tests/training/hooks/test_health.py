"""A standstill is said, with what is waited for; steps that come are not."""

import time
from collections.abc import Iterator
from typing import Any

from loguru import logger

from hypvl.training.hooks.health import Stalls
from hypvl.training.loop import Hook, StepResult, Trainer
from tests.training.test_loop import batches, trainer
from tests.training.tiny import tiny_learner


def slow(*, at: int, seconds: float) -> Iterator[dict[str, Any]]:
    for i, batch in enumerate(batches()):
        if i == at:
            time.sleep(seconds)
        yield batch


def warnings_of(*, seconds: float) -> list[str]:
    lines: list[str] = []
    handler = logger.add(lambda message: lines.append(str(message)), format="{message}", level="WARNING")
    try:
        run = trainer(tiny_learner("clip"), iterations=4, hooks=(Stalls(seconds=seconds),))
        run.loader = slow(at=2, seconds=1.2)
        run.run()
        time.sleep(0.1)
    finally:
        logger.remove(handler)
    return [line for line in lines if "after iteration 2" in line]


def test_a_wait_for_data_is_said_at_growing_distances() -> None:
    assert warnings_of(seconds=0.2)[:3] == [
        f"rank 0: no step has ended for {waited} s after iteration 2; it waits for data: slow storage, or a data "
        "worker that is stopped\n"
        for waited in ("0", "0", "1")  # 0.2, 0.4 and 0.8 s
    ]


class Measuring(Hook):
    """Takes its time between two steps, and says what for."""

    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        if trainer.iteration == 2:
            trainer.between_steps = "the evaluation colors"
            time.sleep(0.6)
            trainer.between_steps = None


def test_an_evaluation_that_takes_long_is_no_warning() -> None:
    lines: list[str] = []
    handler = logger.add(lambda message: lines.append(str(message)), format="{level} {message}", level="INFO")
    trainer(tiny_learner("clip"), iterations=3, hooks=(Stalls(seconds=0.2), Measuring())).run()
    logger.remove(handler)
    said = [line for line in lines if "after iteration 2" in line]
    assert said[0].startswith("INFO ") and said[0].endswith("it waits for the evaluation colors\n")


def test_what_goes_on_is_not() -> None:
    assert warnings_of(seconds=30.0) == []
