"""A pool of processes that runs one job per argument: their start and end.

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
from multiprocessing.process import BaseProcess
from typing import Any, Literal, TypeAlias, TypeVar

from hypvl.checks import one_of
from hypvl.errors import DataError, UserError

StartMethod: TypeAlias = Literal["fork", "spawn"]
Argument = TypeVar("Argument")
Result = TypeVar("Result")
#: Counts units of work done.
Tick = Callable[[int], None]

_POLL_SECONDS = 0.2
_AHEAD = 2  # arguments per process that are read ahead
# Also sent to workers, as they are in its process group.
_FOR_MAIN = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


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
                with signals_held():
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
            kill_processes(_workers(pool))
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
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


def ignore_signals(*, but: Sequence[signal.Signals] = ()) -> None:
    """In a process that was started under :func:`signals_held`: ignore the signals for the main process."""
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
    ignore_signals(but=(signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2))
    if len(units) > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    threading.Thread(target=end_with_parent, daemon=True).start()


def kill_processes(workers: Sequence[BaseProcess]) -> None:
    """Kill those that still run."""
    for worker in workers:
        if worker.is_alive():
            worker.kill()


def end_with_parent() -> None:
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
