"""What is said when a run fails: what, where, the last good checkpoint, and the command that goes on.

The rank that fails first writes ``failure.json`` into the run's folder, and its summary to the log and to stderr; the
others, which fail because it did, say nothing more. The next run that begins in the folder removes the file. A start
that fails before it has begun, such as one whose data are gone, replaces it, in a folder that held a run.
"""

import contextlib
import json
import os
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from loguru import logger

from hypvl import distributed, rank_notes
from hypvl.config.plain import Plain
from hypvl.config.targets import EXTRA_VARIABLE, permissions, unlisted_targets
from hypvl.errors import CheckpointError
from hypvl.io.files import open_new, read_regular, write_atomically
from hypvl.io.json_text import parse_json
from hypvl.io.redact import printable
from hypvl.launch import torchrun_layout
from hypvl.training.checkpoints.files import newest_good
from hypvl.training.loop import Trainer

FAILURE_NAME = "failure.json"
# Flags of `hypvl train` that say on what it runs, with a value each.
_PLACE_FLAGS = ("--num-gpus", "--num-machines", "--machine-rank", "--dist-url")
_LONGEST = 1000  # characters of a message


def report_failure(
    folder: Path, trainer: Trainer | None, error: Exception, *, config: Plain, attempt: str = ""
) -> None:
    """Write ``failure.json`` and log the summary, if this rank is the first to fail. Nothing is raised.

    Where another rank made it fail, which one follows as soon as that is known (:class:`hypvl.rank_notes.RankNotes`).

    Args:
        folder: Of the run.
        trainer: Where it was; None = the run was starting.
        error: Why it failed.
        config: Of the run, whose needs stand in the command that goes on.
        attempt: Names this start of the run, on all ranks alike: the file of an earlier one is replaced.
    """
    path = folder / FAILURE_NAME
    if _attempt_of(path) == attempt:
        return
    content: dict[str, Any] = {
        "error": f"{type(error).__name__}: {error}"[:_LONGEST],
        "iteration": None if trainer is None else trainer.iteration,
        "num_iterations": None if trainer is None else trainer.num_iterations,
        "rank": distributed.rank(),
        "world_size": distributed.world_size(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "attempt": attempt,
        "last_good_checkpoint": _last_good(folder),
        "resume": resume_command(
            folder,
            torchrun=torchrun_layout(),
            permitted=permissions(config),
            targets=[target for _, target in unlisted_targets(config, extra=False)],
        ),
    }
    text = json.dumps(content, indent=1) + "\n"
    try:
        if path.exists():  # of an earlier start
            write_atomically(path, text)
        else:
            with open_new(path) as file:
                file.write(text.encode())
    except FileExistsError:  # another rank was first
        return
    except OSError as reason:  # a full disk; the summary is said all the same
        logger.warning("{}: cannot be written ({})", path, reason.strerror)
    if (notes := rank_notes.current()) is not None and rank_notes.failed_by_another(error):
        notes.explained = partial(_explain, path, content, rank=distributed.rank())
    else:
        _say(content, rank=distributed.rank())


def _attempt_of(path: Path) -> str | None:
    """Which start wrote the file; None where there is none that can be read."""
    try:
        content = parse_json(read_regular(path, max_bytes=1 << 20))
    except (OSError, ValueError):
        return None
    return str(content.get("attempt", "")) if isinstance(content, dict) else None


def _explain(path: Path, content: Mapping[str, Any], cause: str | None, *, rank: int) -> None:
    """Put the cause in place of the error of the collective, which names no rank. Nothing is raised."""
    if cause is not None:
        content = {**content, "error": cause[:_LONGEST]}
        with contextlib.suppress(OSError):
            write_atomically(path, json.dumps(content, indent=1) + "\n")
    _say(content, rank=rank)


def _say(content: Mapping[str, Any], *, rank: int) -> None:
    summary = failure_summary(content)
    logger.error("{}", summary)
    if rank != 0:  # whose log lines go to its file alone
        with contextlib.suppress(OSError):  # a terminal that was closed
            print(summary, file=sys.stderr, flush=True)  # noqa: T201


def failure_summary(content: Mapping[str, Any]) -> str:
    """The lines that a person reads, of what :func:`report_failure` wrote."""
    shown = {key: printable(str(value), limit=_LONGEST) for key, value in content.items()}
    last = content["last_good_checkpoint"]
    at = f"iteration {shown['iteration']} of {shown['num_iterations']}"
    where = at if content["iteration"] is not None else "at its start, before the first step"
    return (
        f"the run failed: {shown['error']}\n"
        f"  where: {where}, rank {shown['rank']} of "
        f"{shown['world_size']}, host {shown['host']}, process {shown['pid']}\n"
        f"  last good checkpoint: {'none' if last is None else shown['last_good_checkpoint']}\n"
        f"  to go on: {shown['resume']}"
    )


def remove_failure(folder: Path) -> None:
    """Remove what an earlier run in the folder wrote."""
    (folder / FAILURE_NAME).unlink(missing_ok=True)


def resume_command(
    folder: Path,
    *,
    argv: Sequence[str] | None = None,
    torchrun: tuple[int, int] | None,
    permitted: Sequence[str] = (),
    targets: Sequence[str] = (),
) -> str:
    """The command that continues this run on as many processes, with the config in its folder.

    Args:
        folder: Of the run.
        argv: Of this process; None = ``sys.argv``.
        torchrun: Machines, and processes on each, where torchrun starts them; None = hypvl does.
        permitted: Keys that the config, which is data, may not permit itself: ``"dataset.allow_pipe"``.
        targets: Names in it that are not on the allow-list.

    Example:
        >>> resume_command(Path("output/demo"), argv=["hypvl", "train", "--num-gpus=0", "a=1"], torchrun=None)
        'hypvl train --resume --output-dir output/demo --num-gpus 0'
    """
    argv = sys.argv if argv is None else argv
    command = ["hypvl", "train", "--resume", "--output-dir", str(folder), *_place(argv)]
    if torchrun is not None:
        machines, here = map(str, torchrun)
        command = ["torchrun", "--nnodes", machines, "--nproc-per-node", here, "-m", *command]
    before = [f"{EXTRA_VARIABLE}={','.join(targets)}"] if targets else []
    return shlex.join([*before, *command, *(f"{key}=true" for key in permitted)])


def _place(argv: Sequence[str]) -> list[str]:
    result: list[str] = []
    for i, word in enumerate(argv):
        flag, equals, value = word.partition("=")
        if flag in _PLACE_FLAGS and (equals or i + 1 < len(argv)):
            result += [flag, value if equals else argv[i + 1]]
    return result


def _last_good(folder: Path) -> str | None:
    try:
        path = newest_good(folder)
    except (CheckpointError, OSError):
        return None
    return None if path is None else str(path)
