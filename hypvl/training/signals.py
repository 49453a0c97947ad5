"""Signals of a run: SIGTERM and Ctrl-C save and stop it, SIGUSR1 saves it and training continues.

A second SIGTERM or Ctrl-C ends the process at once, without saving.
"""

import os
import signal
import socket
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from torch.distributed import ProcessGroup

from hypvl import distributed

# Seconds. `timeout`, schedulers and launchers signal the process and its group: signals this close are one request.
TOGETHER = 1.0
_STOP = (signal.SIGTERM, signal.SIGINT)
_SAVE = signal.SIGUSR1


class Interrupted(BaseException):
    """A request to stop came while the run waited for data. A BaseException, so that no handler swallows it."""


class Signals:
    """Requests that signals made; they are caught while this context is entered.

    Outside the main thread, where Python delivers no signals, nothing is caught.

    Attributes:
        stop: The signal that asked the run to stop, as the ranks agreed, or None.
        save: A checkpoint was requested, as the ranks agreed; the hook that saves it resets this.
        interruptible: Set while the run waits for data: a request to stop then raises :class:`Interrupted`.
    """

    def __init__(self) -> None:
        self.stop: signal.Signals | None = None
        self.save = False
        self.interruptible = False
        self._stop: signal.Signals | None = None  # signals of this process alone
        self._save = False
        self._previous: dict[signal.Signals, Any] = {}
        self._group: ProcessGroup | None = None
        self._pid = os.getpid()

    def __enter__(self) -> "Signals":
        self._group = distributed.host_group() if distributed.world_size() > 1 else None
        if threading.current_thread() is not threading.main_thread():
            return self
        self._pid = os.getpid()
        read, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=_leave_at_the_second, args=(read,), daemon=True, name="signals").start()
        self._previous = {number: signal.signal(number, self._note) for number in (*_STOP, _SAVE)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if not self._previous:
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
        signal.set_wakeup_fd(self._wakeup)
        self._write.shutdown(socket.SHUT_RDWR)  # ends the thread, also where forked processes hold copies
        self._write.close()

    @property
    def asked_to_stop(self) -> bool:
        """Whether this process got a request to stop; the others may not know yet."""
        return self._stop is not None

    def agree(self) -> None:
        """Share the requests of every rank with all ranks (a collective; the device is not waited for)."""
        own, self._save = [*(self._stop is number for number in _STOP), self._save], False
        *stops, save = distributed.any_rank(own, group=self._group)
        self.stop = next((number for number, wanted in zip(_STOP, stops, strict=True) if wanted), None)
        self.save = self.save or save

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # in a forked process that has not set its own handlers yet
            return
        if number == _SAVE:
            self._save = True
            return
        if self._stop is None:
            self._stop = signal.Signals(number)
        if self.interruptible:
            self.interruptible = False
            raise Interrupted


def _leave_at_the_second(numbers: socket.socket) -> None:
    """Runs in a thread, which sees signals also while the main one waits for another process or the device."""
    first: float | None = None
    with numbers:
        while received := numbers.recv(64):
            for number in received:
                if number not in _STOP:
                    continue
                if first is None:
                    first = time.monotonic()
                elif time.monotonic() - first >= TOGETHER:
                    os.write(2, b"asked to stop a second time: leaving at once\n")
                    os._exit(exit_code(signal.Signals(number)))


def exit_code(number: signal.Signals) -> int:
    """The exit code that shells report for a process that a signal ended: 128 + its number."""
    return 128 + int(number)
