"""Keeps the garbage collector away from what lives long; counts the reference cases at the end of a run."""

import gc
from typing import Any

import pytest

from hypvl.checks import set_flags
from tests.parity.reference import FILES, load, reference_dir


@pytest.fixture(autouse=True)
def _no_flags_of_another_command() -> None:
    set_flags([])  # of a command that a test before called in this process


def pytest_collection() -> None:
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()  # thousands of tests, and the modules they import, would be looked through again and again
    gc.enable()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    counts = {
        outcome: sum("tests/parity/" in r.nodeid for r in terminalreporter.stats.get(outcome, []))
        for outcome in ("passed", "failed", "skipped")
    }
    if any(counts.values()):
        absent = [name for name in FILES if load(name) is None]
        terminalreporter.write_line(
            f"parity: {counts['passed']} cases passed, {counts['failed']} failed, {counts['skipped']} skipped "
            f"(numbers from {reference_dir()}; files not there: {', '.join(absent) or 'none'})"
        )
