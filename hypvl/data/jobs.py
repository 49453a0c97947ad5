"""Runs one job per file over several processes: progress in small units, and an end in time when asked to stop."""

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import torch

from hypvl.errors import DataError, UserError

Argument = TypeVar("Argument")
Result = TypeVar("Result")
#: Counts units of work done; ends the job where the run was asked to stop.
Tick = Callable[[int], None]

_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 10.0


class StoppedError(Exception):
    """Raised by a job's ``tick``: nobody waits for its result any more."""


def run_jobs(
    job: Callable[[Argument, Tick], Result],
    arguments: Sequence[Argument],
    *,
    num_workers: int,
    on_result: Callable[[int, Result | UserError], None],
    on_progress: Callable[[int], None],
) -> None:
    """Call ``job(argument, tick)`` for each argument; results come in any order, in this process.

    Whatever ends the run early (Ctrl-C, an error in a callback, a dead worker), the workers end at their next
    tick, and have ended when this function raises.

    Args:
        job: Calls its second argument with the units of work it has done, often. A :class:`UserError` it raises
            is its result; any other exception is an error of the program and ends the run.
        arguments: In the order in which they are begun.
        num_workers: Processes; 0 works in this one.
        on_result: Takes the position of the argument and its result.
        on_progress: Takes the units done so far, several times a second and after each result.

    Raises:
        DataError: when a worker has died.
    """
    if num_workers == 0:
        _run_here(job, arguments, on_result, on_progress)
        return
    begun, stop = multiprocessing.Value("q", 0), multiprocessing.Event()
    workers: dict[Connection, _Worker] = {}
    units = 0  # of workers that have ended
    try:
        with _uninterrupted():  # a Ctrl-C in the middle of a fork gets lost
            for _ in range(min(num_workers, len(arguments))):
                reader, worker = _Worker.start(job, arguments, begun, stop)
                workers[reader] = worker
        while workers:
            ready = wait([*workers, *(worker.process.sentinel for worker in workers.values())], _POLL_SECONDS)
            for reader, worker in list(workers.items()):
                if reader in ready:
                    try:
                        number, result = reader.recv()
                    except EOFError:
                        worker.process.join()
                    else:
                        on_result(number, result)
                        continue  # there may be another one
                elif worker.process.exitcode is None or reader.poll():
                    continue
                del workers[reader]
                units += worker.units.value
                _check_exit(worker.process.exitcode, num_workers)
            on_progress(units + sum(worker.units.value for worker in workers.values()))
    finally:
        stop.set()
        for worker in workers.values():
            worker.process.join(_PATIENCE_SECONDS)
            worker.process.kill()  # one that waits for a lock of another that was killed


@dataclass(frozen=True)
class _Worker:
    process: BaseProcess
    units: Any  # of work done; its own, as a shared one needs a lock, which a killed process may hold

    @classmethod
    def start(
        cls, job: Callable[..., Any], arguments: Sequence[Any], begun: Any, stop: Any
    ) -> tuple[Connection, "_Worker"]:
        reader, writer = multiprocessing.Pipe(duplex=False)
        units = multiprocessing.RawValue("q", 0)
        process = multiprocessing.Process(
            target=_work, args=(job, arguments, writer, begun, units, stop), daemon=True
        )
        process.start()
        writer.close()  # this process's copy: the worker's end is the reader's
        return reader, cls(process, units)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Lets a Ctrl-C wait until the block has ended."""
    if threading.current_thread() is not threading.main_thread():  # signals go to the main thread alone
        yield
        return
    came: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if previous is None else previous)
    if came and callable(previous):
        previous(signal.SIGINT, None)


def _check_exit(code: int | None, num_workers: int) -> None:
    if code:
        why = (
            f"most often memory is full: use fewer than {num_workers} workers"
            if code < 0
            else "its own message is above"
        )
        raise DataError(
            f"a worker process has died (exit code {code}); {why}; the same command goes on where it stopped."
        )


def _run_here(
    job: Callable[[Argument, Tick], Result],
    arguments: Sequence[Argument],
    on_result: Callable[[int, Result | UserError], None],
    on_progress: Callable[[int], None],
) -> None:
    units = 0

    def tick(count: int) -> None:
        nonlocal units
        units += count
        on_progress(units)

    for number, argument in enumerate(arguments):
        result: Result | UserError
        try:
            result = job(argument, tick)
        except UserError as error:
            result = error
        on_result(number, result)
        on_progress(units)


def _work(
    job: Callable[[Any, Tick], Any],
    arguments: Sequence[Any],
    writer: Connection,
    begun: Any,
    units: Any,
    stop: Any,
) -> None:
    """A worker: takes the next argument until there is none, the run stops, or its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which sets `stop`
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()

    def tick(count: int) -> None:
        units.value += count
        if stop.is_set() or (parent is not None and not parent.is_alive()):
            raise StoppedError

    while True:
        with begun.get_lock():
            number = begun.value
            begun.value += 1
        if number >= len(arguments):
            return
        try:
            tick(0)
            result = job(arguments[number], tick)
        except UserError as error:
            result = error
        except StoppedError:
            return
        writer.send((number, result))
