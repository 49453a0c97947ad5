"""Worker processes of a data loader, and a pool of processes that runs one job per argument: their start and end.

Does not import torch: processes start faster without it.
"""

import contextlib
import itertools
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import util
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from hypvl.checks import one_of
from hypvl.errors import DataError, UserError

if TYPE_CHECKING:  # commands import this module before torch
    from torch.utils.data import DataLoader

StartMethod: TypeAlias = Literal["fork", "spawn"]
Argument = TypeVar("Argument")
Result = TypeVar("Result")
#: Counts units of work done.
Tick = Callable[[int], None]

_POLL_SECONDS = 0.2
_AHEAD = 2  # arguments per process that are read ahead
# Also sent to workers, as they are in its process group.
_FOR_MAIN = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_T = TypeVar("_T")
# In the RuntimeError that torch raises, in whatever code the main process runs.
_MARK = "DataLoader worker (pid"
_PATIENCE = 5.0  # seconds for workers to end by themselves


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
        with _signals_held(), self._dead_worker_named():
            self._iterator: Iterator[_T] = iter(loader)
        self._workers: Sequence[BaseProcess] = getattr(self._iterator, "_workers", [])
        # At exit Python sends SIGTERM, which workers ignore, and waits: kill them before that.
        self._at_exit = util.Finalize(None, _kill, args=(self._workers,), exitpriority=100)

    def __next__(self) -> _T:
        with self._dead_worker_named():
            return next(self._iterator)

    def close(self) -> None:
        """End the workers; there is no next batch. One that does not end within seconds is killed."""
        iterator, self._iterator = self._iterator, iter(())
        late = threading.Timer(_PATIENCE, _kill, args=(self._workers,))
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
            _kill(self._workers)
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
    _ignore_signals()
    sys.excepthook = _without_transfers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _without_transfers(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """Python's own hook, but silent about a transfer that the main process gave up when it was stopped.

    Outside the main thread only the thread that passes file descriptors calls it; other threads have their own hook.
    """
    transfer = threading.current_thread() is not threading.main_thread()
    if not (transfer and isinstance(error, EOFError | OSError)):
        sys.__excepthook__(kind, error, where)


def _kill(workers: Sequence[BaseProcess]) -> None:
    for worker in workers:
        if worker.is_alive():
            worker.kill()


def run_jobs(
    job: Callable[[Argument, Tick], Result],
    arguments: Iterable[Argument],
    *,
    num_workers: int,
    on_progress: Callable[[int], None] | None = None,
    start_method: StartMethod = "fork",
) -> Generator[tuple[int, Result | UserError], None, None]:
    """Call ``job(argument, tick)`` for each argument; yields (position of the argument, result) in any order.

    Whatever ends the run early (Ctrl-C, a dead worker, closing this generator), the workers are killed first: a
    job must bear that at any point. They end with this process, too.

    Args:
        job: Calls its second argument with the units of work that it has done. A :class:`UserError` that it raises is
            its result; any other exception is raised here. Results should be small, files are better written by
            the job.
        arguments: Read only a little ahead of the work.
        num_workers: Processes; 0 works in this one.
        on_progress: Receives the units done so far, several times a second and after each result.

    Raises:
        DataError: when a worker has died.
    """
    one_of("start_method", start_method, StartMethod)
    report = on_progress if on_progress is not None else (lambda units: None)
    if num_workers == 0:
        yield from _run_here(job, arguments, report)
        return
    context = multiprocessing.get_context(start_method)
    # Each worker counts in a place of its own: a shared count needs a lock, which a killed process may hold.
    units, started = context.RawArray("q", num_workers), context.Value("i", 0)
    pool = ProcessPoolExecutor(
        num_workers, context, initializer=_begin_worker, initargs=(job, units, started)
    )
    pending: dict[Future[Result | UserError], int] = {}
    numbered = enumerate(arguments)
    try:
        while True:
            for number, argument in itertools.islice(numbered, _AHEAD * num_workers - len(pending)):
                with _signals_held():
                    pending[pool.submit(_work, argument)] = number
            if not pending:
                break
            for future in wait(pending, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED).done:
                yield pending.pop(future), future.result()
            report(sum(units))
    except BrokenProcessPool as error:
        workers = _workers(pool)
        pool.shutdown()  # waits for their exit codes
        raise DataError(_death(workers, num_workers)) from error
    finally:
        if pending:
            _kill(_workers(pool))
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Start processes in this block: they begin with the signals for the main process blocked, so that none ends them.

    This process receives them after the block: a Ctrl-C in the middle of a fork would get lost.
    """
    came: list[int] = []
    main = threading.current_thread() is threading.main_thread()  # the only one with handlers of signals
    handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number)) if main else None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_MAIN)
    try:
        yield
    finally:
        if main:  # before they are unblocked
            signal.signal(signal.SIGINT, signal.SIG_DFL if handler is None else handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if came and callable(handler):
        handler(signal.SIGINT, None)


def _ignore_signals(*, but: Sequence[signal.Signals] = ()) -> None:
    """In a process that was started under :func:`_signals_held`: ignore the signals for the main process."""
    for number in _FOR_MAIN:
        if number not in but:
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FOR_MAIN)


def _workers(pool: ProcessPoolExecutor) -> list[BaseProcess]:
    return list((pool._processes or {}).values())  # from Python 3.14 on a pool has kill_workers()


def _death(workers: Sequence[BaseProcess], num_workers: int) -> str:
    # The pool ends the others by SIGTERM.
    codes = [worker.exitcode for worker in workers if worker.exitcode not in (None, 0, -signal.SIGTERM)]
    code = codes[0] if codes else -signal.SIGTERM
    why = (
        f"most often memory is full: use fewer than {num_workers} workers"
        if code < 0
        else "its own message is above"
    )
    return f"a worker process has died (exit code {code}); {why}; the same command goes on where it stopped."


def _run_here(
    job: Callable[[Argument, Tick], Result], arguments: Iterable[Argument], report: Callable[[int], None]
) -> Generator[tuple[int, Result | UserError], None, None]:
    units = 0

    def tick(count: int) -> None:
        nonlocal units
        units += count
        report(units)

    for number, argument in enumerate(arguments):
        result: Result | UserError
        try:
            result = job(argument, tick)
        except UserError as error:
            result = error
        yield number, result
        report(units)


_job: Callable[[Any], Any]  # of a worker process


def _begin_worker(job: Callable[[Any, Tick], Any], units: Any, started: Any) -> None:
    """In a new worker: end with the parent, ignore Ctrl-C, and do not compete for the cores."""
    global _job  # how an initializer of a pool hands over what each of its calls needs
    with started.get_lock():
        place = started.value
        started.value += 1

    def tick(count: int) -> None:
        units[place] += count

    _job = lambda argument: job(argument, tick)  # noqa: E731
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _ignore_signals(but=(signal.SIGTERM, signal.SIGUSR1))
    if len(units) > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the end of the process that started this one, then end it."""
    parent = multiprocessing.parent_process()
    assert parent is not None and parent.pid is not None
    try:
        handle = os.pidfd_open(parent.pid)
    except (AttributeError, OSError):  # not Linux, or it has ended already
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.kill(parent.pid, 0)
                time.sleep(1.0)
    else:
        select.select([handle], [], [])
    os._exit(1)


def _work(argument: Any) -> Any:
    try:
        return _job(argument)
    except UserError as error:
        return error
