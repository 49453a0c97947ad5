"""The whole job: captions in, negatives out, over several processes, going on where it stopped."""

import contextlib
import functools
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from hypvl.errors import DataError
from hypvl.io.redact import redact_text
from hypvl.negatives.backends.base import Backend, BackendArguments
from hypvl.negatives.entries import SourceArguments
from hypvl.negatives.generate import Row, Settings, make_negatives
from hypvl.negatives.sources import Captions
from hypvl.negatives.writer import Counts, PartsWriter

_FORMAT = 1
#: (captions done, about how many there are)
Progress: TypeAlias = Callable[[int, int], None]
_Part: TypeAlias = tuple[int, list[Row]]


class Result(NamedTuple):
    """What a run made; ``written`` is False when the same output was already there."""

    counts: Counts
    written: bool


def make_hard_negatives(
    source: SourceArguments,
    output: Path,
    *,
    backend: BackendArguments,
    settings: Settings,
    num_workers: int = 0,
    part_size: int = 1000,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Write the negatives of all captions of a source as JSON Lines, in the order of the source.

    The output depends on the captions, the backend, the settings and (for backends that compute in batches) the
    part size, never on the number of workers or on interruptions.

    Args:
        source: Where the captions are.
        output: The file to make; also ``<output>.summary.json``, and ``<output>.parts`` until it is whole.
        backend: Which words, and what replaces them.
        settings: Seed, types, methods.
        num_workers: Processes; 0: this one.
        part_size: Captions that are made and written together: what an interruption can cost.
        overwrite: Start anew where the output is of other settings.
        progress: Told after each part.

    Returns:
        The counts.

    Raises:
        DataError: when the captions cannot be read, the output cannot be written or is of other settings, or a
            worker died.
        UserError: when the backend lacks a package or a model.
    """
    if part_size < 1:
        raise ValueError(f"part_size: got {part_size}; expected at least 1.")
    identity = backend.identity()
    captions = Captions(source)
    plan = {
        "format": _FORMAT,
        "captions": captions.fingerprint,
        "seed": settings.seed,
        "types": list(settings.types),
        "relation": settings.relation,
        "part_size": part_size,
        **identity,
    }
    writer = PartsWriter(output, plan, overwrite=overwrite)
    if (counts := writer.finished()) is not None:
        return Result(counts, written=False)
    parts = done = 0

    def told(rows: int) -> None:
        nonlocal done
        done += rows
        if progress is not None:
            progress(done, max(captions.total, done))

    with writer.begin() as there:

        def missing() -> Iterator[_Part]:
            nonlocal parts
            for number, rows in enumerate(_in_parts(captions, part_size)):
                parts = number + 1
                if number in there:
                    told(len(rows))
                else:
                    yield number, rows

        for number, lines, made in _work_on(missing(), backend, settings, num_workers):
            writer.write(number, lines, made)
            told(made.captions)
        if parts == 0:
            skipped = ", ".join(f"{count} x {reason}" for reason, count in captions.skipped.items())
            raise DataError(
                f"{redact_text(', '.join(source.places))}: has no captions ({skipped or 'it is empty'})."
            )
        return Result(writer.finish(parts, captions.skipped), written=True)


def _in_parts(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while part := list(islice(iterator, size)):
        yield part


def _work_on(
    parts: Iterator[_Part], backend: BackendArguments, settings: Settings, num_workers: int
) -> Iterator[tuple[int, str, Counts]]:
    """(number, lines, counts) of each part, as they get ready."""
    if num_workers == 0:
        for number, rows in parts:
            yield number, *_make_part(backend, settings, rows)
        return
    pool = ProcessPoolExecutor(
        num_workers, multiprocessing.get_context("spawn"), initializer=_begin_worker, initargs=(num_workers,)
    )
    waiting: dict[Future[tuple[str, Counts]], int] = {}
    try:
        for number, rows in parts:
            with (
                contextlib.nullcontext() if waiting else _sigint_ignored()
            ):  # the first call starts the workers
                waiting[pool.submit(_make_part, backend, settings, rows)] = number
            if len(waiting) >= 2 * num_workers:  # not more of the source in memory than the workers need
                yield from _ready(waiting)
        while waiting:
            yield from _ready(waiting)
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process died (out of memory?); run the same command again with fewer --num-workers: it goes "
            "on with the parts that are written."
        ) from error
    finally:
        # Leaving would wait for the running parts as well, and be in their way when the pipes close.
        pool.shutdown(wait=True, cancel_futures=True)


def _ready(waiting: dict[Future[tuple[str, Counts]], int]) -> Iterator[tuple[int, str, Counts]]:
    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
        yield waiting.pop(future), *future.result()


@contextlib.contextmanager
def _sigint_ignored() -> Iterator[None]:
    """For processes started meanwhile: Ctrl-C while they import is no traceback of each."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _begin_worker(num_workers: int) -> None:
    """Ends with the parent or at Ctrl-C, without a word; several workers do not fight over the cores."""
    signal.signal(signal.SIGINT, _leave)
    if num_workers > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    threading.Thread(target=_follow_parent, daemon=True).start()


def _leave(*_: Any) -> None:
    os._exit(130)


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


@functools.lru_cache(maxsize=1)
def _build(arguments: BackendArguments) -> Backend:  # one model a process, however many parts
    return arguments.build()


def _make_part(arguments: BackendArguments, settings: Settings, rows: list[Row]) -> tuple[str, Counts]:
    counts, lines = Counts(), []
    for made in make_negatives(rows, _build(arguments), settings):
        counts.add(made)
        lines.append(json.dumps(made.line(), ensure_ascii=False) + "\n")
    return "".join(lines), counts
