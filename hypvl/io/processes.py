"""What the system says of processes, and signals that a run holds back or leaves ignored."""

import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path


def process_stat(pid: int) -> list[str] | None:
    """The fields of ``/proc/<pid>/stat`` after the name: state, parent, group, session, and more (proc(5)).

    A state of "Z" or "X" is that of a process which has ended. None where there is no such process, or no ``/proc``
    (another system than Linux).
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()  # the name before it may hold anything


def bytes_moved() -> int:
    """Bytes that this process has read and written so far, also on no disk; 0 where the system does not count them."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    numbers = dict(line.split(": ") for line in lines)
    return int(numbers["rchar"]) + int(numbers["wchar"])


def hold_save_requests() -> set[int]:
    """Block SIGUSR2, which asks a run for a checkpoint and ends other processes; returns the mask before.

    It waits until the run trains (:class:`hypvl.training.loop.Signals`). Threads and processes that start meanwhile
    inherit that.
    """
    return signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})


@contextlib.contextmanager
def save_requests_held() -> Iterator[None]:
    """:func:`hold_save_requests` in the block; afterwards SIGUSR2 is ignored, as there is nothing more to save."""
    before = hold_save_requests()
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # no other one may
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unless_ignored(numbers: Iterable[signal.Signals]) -> list[signal.Signals]:
    """The signals without SIGHUP where that is ignored: under ``nohup`` a process outlives its terminal."""
    return [n for n in numbers if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
