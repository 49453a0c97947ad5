"""Data that do not come: the run saves what was done, says who is late, and ends."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hypvl import distributed
from hypvl.errors import DataError, StalledDataError
from tests.ranks import run_ranks
from tests.training.test_loop import batches, trainer
from tests.training.test_signals import saving
from tests.training.tiny import rows_of, tiny_learner


class Data(Iterator[dict[str, Any]]):
    """Two batches, and then what ``third`` does; on every rank, or on rank 1 alone."""

    def __init__(self, third: Any) -> None:
        self.batches, self.third, self.count = batches(), third, 0

    def __next__(self) -> dict[str, Any]:
        self.count += 1
        if self.count == 3 and distributed.rank() == distributed.world_size() - 1:
            self.third()
        return rows_of(next(self.batches), distributed.rank(), distributed.world_size())

    def describe(self) -> str:
        return "data worker 7 is stopped"


def hang() -> None:
    time.sleep(60)


def break_() -> None:
    raise DataError("shard 3 is gone")


def train(folder: str, third: Any) -> tuple[int, str, str]:
    run = trainer(tiny_learner("clip"), hooks=(saving(Path(folder)),))
    run.loader, run.data_timeout_s = Data(third), 1.0
    started = time.monotonic()
    with pytest.raises(DataError) as error:
        run.run()
    assert time.monotonic() - started < 50
    return run.iteration, error.type.__name__, str(error.value)


LATE = (
    "no batch has come for 1 s (two thirds of train.timeout_s): data worker 7 is stopped; repair what is slow"
)


@pytest.mark.parametrize(
    ("third", "kind", "said"), [(hang, StalledDataError, LATE), (break_, DataError, "shard 3 is gone")]
)
def test_a_run_without_data_saves_and_ends(tmp_path: Path, third: Any, kind: type, said: str) -> None:
    iteration, name, text = train(str(tmp_path), third)
    assert (iteration, name) == (2, kind.__name__) and text.startswith(said)
    assert (tmp_path / "last_checkpoint.txt").read_text().strip() == "checkpoint_00000002.pth"


@pytest.mark.slow
@pytest.mark.parametrize(("third", "said"), [(hang, LATE), (break_, "shard 3 is gone")])
def test_ranks_end_together_when_one_has_no_data(tmp_path: Path, third: Any, said: str) -> None:
    one, other = run_ranks(2, train, str(tmp_path), third)
    assert one == other and one[0] == 2 and one[2].startswith(f"rank 1: {said}")
    assert (tmp_path / "last_checkpoint.txt").read_text().strip() == "checkpoint_00000002.pth"
