"""The share of bad samples is that of all ranks, at every log record, and the same sentence on each."""

import pytest

from hypvl import distributed
from hypvl.data.bad_samples import BadSamples
from hypvl.errors import DataError
from hypvl.training.hooks.metrics import Metrics
from hypvl.training.loop import Hook, StepResult, Trainer
from tests.ranks import run_ranks
from tests.training.test_loop import batches, trainer
from tests.training.tiny import rows_of, tiny_learner


class Reads(Hook):
    """Each step reads 10 samples, of which this many are bad on rank 1."""

    def __init__(self, tally: BadSamples, bad: int) -> None:
        self.tally, self.bad = tally, bad * distributed.rank()

    def after_step(self, trainer: Trainer, step: StepResult) -> None:
        self.tally.add(10 - self.bad, [(f"{trainer.iteration}-{i}", "torn") for i in range(self.bad)])


def train(bad: int) -> tuple[int, str]:
    tally = BadSamples(max_fraction=0.1, warm_up=0)
    run = trainer(tiny_learner("clip"), hooks=(Reads(tally, bad), Metrics([], period=2, bad=tally)))
    run.loader = (rows_of(batch, distributed.rank(), 2) for batch in batches())
    try:
        run.run()
    except DataError as error:
        return run.iteration, str(error)
    return run.iteration, ""


@pytest.mark.slow
def test_ranks_stop_together() -> None:
    assert run_ranks(2, train, 2) == [(6, "")] * 2  # 20 % on rank 1, 10 % in all
    one, other = run_ranks(2, train, 3)
    assert one == other == (2, one[1])
    assert (
        "6 of 40 samples (15.0%) could not be read (most on rank 1: 1-0: torn; 1-1: torn; 1-2: torn)"
        in one[1]
    )
