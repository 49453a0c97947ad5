"""From raw GRIT shards to processed ones, one TAR for each, in parallel; an interrupted run continues.

The same input and settings give the same bytes, whatever the number of processes. The output folder holds
``<name>.tar`` for every raw ``<name>.tar`` that is done, and ``manifest.jsonl``: the settings, then one line of
counts per TAR. A TAR gets its name when it is whole and its counts are in the manifest. See
:mod:`hypvl.data.grit.boxes` for what becomes of a sample, :mod:`hypvl.data.grit.mapper` for the layout.
"""

import contextlib
import dataclasses
import functools
import json
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hypvl.data.grit.boxes import GritSettings, convert_sample
from hypvl.data.sample import BadSample
from hypvl.data.shards import expand_shards, sample_members
from hypvl.data.storage import FileHandles, LocalFile
from hypvl.data.tar_index import ReadAhead, build_index
from hypvl.errors import DataError, UserError
from hypvl.io.files import exclusive_lock, write_atomically
from hypvl.io.json_text import parse_json
from hypvl.io.tar import add_member
from hypvl.units.pool import Tick, run_jobs

MANIFEST = "manifest.jsonl"
_FORMAT = 2  # 1: without the corners of boxes
_BLOCK = 1 << 20
_KEPT_BAD = 3  # examples of bad samples per TAR
_JUDGED_FROM = 1000  # samples, before a share of bad ones is meaningful


@dataclasses.dataclass
class Counts:
    """What became of the samples of one TAR, or of several."""

    samples: int = 0  # read
    written: int = 0  # of those, with at least one box
    boxes: int = 0  # written
    without_box: int = 0  # samples left out because no box remained; no fault of theirs
    bad: Counter[str] = dataclasses.field(default_factory=Counter)  # reason -> samples that could not be used
    dropped_boxes: Counter[str] = dataclasses.field(default_factory=Counter)  # reason -> boxes left out
    first_bad: dict[str, str] = dataclasses.field(default_factory=dict)  # key -> reason in full

    def add(self, other: "Counts") -> None:
        """Count the other's samples as well."""
        for name in ("samples", "written", "boxes", "without_box"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.bad.update(other.bad)
        self.dropped_boxes.update(other.dropped_boxes)
        self.first_bad |= other.first_bad

    def check(self, max_bad_fraction: float) -> None:
        """Raises DataError when more than this share of the samples are bad."""
        bad = self.bad.total()
        if bad > max_bad_fraction * self.samples:
            shown = "; ".join(f"{key}: {reason}" for key, reason in list(self.first_bad.items())[:_KEPT_BAD])
            raise DataError(
                f"{bad:,} of {self.samples:,} samples ({bad / self.samples:.1%}) could not be used ({shown}); more "
                f"than --max-bad-fraction {max_bad_fraction:g}: repair the data, or raise it."
            )

    def record(self) -> dict[str, Any]:
        """For a line of the manifest."""
        return vars(self).copy()

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Counts":
        """The inverse of :meth:`record`; further entries are ignored."""
        values = {field.name: record[field.name] for field in dataclasses.fields(cls)}
        for name in ("bad", "dropped_boxes"):
            values[name] = Counter(values[name])
        return cls(**values)


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a preparation is."""

    bytes_done: int  # of the raw TARs that were to do
    bytes_total: int
    shards_done: int  # those of earlier runs included
    shards_total: int
    counts: Counts  # over the finished TARs


def prepare_grit(
    tarfiles: str | Sequence[str],
    output_dir: str | Path,
    settings: GritSettings | None = None,
    *,
    num_workers: int = 0,
    max_bad_fraction: float = 0.1,
    progress: Callable[[Progress], None] | None = None,
) -> Counts:
    """Process raw GRIT TARs; those that an earlier call has finished stay as they are.

    Args:
        tarfiles: Paths, globs and brace lists of raw TARs with different file names.
        output_dir: Folder to create, or of an earlier call with the same settings.
        settings: Which boxes are written.
        num_workers: Processes; 0 works in this one.
        max_bad_fraction: Share of bad samples at which the run stops, in [0, 1].
        progress: Called several times a second.

    Returns:
        The counts over all TARs, those of earlier calls included.

    Raises:
        DataError: when input or output cannot be used; when too many samples are bad; at the end, when some of
            the TARs could not be read.
    """
    if not 0 <= max_bad_fraction <= 1:
        raise DataError(f"max_bad_fraction: got {max_bad_fraction}; expected 0 to 1.")
    settings = GritSettings() if settings is None else settings
    sources = _sources(tarfiles)
    folder = Path(output_dir)
    with _Output.open(folder, settings) as output:
        finished = {name: counts for name, path in sources.items() if (counts := output.finished(path))}
        todo = [path for name, path in sources.items() if name not in finished]
        total = Counts()
        for counts in finished.values():
            total.add(counts)
        sizes = {path: path.stat().st_size for path in todo}
        unreadable: list[str] = []

        def on_progress(units: int) -> None:
            if progress is not None:
                progress(Progress(units, sum(sizes.values()), len(finished), len(sources), total))

        job = functools.partial(convert_shard, folder=folder, settings=settings)
        processes = min(num_workers, len(todo))
        with contextlib.closing(
            run_jobs(job, todo, num_workers=processes, on_progress=on_progress)
        ) as results:
            for number, result in results:
                if isinstance(result, UnwritableError):
                    raise result
                if isinstance(result, UserError):
                    unreadable.append(str(result))
                    continue
                output.finish(todo[number], result)
                finished[todo[number].name] = result
                total.add(result)
                if total.samples >= _JUDGED_FROM:
                    total.check(max_bad_fraction)
    if unreadable:
        raise DataError(
            f"{len(unreadable)} of {len(sources)} TAR files could not be read, the others are done: {unreadable[0]}"
        )
    total.check(max_bad_fraction)
    return total


class UnwritableError(DataError):
    """The output cannot be written: nothing else can be done either."""


def convert_shard(source: Path, tick: Tick, *, folder: Path, settings: GritSettings) -> Counts:
    """Process one raw TAR into ``folder/.<name>.part``; ``tick`` receives the bytes that are done.

    Raises:
        DataError: when it is not a TAR at all.
        UnwritableError: when the output cannot be written.
    """
    part = _part(folder, source.name)
    try:
        part.unlink(missing_ok=True)  # a worker of a killed run may still hold the old one
        with part.open("xb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive:
                counts = _convert(source, archive, tick, settings)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UnwritableError(
            f"{part}: cannot be written ({error}); free space or rights there, then run the same command again."
        ) from error
    return counts


def _convert(source: Path, archive: tarfile.TarFile, tick: Tick, settings: GritSettings) -> Counts:
    try:
        reader = LocalFile(source, FileHandles())
        size = reader.size()
        index = build_index(ReadAhead(reader.read, _BLOCK), size, reader.place)
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error}).") from error
    read = ReadAhead(reader.read, _BLOCK)
    counts = Counts(samples=len(index))
    units = 0
    for row in range(len(index)):
        key, places = index.key(row), index.members(row)
        shown = f"{source.name}/{key}"
        try:
            written, dropped = convert_sample(shown, sample_members(shown, read, index, row), settings)
        except BadSample as error:
            counts.bad[error.reason.split(" (")[0]] += 1
            if len(counts.first_bad) < _KEPT_BAD:
                counts.first_bad[error.key] = error.reason
        else:
            counts.dropped_boxes.update(dropped)
            counts.written += bool(written)
            counts.without_box += not written
            counts.boxes += max(0, len(written) - 3) // 3
            for name, data in written:
                add_member(archive, f"{key}.{name}", data)
        reached = max((offset + length for _, offset, length in places), default=units)
        tick(max(0, reached - units))
        units = max(units, reached)
    tick(size - units)
    return counts


def _part(folder: Path, name: str) -> Path:
    return folder / f".{name}.part"


def _sources(tarfiles: str | Sequence[str]) -> dict[str, Path]:
    """File name -> path of each raw TAR, in order."""
    sources: dict[str, Path] = {}
    for place in expand_shards(tarfiles):
        if "://" in place or place.startswith("pipe:"):
            raise DataError(f"{place}: expected a file on this machine; download the raw TAR files first.")
        path = Path(place)
        if path.name in sources and path.resolve() != sources[path.name].resolve():
            raise DataError(
                f"{path}: has the same file name as {sources[path.name]}; process them into different folders."
            )
        sources[path.name] = path
    return sources


class _Output:
    """The output folder, held by one run at a time."""

    def __init__(self, folder: Path, head: dict[str, Any], records: "dict[str, _Record]") -> None:
        self.folder = folder
        self._head = head
        self._records = records

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path, settings: GritSettings) -> Iterator["_Output"]:
        """Create or enter the folder. Raises DataError when it is of another run or other settings."""
        head = {"format": _FORMAT, "settings": dataclasses.asdict(settings)}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as held:
                try:
                    held.enter_context(exclusive_lock(folder / ".lock", wait=False))
                except BlockingIOError as error:
                    raise DataError(
                        f"{folder}: another preparation is writing there; wait for it, or name another folder."
                    ) from error
                output = cls(folder, head, _read_manifest(folder, head))
                try:
                    yield output
                finally:
                    for part in folder.glob(".*.part"):
                        part.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"{folder}: cannot be written ({error}); name a folder you may write.") from error

    def finished(self, source: Path) -> Counts | None:
        """The counts of a raw TAR when it is done, else None."""
        target, record = self.folder / source.name, self._records.get(source.name)
        if target.exists() and record is None:
            raise DataError(
                f"{target}: is in the way, as {MANIFEST} there does not know it; name another folder, or move it."
            )
        if record is None or not target.exists():
            return None
        same = (record.source_bytes, record.bytes) == (source.stat().st_size, target.stat().st_size)
        return record.counts if same else None

    def finish(self, source: Path, counts: Counts) -> None:
        """Count a TAR in the manifest and give it its name."""
        part = _part(self.folder, source.name)
        record = {
            "tar": source.name, "source_bytes": source.stat().st_size, "bytes": part.stat().st_size,
            **counts.record(),
        }  # fmt: skip
        path = self.folder / MANIFEST
        lines = [] if path.exists() and path.stat().st_size else [self._head]
        with path.open("a") as file:
            file.write("".join(json.dumps(line) + "\n" for line in [*lines, record]))
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.folder / source.name)


class _Record(NamedTuple):
    """What the manifest says of one TAR."""

    source_bytes: int
    bytes: int
    counts: Counts


def _read_manifest(folder: Path, head: dict[str, Any]) -> dict[str, _Record]:
    """The latest record of each TAR by file name, of these settings; a last line that was cut off is removed."""
    path = folder / MANIFEST
    if not path.exists():
        return {}
    try:
        text = path.read_text()
        whole = text[: text.rfind("\n") + 1]
        saved, *records = [parse_json(line) for line in whole.splitlines()] or [head]
        by_name = {
            str(record["tar"]): _Record(record["source_bytes"], record["bytes"], Counts.from_record(record))
            for record in records
        }
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is damaged ({error!r}); name another folder, or start anew.") from error
    if isinstance(saved, dict) and saved.get("format") != _FORMAT:
        raise DataError(
            f"{folder}: was made by another version of this script (format {saved.get('format')}, now {_FORMAT}); name "
            "another folder, or go on with what is there."
        )
    if saved != head:
        settings = saved.get("settings") if isinstance(saved, dict) else saved
        raise DataError(
            f"{folder}: was made with other settings ({settings}); name another folder, or give the same settings."
        )
    if whole != text:
        write_atomically(path, whole)
    return by_name
