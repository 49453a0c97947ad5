"""What the ranks of a run tell each other besides collectives: what each does, and how one ended.

The notes lie in the store that the process group was made from. They say who is to blame when a collective fails,
which only tells that some other rank did not answer.
"""

import contextlib
import dataclasses
import json
import math
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch.distributed as dist

from hypvl.io.json_text import parse_json
from hypvl.io.processes import bytes_moved

#: Seconds between two notes of a rank on what it does.
PERIOD = 2.0
# Seconds in which a rank that ended has told it, or its launcher has.
_PATIENCE = 4.0
_POLL = 0.1
# A rank works when its process uses this share of one processor, or moves as many bytes per second. Threads that only
# look every now and then whether there is something to do stay far below both.
_SHARE, _BYTES = 0.01, 64 << 10


@dataclasses.dataclass(frozen=True)
class RankNote:
    """What a rank does, or how it ended."""

    rank: int
    host: str
    pid: int
    text: str  # "raised ValueError: ...", or what it does: "iteration 40: waits for data"
    did: str = ""  # of an end: what it did last
    traceback: str = ""  # of an end by an error of the program
    stopped: int = 0  # of an end because it was asked to stop: the exit code
    count: int = 0  # how often the rank has told what it does
    worked: int = 0  # how often it had worked since it told so before
    waits: bool = False  # in a collective, for others: it is not to blame

    def __str__(self) -> str:
        return f"rank {self.rank} ({self.host}, process {self.pid})"

    @property
    def sentence(self) -> str:
        """How it ended, without a full stop."""
        return f"{self} {self.text}" + (f" (last known of it: {self.did})" if self.did else "")


class RankNotes:
    """The notes of all ranks; a client of its own, so that waiting for one request delays no other.

    Args:
        store: That of the process group.
        rank: Of this process; None only reads and tells of others.
        world: Number of ranks.
        timeout: Seconds for which other ranks wait for rank 0 when it alone has something to do, but does nothing.
    """

    def __init__(self, store: dist.Store, *, rank: int | None, world: int, timeout: float = math.inf) -> None:
        self._store = dist.PrefixStore("notes", store)
        self._rank, self._world, self._timeout = rank, world, timeout
        self._count = 0
        self._effort = _Effort()
        self._waits = 0  # how often this rank has waited for rank 0
        self._first_end: RankNote | None = None
        self.gone = False  #: Whether the store has ended, with the launcher of machine 0.
        self._thread = threading.get_ident()  # whose place in the program is told
        self._ended = threading.Event()
        #: Called with why a collective of this rank failed, or None where nobody knows, when that is clear.
        self.explained: Callable[[str | None], None] = lambda _: None
        self.describe: Callable[[], str] = (
            str  #: What this rank does, in words, besides its place in the program.
        )

    def __enter__(self) -> "RankNotes":
        """Tell every few seconds what this rank does, from a thread: one that is stopped is silent."""
        self.tell()
        threading.Thread(target=self._keep_telling, daemon=True, name="rank notes").start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _keep_telling(self) -> None:
        with contextlib.suppress(dist.DistError):  # the store has ended
            while not self._ended.wait(PERIOD):
                self.tell()

    def tell(self) -> None:
        """What this rank does now."""
        place, waits = _place_of(self._thread)
        self._count += 1
        text = ", ".join(filter(None, (self.describe(), place)))
        note = self._note(text, count=self._count, worked=self._effort.count(), waits=waits)
        self._write(f"state/{self._rank}", note)

    def tell_end(self, text: str, *, traceback: str = "", stopped: int = 0) -> None:
        """This rank ends; arguments as for :class:`RankNote`."""
        self.add_end(self._note(text, did=self.describe(), traceback=traceback, stopped=stopped))

    def add_end(self, note: RankNote) -> None:
        """A rank has ended; the first who does so is the cause."""
        self._write(f"end/{self._store.add('ends', 1)}", note)

    def state(self, rank: int) -> RankNote | None:
        """What a rank told last."""
        return self._read(f"state/{rank}")

    def first_end(self) -> RankNote | None:
        """How the first rank ended that did so by itself; None while none has, or when the store is gone."""
        if self._first_end is None and not self.gone:
            try:
                self._first_end = self._read("end/1")
            except dist.DistError:
                self.gone = True
        return self._first_end

    def tell_done(self) -> None:
        """Rank 0 has done what it alone had to do: the others, which are in :meth:`wait_for_main`, go on."""
        self._store.add("done alone", 1)

    def wait_for_main(self) -> None:
        """Wait for the next :meth:`tell_done` of rank 0, however long it works.

        Raises:
            DistError: when a rank has ended, or rank 0 has done nothing for the timeout; :meth:`blame` says who.
        """
        self._waits += 1
        began = last = time.monotonic()
        worked: int | None = None
        while self._store.add("done alone", 0) < self._waits:
            if self.first_end() is not None:
                raise dist.DistError("a rank has ended")
            now = time.monotonic()
            if (note := self.state(0)) is not None and note.worked != worked:
                worked, last = note.worked, now
            if now - last > self._timeout:
                raise dist.DistError(f"rank 0 has done nothing for {self._timeout:.0f} s")
            time.sleep(min(0.001 + 0.1 * (now - began), 0.5))

    def blame(self) -> str | None:
        """Who made a collective of this rank fail, in words; waits for some seconds. None when nothing is known."""
        before = {rank: self.state(rank) for rank in range(self._world) if rank != self._rank}
        deadline = time.monotonic() + max(_PATIENCE, 2 * PERIOD)
        while time.monotonic() < deadline:
            if (end := self.first_end()) is not None:
                return end.sentence
            time.sleep(_POLL)
        silent, waiting = [], []
        for rank, old in before.items():
            now = self.state(rank)
            if now is None or old is None:
                silent.append(f"rank {rank} has never told what it does")
            elif now.count == old.count:
                silent.append(
                    f"{now} does not answer: stopped, dead or cut off; last known of it: {now.text}"
                )
            elif not now.waits:
                waiting.append(f"{now} is late (if it may take so long, raise train.timeout_s); {now.text}")
        return "; ".join(silent or waiting) or None

    def _note(self, text: str, **more: Any) -> RankNote:
        rank = -1 if self._rank is None else self._rank
        return RankNote(rank, socket.gethostname(), os.getpid(), text, **more)

    def _write(self, key: str, note: RankNote) -> None:
        self._store.set(key, json.dumps(dataclasses.asdict(note)))

    def _read(self, key: str) -> RankNote | None:
        return RankNote(**parse_json(self._store.get(key))) if self._store.check([key]) else None


def _place_of(thread: int) -> tuple[str, bool]:
    """Where a thread is in hypvl, as "training/loop.py:230 in _step", and whether it waits for other ranks there."""
    frames = [
        frame for frame, _ in traceback.walk_stack(sys._current_frames().get(thread))
    ]  # the innermost first
    own = ""
    for frame in frames:
        _, package, file = frame.f_code.co_filename.replace(os.sep, "/").rpartition("/hypvl/")
        if package and file not in ("rank_notes.py", "launch.py"):
            own = f"{file}:{frame.f_lineno} in {frame.f_code.co_name}"
            break
    waits = bool(frames) and (
        "/torch/distributed/" in frames[0].f_code.co_filename
        or frames[0].f_code.co_name == "_engine_run_backward"  # where DDP averages gradients
        or any(frame.f_code is RankNotes.wait_for_main.__code__ for frame in frames)
    )
    return own, waits


class _Effort:
    """Whether this process works: by the time of processors that it uses, and by what it reads and writes."""

    def __init__(self) -> None:
        self._last = (time.monotonic(), time.process_time(), bytes_moved())
        self._count = 0

    def count(self) -> int:
        """In how many of the spans between two calls it has worked."""
        before, self._last = self._last, (time.monotonic(), time.process_time(), bytes_moved())
        seconds, used, moved = (new - old for new, old in zip(self._last, before, strict=True))
        self._count += used > _SHARE * seconds or moved > _BYTES * seconds
        return self._count


_CURRENT: ContextVar[RankNotes | None] = ContextVar("rank_notes", default=None)


def current() -> RankNotes | None:
    """The notes of this rank; None in a single process, or without a store that could hold them."""
    return _CURRENT.get()


@contextlib.contextmanager
def noting(notes: RankNotes) -> Iterator[None]:
    """Make these the :func:`current` ones, and keep telling what this rank does."""
    token = _CURRENT.set(notes)
    try:
        with notes:
            yield
    finally:
        _CURRENT.reset(token)


def failed_by_another(error: BaseException) -> bool:
    """Whether an error says that a collective failed, which is the fault of some other rank."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo/" in str(error))
