"""Signals of a run: SIGTERM and Ctrl-C save and stop it, SIGUSR1 saves it and lets it go on.

A second SIGTERM or Ctrl-C is obeyed at once, without saving.
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

# `timeout`, schedulers and launchers send one request to the process and to its group: what comes this close is one.
TOGETHER = 1.0
_STOP = (signal.SIGTERM, signal.SIGINT)
_SAVE = signal.SIGUSR1


class Interrupted(BaseException):
    """A request to stop came while the run waited for data. No Exception: nothing between may swallow it."""


class Signals:
    """What the processes of a run were asked to do; signals are caught while it is entered as a context.

    In a thread other than the main one, where Python does not give signals, nothing is caught.

    Attributes:
        stop: The signal that asked the run to stop, as the ranks agreed, or None.
        save: A checkpoint was asked for, as the ranks agreed; whoever saves it sets it back.
        interruptible: Set while waiting for what may never come: a request to stop then raises :class:`Interrupted`.
    """

    def __init__(self) -> None:
        self.stop: signal.Signals | None = None
        self.save = False
        self.interruptible = False
        self._stop: signal.Signals | None = None  # what this process alone has heard
        self._save = False
        self._previous: dict[signal.Signals, Any] = {}
        self._group: ProcessGroup | None = None
        self._pid = os.getpid()

    def __enter__(self) -> "Signals":
        self._group = distributed.host_group() if distributed.world_size() > 1 else None
        if threading.current_thread() is not threading.main_thread():
            return self
        self._pid = os.getpid()
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._leave_at_the_second, daemon=True, name="signals").start()
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
        """Whether this process was; the others may not know yet."""
        return self._stop is not None

    def agree(self) -> None:
        """Let every rank know what any rank was asked (a collective; the device is not waited for)."""
        heard, self._save = [*(self._stop is number for number in _STOP), self._save], False
        *stops, save = distributed.any_rank(heard, group=self._group)
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

    def _leave_at_the_second(self) -> None:
        """In a thread, which hears of signals also while the main one waits for another process or the device."""
        first: float | None = None
        while received := self._read.recv(64):
            for number in received:
                if number not in _STOP:
                    continue
                if first is None:
                    first = time.monotonic()
                elif time.monotonic() - first >= TOGETHER:
                    os.write(2, b"asked to stop a second time: leaving at once\n")
                    os._exit(exit_code(signal.Signals(number)))
        self._read.close()


def exit_code(number: signal.Signals) -> int:
    """What shells report for a process that a signal ended: 128 + its number."""
    return 128 + int(number)
