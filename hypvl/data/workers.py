"""Worker processes of a data loader: their start and end.

Does not import torch: processes start faster without it.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import queues, util
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from hypvl.errors import DataError
from hypvl.io.processes import process_stat
from hypvl.units.pool import end_with_parent, ignore_signals, kill_processes, signals_held

if TYPE_CHECKING:  # commands import this module before torch
    from torch.utils.data import DataLoader

_T = TypeVar("_T")
# In the RuntimeError that torch raises, in whatever code the main process runs.
_MARK = "DataLoader worker (pid"
_PATIENCE = 5.0  # seconds for workers to end by themselves
# Of /proc/<pid>/stat -> in words
_STATES = {
    "T": "is stopped (kill -CONT {} lets it go on)",
    "D": "waits for a disk or a network",
    "Z": "has ended",
}


class WorkerIterator(Iterator[_T]):
    """Iterates over a loader whose workers ignore the signals of their process group and end with this process.

    Ctrl-C and the signals of a cluster are for this process, which then calls :meth:`close`.

    The loader's ``worker_init_fn`` is replaced, and its workers are started. ``setting`` says how many there are, for
    messages, as in ``train.num_workers=4``.

    Raises:
        DataError: when a worker has died, here or while iterating.
    """

    def __init__(self, loader: "DataLoader[_T]", *, setting: str) -> None:
        self._setting = setting
        loader.worker_init_fn = _start_worker
        with signals_held(), self._dead_worker_named():
            self._iterator: Iterator[_T] = iter(loader)
        self._workers: Sequence[BaseProcess] = getattr(self._iterator, "_workers", [])
        # At exit Python sends SIGTERM, which workers ignore, and waits: kill them before that.
        self._at_exit = util.Finalize(None, kill_processes, args=(self._workers,), exitpriority=100)

    def __next__(self) -> _T:
        with self._dead_worker_named():
            return next(self._iterator)

    def describe(self) -> str:
        """What the workers are doing, in words: which is stopped or has ended, and how full /dev/shm is."""
        states = [f"data worker {worker.pid} {_doing(worker)}" for worker in self._workers]
        with contextlib.suppress(OSError):
            shm = os.statvfs("/dev/shm")
            free, size = (shm.f_frsize * blocks / 1e6 for blocks in (shm.f_bavail, shm.f_blocks))
            states.append(f"/dev/shm has {free:,.1f} of {size:,.1f} MB free")
        return ", ".join(states)

    def close(self) -> None:
        """End the workers; there is no next batch. One that does not end within seconds is killed."""
        iterator, self._iterator = self._iterator, iter(())
        late = threading.Timer(_PATIENCE, kill_processes, args=(self._workers,))
        late.daemon = True
        late.start()
        try:
            shutdown = getattr(iterator, "_shutdown_workers", None)
            if shutdown is not None:
                shutdown()
        except RuntimeError as error:
            if dead_worker(error, setting="") is None:  # else it was killed, here or by someone else
                raise
        finally:
            late.cancel()
            kill_processes(self._workers)
            for worker in self._workers:
                with contextlib.suppress(RuntimeError):
                    worker.join(_PATIENCE)
            self._at_exit.cancel()

    @contextlib.contextmanager
    def _dead_worker_named(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            message = dead_worker(error, setting=self._setting)
            if message is None:  # an error of the program inside a worker
                raise
            raise DataError(message) from error


def _doing(worker: BaseProcess) -> str:
    if worker.exitcode is not None:
        return f"has ended (exit code {worker.exitcode})"
    fields = None if worker.pid is None else process_stat(worker.pid)
    if fields is None:  # it has just ended, or this is not Linux
        return "is running"
    return _STATES.get(fields[0], "is running").format(worker.pid)


def dead_worker(error: BaseException, *, setting: str) -> str | None:
    """One sentence about a worker process that has died, or None when the error of torch's loader is another.

    ``setting`` is that of :class:`WorkerIterator`.
    """
    if not isinstance(error, RuntimeError) or _MARK not in str(error):
        return None
    return (
        f"a data worker has died ({str(error).splitlines()[0]}); most often memory or /dev/shm is full: use fewer "
        f"workers than {setting}, or smaller batches."
    )


def _start_worker(_: int) -> None:
    """Ignore the signals that the main process handles, and end when it ends."""
    signal.set_wakeup_fd(-1)
    ignore_signals()
    sys.excepthook = _without_transfers
    # Else a batch that cannot be sent, because /dev/shm is full, is dropped, and the main process waits for ever.
    queues.Queue._on_queue_feeder_error = staticmethod(_end)  # type: ignore[attr-defined]
    threading.Thread(target=end_with_parent, daemon=True).start()


def _end(error: BaseException, _: object) -> None:
    """A batch cannot be sent: end, which the main process notices."""
    os.write(2, f"a data worker cannot send a batch: {error}\n".encode())
    os._exit(1)


def _without_transfers(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """Python's own hook, but silent about a transfer that the main process gave up when it was stopped.

    Outside the main thread only the thread that passes file descriptors calls it; other threads have their own hook.
    """
    transfer = threading.current_thread() is not threading.main_thread()
    if not (transfer and isinstance(error, EOFError | OSError)):
        sys.__excepthook__(kind, error, where)
