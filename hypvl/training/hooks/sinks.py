"""Where log records go: metrics.jsonl, TensorBoard, wandb, the console."""

import contextlib
import json
import math
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from loguru import logger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from hypvl.errors import ConfigError, UserError
from hypvl.io.files import write_atomically
from hypvl.io.json_text import parse_json
from hypvl.io.redact import clean_log, printable

Record = dict[str, float | int]
_LONGEST = 1000  # characters of a progress line
_NOT_TERMS = frozenset(
    {
        "iteration", "loss", "grad_norm", "lr", "samples_per_second", "data_wait", "memory_gb", "peak_memory_gb",
        "skipped_steps", "bad_samples", "consumed", "epoch", "eta_seconds",
    }
)  # fmt: skip


class Sink(Protocol):
    """Takes records on rank 0: a file, a progress line, a service."""

    def write(self, record: Record) -> None: ...

    def close(self) -> None: ...


def write_to(sinks: Sequence[Any], record: Mapping[str, Any]) -> None:
    """Hand a record to every sink. Raises UserError for one that cannot be written."""
    for sink in sinks:
        try:
            sink.write(record)
        except OSError as error:
            where = error.filename if error.filename is not None else type(sink).__name__
            raise UserError(
                f"training records: {where} cannot be written at iteration {record['iteration']} ({error.strerror}); "
                "make room, then go on with --resume."
            ) from error


class JsonLines:
    """``metrics.jsonl`` and others: one JSON object a line, written at once; a number that is not finite is null.

    When a run resumes from ``iteration``, lines of later ones are dropped (from 0: all), and, with a warning, lines
    that are not records (damaged when the machine went down). Who is killed while they are dropped loses none: the
    file is replaced whole.
    """

    def __init__(self, path: Path, *, iteration: int = 0) -> None:
        self._path = path
        if path.exists():
            lines = []
            for line in path.read_bytes().splitlines():
                at = _iteration_of(line)
                if at is None:
                    logger.warning("{}: dropped a line that is not a record: {!r}", path, line[:80])
                elif at <= iteration and iteration > 0:
                    lines.append(line + b"\n")
            write_atomically(path, b"".join(lines))
        # Without a buffer: what cannot be written fails there, not when the file is closed.
        self._file = path.open("ab", buffering=0)

    def write(self, record: Mapping[str, Any]) -> None:
        finite = {
            name: value if isinstance(value, str | list) or math.isfinite(value) else None
            for name, value in record.items()
        }
        line = memoryview((json.dumps(finite, allow_nan=False) + "\n").encode())
        while line:
            try:
                line = line[self._file.write(line) :]
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(self._path)) from error

    def texts(self, name: str) -> set[str]:
        """What the records in the file say under this name."""
        records = (parse_json(line) for line in self._path.read_bytes().splitlines())
        return {record[name] for record in records if isinstance(record.get(name), str)}

    def iterations(self, name: str) -> set[int]:
        """The iterations whose records in the file have this entry."""
        records = (parse_json(line) for line in self._path.read_bytes().splitlines())
        return {record["iteration"] for record in records if name in record}

    def sync(self) -> None:
        """Bring what was written to disk: before a checkpoint, so that no record up to it can be missing."""
        with contextlib.suppress(OSError):  # a pipe, or a file system that cannot
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _iteration_of(line: bytes) -> int | None:
    """The iteration of a record; None for a line that is not a record."""
    try:
        record = parse_json(line)
    except ValueError:
        return None
    at = record.get("iteration") if isinstance(record, dict) else None
    return at if isinstance(at, int) else None


class TensorBoard:
    """Scalars under ``train/`` in event files; when a run resumes from ``iteration``, later ones are hidden."""

    def __init__(self, folder: Path, *, iteration: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        earlier = any(folder.glob("events.out.tfevents.*"))  # also of a try without a checkpoint
        before = set(threading.enumerate())
        self._writer = SummaryWriter(str(folder), purge_step=iteration + 1 if earlier else None)
        self._threads = set(threading.enumerate()) - before  # they write the file
        self._previous, threading.excepthook = threading.excepthook, self._note

    def write(self, record: Record) -> None:
        for name, value in record.items():
            if name != "iteration":
                self._writer.add_scalar(f"train/{name}", value, int(record["iteration"]))
        self._writer.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # every record was flushed: a full disk was reported then
            self._writer.close()
        if threading.excepthook == self._note:
            threading.excepthook = self._previous

    def _note(self, raised: threading.ExceptHookArgs) -> None:
        """Print no traceback of a full disk, which the next flush raises as an error."""
        if raised.thread not in self._threads or not issubclass(raised.exc_type, OSError):
            self._previous(raised)


class Wandb:
    """A Weights & Biases run, with ``iteration`` > 0 that of ``folder/wandb_id.txt``.

    Its process, or the network, may fail while a run trains: that is a warning, once, and the run goes on without it,
    because ``metrics.jsonl`` has all records. So is a service that does not start when a run resumes.

    Raises:
        ConfigError: without wandb, and when a new run finds that the service does not start.
    """

    def __init__(
        self,
        *,
        mode: str,
        project: str,
        name: str,
        folder: Path,
        config: Mapping[str, Any],
        iteration: int = 0,
    ) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ConfigError(
                f"train.wandb.mode: got {mode!r}, but wandb is not installed; pip install wandb, or use disabled."
            ) from error
        stored = folder / "wandb_id.txt"
        known = stored.read_text(encoding="utf-8").strip() if iteration and stored.is_file() else None
        self._run: Any = None
        try:
            self._run = wandb.init(
                id=known,
                mode=mode,  # type: ignore[arg-type]  # checked by the caller
                project=project,
                name=name,
                dir=str(folder),
                config=dict(config),
                resume="allow",
            )
        except Exception as error:  # of wandb, of its process or of the network
            if not iteration:
                raise ConfigError(
                    f"train.wandb.mode: got {mode!r}, but wandb does not start ({_in_a_line(error)}); repair that, or "
                    "use offline or disabled."
                ) from error
            self._give_up(error, iteration)
            return
        write_atomically(stored, f"{self._run.id}\n")

    def write(self, record: Record) -> None:
        if self._run is None:
            return
        step = int(record["iteration"])
        try:
            self._run.log({f"train/{k}": v for k, v in record.items() if k != "iteration"}, step=step)
        except Exception as error:  # noqa: BLE001  # as above
            self._give_up(error, step)

    def close(self) -> None:
        if self._run is None:
            return
        try:
            self._run.finish()
        except Exception as error:  # noqa: BLE001  # as above
            logger.warning("wandb: cannot be closed ({})", _in_a_line(error))

    def _give_up(self, error: Exception, iteration: int) -> None:
        self._run = None
        logger.warning(
            "iteration {}: wandb has failed ({}) and gets no more records of this process; metrics.jsonl has all",
            iteration, _in_a_line(error),
        )  # fmt: skip


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_LONGEST]


class ConsoleLine:
    """One live progress line of ``total`` iterations on a terminal (default standard error); plain lines elsewhere.

    A terminal that was closed, of a run that goes on (``nohup``, ``disown``), is no error.
    """

    def __init__(self, total: int, *, console: Console | None = None) -> None:
        self._console = console if console is not None else Console(stderr=True)
        self._total = total
        self._progress: Progress | None = None
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("training"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}", markup=False),
                console=self._console,
                redirect_stdout=False,
            )
            self._progress.add_task("training", total=total, text="")
            self._progress.start()

    def write(self, record: Record) -> None:
        text = printable(describe(record), limit=_LONGEST)
        if self._progress is not None:
            with contextlib.suppress(OSError):
                task = self._progress.task_ids[0]
                self._progress.update(task, completed=int(record["iteration"]), text=text)
        else:
            logger.info("iteration {}/{}  {}", record["iteration"], self._total, text)

    def close(self) -> None:
        if self._progress is not None:
            with contextlib.suppress(OSError):
                self._progress.stop()


def describe(record: Record) -> str:
    """A record as one line: losses, learning rate, samples/s, data wait, memory, time left."""
    terms = [f"{name} {value:.4g}" for name, value in record.items() if name not in _NOT_TERMS]
    minutes, seconds = divmod(round(record["eta_seconds"]), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [
        f"loss {record['loss']:.4f}",
        *terms,
        f"lr {record['lr']:.2e}",
        f"{record['samples_per_second']:.0f} samples/s",
        f"data wait {100 * record['data_wait']:.0f}%",
        f"{record['memory_gb']:.1f} GB",
        f"eta {hours}:{minutes:02d}:{seconds:02d}" if hours else f"eta {minutes}:{seconds:02d}",
    ]
    return "  ".join(parts)


def log_to_console(*, rank: int) -> None:
    """Log lines to standard error on rank 0, nowhere else."""
    logger.remove()
    clean_log()
    if rank == 0:
        logger.add(sys.stderr, format="{time:HH:mm:ss} | {message}", level="INFO", colorize=False)


def log_to_file(folder: Path, *, rank: int) -> None:
    """Log lines also to ``log-rank<r>.txt``, on every rank."""
    logger.add(folder / f"log-rank{rank}.txt", format="{time:YYYY-MM-DD HH:mm:ss} {level} {message}")
