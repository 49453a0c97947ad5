"""Ranks wait for rank 0 as long as it works, and no longer; everything else of the notes is in test_launch.py."""

import math
from collections.abc import Callable

import pytest
import torch.distributed as dist

from hypvl import rank_notes
from hypvl.rank_notes import RankNotes

MEGABYTE = 1 << 20


class World:
    """Two ranks in one process, with a clock that only waiting moves on, by a second at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.used, self.moved = 0.0, 0.0, 0
        self.each_second: Callable[[], None] = lambda: None
        monkeypatch.setattr(rank_notes, "time", self)
        monkeypatch.setattr(rank_notes, "bytes_moved", lambda: self.moved)
        store = dist.HashStore()
        self.main, self.other = (RankNotes(store, rank=rank, world=2, timeout=5.0) for rank in (0, 1))

    def monotonic(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.used

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= 0.5
        self.now = math.floor(self.now) + 1.0
        self.each_second()
        self.main.tell()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


@pytest.mark.parametrize("what", ["computes", "writes"])
def test_the_others_wait_while_rank_0_works(world: World, what: str) -> None:
    def work() -> None:
        world.used += 0.05 if what == "computes" else 0.0
        world.moved += MEGABYTE if what == "writes" else 0
        if world.now % 20 == 0:
            world.main.tell_done()

    world.each_second = work
    for ended in (20.0, 40.0):
        world.other.wait_for_main()
        assert world.now == ended


def test_what_rank_0_did_before_is_not_waited_for(world: World) -> None:
    for _ in range(3):
        world.main.tell_done()
    for _ in range(3):
        world.other.wait_for_main()
    assert world.now == 0.0
    with pytest.raises(dist.DistError, match="rank 0 has done nothing for 5 s"):
        world.other.wait_for_main()


def test_the_others_give_up_a_rank_0_that_does_nothing(world: World) -> None:
    def work() -> None:  # threads that look whether there is something to do, and a log
        world.used += 0.001
        world.moved += 1000
        if world.now <= 10:
            world.used += 1.0

    world.each_second = work
    with pytest.raises(dist.DistError, match="rank 0 has done nothing for 5 s"):
        world.other.wait_for_main()
    assert 15.0 < world.now <= 17.0


def test_the_others_give_up_when_a_rank_has_ended(world: World) -> None:
    world.each_second = lambda: world.main.tell_end("raised OSError: gone") if world.now == 3 else None
    with pytest.raises(dist.DistError, match="a rank has ended"):
        world.other.wait_for_main()
    assert world.now == 3.0
