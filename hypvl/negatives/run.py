"""Makes the hard negatives of all captions of a source in several processes; an interrupted run continues."""

import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeAlias

from hypvl.checks import whole_number
from hypvl.errors import DataError, UserError
from hypvl.io.redact import redact_text, redact_url
from hypvl.negatives.backends.base import Backend, BackendArguments
from hypvl.negatives.entries import SourceArguments
from hypvl.negatives.generate import Row, Settings, make_negatives
from hypvl.negatives.sources import Captions
from hypvl.negatives.writer import Counts, PartsWriter
from hypvl.units.pool import Tick, run_jobs

_FORMAT = 1
#: (captions done, about how many there are)
Progress: TypeAlias = Callable[[int, int], None]
_Part: TypeAlias = tuple[int, list[Row]]


class Result(NamedTuple):
    """The counts of a run; ``written`` is False when the same output was already there."""

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
        source, backend, settings: Where the captions are, what replaces which words, and which negatives are made.
        output: The file to make; also ``<output>.summary.json``, and ``<output>.parts`` until it is whole.
        num_workers: Processes; 0: this one.
        part_size: Captions that are written together: an interruption loses at most one such part per process.
        overwrite: Start again where the output has other settings.
        progress: Called after each part.

    Raises:
        DataError: when the captions cannot be read, the output cannot be written or is of other settings, or a
            worker died.
        UserError: when the backend lacks a package or a model.
    """
    whole_number("part_size", part_size, least=1)
    identity = backend.identity()
    captions = Captions(source)
    plan = {
        "format": _FORMAT,
        "captions": captions.fingerprint,
        "files": [redact_url(place) for place in source.places],  # not compared: only to name them
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

    def report(rows: int) -> None:
        nonlocal done
        done += rows
        if progress is not None:
            progress(done, max(captions.total, done))

    rows_left = iter(captions)
    first = list(islice(rows_left, part_size))  # what cannot be read at all leaves no folder behind
    if not first:
        skipped = ", ".join(f"{count} x {reason}" for reason, count in captions.skipped.items())
        raise DataError(
            f"{redact_text(', '.join(source.places))}: has no captions ({skipped or 'it is empty'})."
        )
    with writer.begin() as written:

        def missing() -> Iterator[_Part]:
            nonlocal parts
            rows = first
            while rows:
                number, parts = parts, parts + 1
                if number in written:
                    report(len(rows))
                else:
                    yield number, rows
                rows = list(islice(rows_left, part_size))

        job = functools.partial(_write_part, backend=backend, settings=settings, writer=writer)
        # Models may hold threads and devices, which do not survive a fork.
        with contextlib.closing(
            run_jobs(job, missing(), num_workers=num_workers, start_method="spawn")
        ) as results:
            for _, result in results:
                if isinstance(result, UserError):
                    raise result
                report(result)
        return Result(writer.finish(parts, captions.skipped), written=True)


def _write_part(
    part: _Part, tick: Tick, *, backend: BackendArguments, settings: Settings, writer: PartsWriter
) -> int:
    """Make and write the negatives of a part; the number of its captions."""
    number, rows = part
    counts, lines = Counts(), []
    for made in make_negatives(rows, build_backend(backend), settings):
        counts.add(made)
        lines.append(json.dumps(made.line(), ensure_ascii=False) + "\n")
    writer.write(number, "".join(lines), counts)
    return counts.captions


@functools.lru_cache(maxsize=1)
def build_backend(arguments: BackendArguments) -> Backend:
    """The backend of these arguments: one model per process, however many parts and files."""
    return arguments.build()
