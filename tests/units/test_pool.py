"""Jobs over processes: results, progress, and an end in time."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hypvl.errors import DataError, UserError
from hypvl.units import pool as jobs
from hypvl.units.pool import run_jobs


def square(number: int, tick: Callable[[int], None]) -> int:
    for _ in range(number):
        tick(1)
    return number * number


def square_of_text(text: Any, tick: Callable[[int], None]) -> Any:
    return text * text


def failing(number: int, tick: Callable[[int], None]) -> int:
    if number == 2:
        raise DataError("two is none of ours.")
    return number


def dying(number: int, tick: Callable[[int], None]) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def endless(folder: Path, tick: Callable[[int], None]) -> None:
    while True:
        (folder / str(os.getpid())).write_text(str(time.monotonic()))
        tick(1)
        time.sleep(0.005)


def collect(job: Any, arguments: list[Any], num_workers: int) -> tuple[dict[int, Any], list[int]]:
    progress: list[int] = []
    results = dict(run_jobs(job, arguments, num_workers=num_workers, on_progress=progress.append))
    return results, progress


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_every_argument_has_its_result(num_workers: int) -> None:
    results, progress = collect(square, list(range(8)), num_workers)
    assert results == {i: i * i for i in range(8)}
    assert progress[-1] == sum(range(8))
    assert progress == sorted(progress)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_no_arguments_are_fine(num_workers: int) -> None:
    assert collect(square, [], num_workers) == ({}, [])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_of_one_is_its_result(num_workers: int) -> None:
    results, _ = collect(failing, [1, 2, 3], num_workers)
    assert isinstance(results[1], UserError)
    assert str(results[1]) == "two is none of ours."
    assert (results[0], results[2]) == (1, 3)


def test_a_killed_worker_is_named_and_the_others_end() -> None:
    with pytest.raises(
        DataError, match=r"a worker process has died \(exit code -9\); .* fewer than 2 workers"
    ):
        collect(dying, [0, 1, 2, 3], 2)


def test_an_error_of_the_program_in_a_worker_is_raised_here() -> None:
    with pytest.raises(TypeError, match="can't multiply"):
        collect(square_of_text, ["a", "b"], 2)


def check_that_the_workers_ended(folder: Path) -> None:
    pids = [int(path.name) for path in folder.iterdir()]
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_what_ends_the_run_ends_the_workers(tmp_path: Path) -> None:
    def stop(units: int) -> None:
        if units > 20 and len(list(tmp_path.iterdir())) == 2:
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(run_jobs(endless, [tmp_path] * 2, num_workers=2, on_progress=stop))
    assert time.monotonic() - start < 5
    check_that_the_workers_ended(tmp_path)


def first_only(number: int, tick: Callable[[int], None]) -> int:
    while number:
        time.sleep(0.01)
    return number


def test_closing_ends_the_workers() -> None:
    results = run_jobs(first_only, [0, 1, 1, 1], num_workers=2)
    assert next(results) == (0, 0)
    results.close()
    assert not multiprocessing.active_children()


def test_arguments_are_read_only_a_little_ahead() -> None:
    read = []
    results = run_jobs(square, (read.append(i) or i for i in range(100)), num_workers=2)
    next(results)
    assert len(read) == 4
    results.close()


def test_ctrl_c_while_workers_start_is_not_lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    submit = jobs.ProcessPoolExecutor.submit

    def interrupted(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return submit(*arguments)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        monkeypatch.setattr(jobs.ProcessPoolExecutor, "submit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            collect(endless, [tmp_path] * 2, 2)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert not multiprocessing.active_children()
    finally:
        signal.signal(signal.SIGINT, before)
