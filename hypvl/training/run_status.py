"""What the folder of a run says about it: alive or not, how far, which checkpoint is good, why it failed."""

import os
import socket
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from hypvl.errors import CheckpointError
from hypvl.io.files import read_regular
from hypvl.io.json_text import parse_json
from hypvl.io.processes import process_stat
from hypvl.training.checkpoints.files import newest_good
from hypvl.training.failure import FAILURE_NAME, resume_command
from hypvl.training.hooks.heartbeat import HEARTBEAT_NAME

_OVER = ("finished", "stopped", "failed")
_LARGEST = 1 << 20  # bytes of a file that is read
# Seconds: a heartbeat that is older is no sign of life; a step that takes longer is worth a look.
_SILENT, _STUCK = 60.0, 600.0
# Seconds by which clocks of machines, or of one that was set, may differ: a heartbeat that far away is watched.
_AHEAD, _APART = 5.0, 3600.0
WATCH = 12.0  # seconds in which a run that is alive writes two heartbeats


def run_status(folder: Path, *, now: float | None = None, watch: float = 0.0) -> dict[str, Any]:
    """Read a run's folder; nothing in it is changed, and a run that is going on is not disturbed.

    Args:
        folder: Of the run.
        now: Unix time in seconds; None = the present.
        watch: Seconds to wait for another heartbeat where the time of the last one says that the run is dead, or lies
            ahead: clocks of machines differ, and are set. 0 believes the time.

    Returns:
        ``state`` (that of the heartbeat; "dead" when its process has ended without a word; "unknown" without one),
        ``iteration``, ``num_iterations``, ``host``, ``age`` (of the heartbeat, in seconds), ``checkpoint`` (the newest
        that is not damaged), ``error`` (of a run that failed), ``resume`` (the command) and ``problem``: a sentence, or
        None while all is well.
    """
    beat, failure, origin = (
        _read(folder / name) for name in (HEARTBEAT_NAME, FAILURE_NAME, "provenance.json")
    )
    age = _age(beat, time.time() if now is None else now)
    state = _state(beat, age)
    if watch > 0 and _is_doubtful(beat, age):
        beat, is_new = _watched(folder, beat, seconds=watch)
        age = 0.0 if is_new else max(watch, age or 0.0)
        state = _state(beat, age) if is_new else "dead"
    status: dict[str, Any] = {
        "folder": str(folder),
        "state": state,
        **{name: beat.get(name) for name in ("iteration", "num_iterations", "host")},
        "age": None if age is None else max(0.0, age),
        "checkpoint": None,
        "error": failure.get("error"),
        "resume": _resume(folder, origin),
        "problem": None,
    }
    if status["error"] is not None and isinstance(failure.get("iteration"), int):
        status["iteration"] = failure[
            "iteration"
        ]  # of whoever failed; the heartbeat may be that of a stopped rank
    damage = None
    try:
        good = newest_good(folder)
        status["checkpoint"] = None if good is None else str(good)
    except (CheckpointError, OSError) as error:
        damage = str(error)
    status["problem"] = damage or _problem(status, beat, at_start=failure.get("iteration", 0) is None)
    return status


def _state(beat: Mapping[str, Any], age: float | None) -> str:
    state = beat.get("state")
    if not isinstance(state, str) or age is None:
        return "unknown"
    if state in _OVER:
        return state
    return "dead" if age > _SILENT or (_is_here(beat) and not _lives(beat["pid"])) else state


def _is_doubtful(beat: Mapping[str, Any], age: float | None) -> bool:
    """Whether only the time of a heartbeat says that the run is alive or dead, and clocks may be to blame for it."""
    if age is None or beat.get("state") in _OVER or not (age < -_AHEAD or _SILENT < age < _APART):
        return False
    return not _is_here(beat) or _lives(beat["pid"])


def _watched(folder: Path, beat: dict[str, Any], *, seconds: float) -> tuple[dict[str, Any], bool]:
    """The next heartbeat, and True; the last one and False where none comes."""
    ended = time.monotonic() + seconds
    while time.monotonic() < ended:
        time.sleep(min(0.2, seconds / 10))
        new = _read(folder / HEARTBEAT_NAME)
        if new.get("time") not in (None, beat.get("time")):
            return new, True
    return beat, False


def _is_here(beat: Mapping[str, Any]) -> bool:
    return beat.get("host") == socket.gethostname() and isinstance(beat.get("pid"), int)


def _problem(status: Mapping[str, Any], beat: Mapping[str, Any], *, at_start: bool) -> str | None:
    folder, state = status["folder"], status["state"]
    go_on = f"go on with {status['resume']}."
    where = f"iteration {status['iteration']} of {status['num_iterations']}"
    if status["error"] is not None and at_start:
        return (
            f"{folder}: the last start failed before its first step: {status['error']} Mend it, then {go_on}"
        )
    if status["error"] is not None:
        return f"{folder}: failed at {where}: {status['error']} Mend it, then {go_on}"
    if state == "unknown":
        return (
            f"{folder}: has no {HEARTBEAT_NAME} that can be read, so it is not known whether a run is alive."
        )
    if state == "failed":
        return f"{folder}: failed at {where}; its log says why. Mend it, then {go_on}"
    if state == "dead":
        return (
            f"{folder}: no sign of life from {status['host']} for {status['age']:.0f} s, last at {where}: killed "
            f"(often the memory was full), or the machine went down; {go_on}"
        )
    since = beat.get("seconds_since_step")
    if state not in _OVER and isinstance(since, int | float) and since > _STUCK:
        return f"{folder}: no step has ended for {since:.0f} s after {where} ({state}); its log says what it waits for."
    return None


def _resume(folder: Path, origin: Mapping[str, Any]) -> str:
    """The command, made anew: nothing that a file says is a command to be copied, and no permission either."""
    command, layout = origin.get("command"), origin.get("torchrun")
    words = [str(word) for word in command] if isinstance(command, list) else []
    torchrun = None
    if isinstance(layout, list) and len(layout) == 2 and all(type(number) is int for number in layout):
        torchrun = (layout[0], layout[1])
    return resume_command(folder, argv=words, torchrun=torchrun)


def _age(beat: Mapping[str, Any], now: float) -> float | None:
    try:
        return now - datetime.fromisoformat(str(beat.get("time"))).timestamp()
    except ValueError:
        return None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    fields = process_stat(pid)
    return fields is None or fields[0] not in "ZX"  # of these it is dead, but not buried (Linux)


def _read(path: Path) -> dict[str, Any]:
    """The object in a file; empty where there is none, or no such file."""
    try:
        content = parse_json(read_regular(path, max_bytes=_LARGEST))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
