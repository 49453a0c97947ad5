"""Says at the end of a run how many reference cases were checked, and from which folder."""

from typing import Any

from tests.parity.reference import FILES, load, reference_dir


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
