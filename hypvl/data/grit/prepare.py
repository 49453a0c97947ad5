"""From raw GRIT shards to processed ones, one TAR for each, in parallel; an interrupted run continues.

The same input and settings give the same bytes, whatever the number of processes. The output folder holds
``<name>.tar`` for every raw ``<name>.tar`` that is done, and in ``units/`` the settings and a manifest of each with its
counts (:mod:`hypvl.units.unit`). See :mod:`hypvl.data.grit.boxes` for what becomes of a sample,
:mod:`hypvl.data.grit.mapper` for the layout.
"""

import dataclasses
import tarfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hypvl.checks import number, one_path, setting
from hypvl.data.grit.boxes import GritSettings, convert_sample
from hypvl.data.sample import BadSample
from hypvl.data.shards import expand_shards, sample_members
from hypvl.data.storage import FileHandles, LocalFile
from hypvl.data.tar_index import ReadAhead, build_index
from hypvl.errors import DataError
from hypvl.io.files import open_new
from hypvl.io.tar import add_member
from hypvl.units.claims import CLAIM_MINUTES
from hypvl.units.engines import Engine, make_unit, run_units
from hypvl.units.pool import Tick
from hypvl.units.unit import Made, Unit, UnitFolder, UnitResult, UnwritableError

_OLD_MANIFEST = "manifest.jsonl"  # of folders before there were units
_FORMAT = 2  # 1: without the corners of boxes
_BLOCK = 1 << 20
_KEPT_BAD = 3  # examples of bad samples per TAR
_NAMED = 5  # TARs that could not be processed
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
                f"than {setting('max_bad_fraction', value=f'{max_bad_fraction:g}')}: repair the data, or raise it."
            )

    def record(self) -> dict[str, Any]:
        """For a manifest."""
        return vars(self).copy()

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Counts":
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
    engine: Engine | None = None,
    max_bad_fraction: float = 0.1,
    claim_minutes: float = CLAIM_MINUTES,
    progress: Callable[[Progress], None] | None = None,
) -> Counts:
    """Process raw GRIT TARs; those that an earlier call has finished stay as they are.

    Args:
        tarfiles: Paths, globs and brace lists of raw TARs with different file names.
        output_dir: Folder to create, or of other calls with the same settings, also of calls that work there now.
        settings: Which boxes are written.
        engine: Who does it; None: this process.
        max_bad_fraction: Share of bad samples at which the run stops, in [0, 1].
        claim_minutes: See :mod:`hypvl.units.claims`.
        progress: Called several times a second.

    Returns:
        The counts over all TARs of the engine's share, those of earlier calls included.

    Raises:
        ValueError: ``max_bad_fraction`` is out of range.
        DataError: when input or output cannot be used; when too many samples are bad; at the end, when some of
            the TARs could not be read.
    """
    number("max_bad_fraction", max_bad_fraction, least=0, most=1)
    engine = Engine() if engine is None else engine
    settings = GritSettings() if settings is None else settings
    units = [_unit(path, settings) for path in _sources(tarfiles).values()]
    own = engine.share(units)
    sizes = {unit.name: Path(unit.inputs[0]).stat().st_size for unit in own}
    folder = _folder(Path(output_dir), settings, claim_minutes)
    total, failed = Counts(), list[UnitResult]()
    done = bytes_done = ticks = 0
    bytes_total = sum(sizes.values())

    def show(so_far: int) -> None:
        nonlocal ticks
        ticks = max(ticks, so_far)
        if progress is not None:
            progress(Progress(max(ticks, bytes_done), bytes_total, done, len(own), total))

    for result in run_units(units, _make, folder=folder, engine=engine, on_tick=show):
        if result.status == "failed":
            failed.append(result)
            bytes_total -= sizes[result.name]
            continue
        done += 1
        total.add(Counts.from_record(result.counts))
        if result.status == "made":
            bytes_done += sizes[result.name]
        else:
            bytes_total -= sizes[result.name]
        show(0)
        if total.samples >= _JUDGED_FROM:
            total.check(max_bad_fraction)
    if failed:
        named = "; ".join(result.error.rstrip(".") for result in failed[:_NAMED])
        raise DataError(
            f"{len(failed)} of {len(own)} TAR files could not be processed, the others are done: {named}."
        )
    total.check(max_bad_fraction)
    return total


def grit_shard(
    shard: str | Path,
    output_dir: str | Path,
    settings: GritSettings | None = None,
    *,
    max_bad_fraction: float = 0.1,
    claim_minutes: float = CLAIM_MINUTES,
) -> UnitResult:
    """Process one raw GRIT TAR to ``output_dir/<its name>``, once: what one process of :func:`prepare_grit` does.

    For pools, Spark or NeMo Curator: it is picklable, may be called again or by several processes, and the same TAR
    gives the same bytes.

    Args:
        shard: The raw TAR.
        output_dir: Folder to create, or of other calls with the same settings.
        settings: Which boxes are written.
        max_bad_fraction: Share of bad samples, in [0, 1], above which this is an error. The TAR that was made stays, as
            in :func:`prepare_grit`: a call that allows more takes it as it is.
        claim_minutes: See :mod:`hypvl.units.claims`.

    Returns:
        ``files``: the name of the TAR in the folder; ``counts``: as :class:`Counts`; ``status``: made or existed.

    Raises:
        ValueError: ``shard`` or ``output_dir`` is no path, or the share out of range.
        DataError: the TAR cannot be read or is none, too many samples are bad, the folder is of other settings, or it
            cannot be written.

    Example:
        >>> grit_shard("raw/00000.tar", "processed").counts["boxes"]  # doctest: +SKIP
        18231
    """
    number("max_bad_fraction", max_bad_fraction, least=0, most=1)
    settings = GritSettings() if settings is None else settings
    folder = Path(one_path("output_dir", output_dir))
    paths = list(_sources([one_path("shard", shard)]).values())
    if len(paths) > 1:
        raise DataError(f"{shard}: names {len(paths):,} TAR files; expected one.")
    result = make_unit(_unit(paths[0], settings), _make, folder=_folder(folder, settings, claim_minutes))
    Counts.from_record(result.counts).check(max_bad_fraction)
    return result


def _unit(path: Path, settings: GritSettings) -> Unit:
    return Unit(path.name, (str(path),), (path, settings))


def _folder(folder: Path, settings: GritSettings, claim_minutes: float) -> UnitFolder:
    if (folder / _OLD_MANIFEST).exists():
        raise DataError(
            f"{folder}: was made by an earlier version of hypvl ({_OLD_MANIFEST}); name another folder, or go on with "
            "what is there."
        )
    described = {"layout": _FORMAT, **dataclasses.asdict(settings)}
    return UnitFolder(folder, command="prepare-grit", settings=described, claim_minutes=claim_minutes)


def _make(argument: tuple[Path, GritSettings], folder: Path, tick: Tick) -> Made:
    """Process one raw TAR into ``folder``; ``tick`` receives the bytes that are done.

    Raises:
        DataError: when it is not a TAR at all, or nothing of it is left.
        UnwritableError: when the output cannot be written.
    """
    source, settings = argument
    target = folder / source.name
    try:
        with (
            open_new(target) as file,
            tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive,
        ):
            counts = _convert(source, archive, tick, settings)
    except OSError as error:
        raise UnwritableError(
            f"{target}: cannot be written ({error}); free space or rights there, then run the same command again."
        ) from error
    return Made([source.name], counts.record())


def _convert(source: Path, archive: tarfile.TarFile, tick: Tick, settings: GritSettings) -> Counts:
    try:
        reader = LocalFile(source, FileHandles())
        size = reader.size()
        index = build_index(ReadAhead(reader.read, _BLOCK), size, reader.place)
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error}).") from error
    if index.damage is not None and len(index) == 1 and len(index.members(0)) == 0:
        raise DataError(
            f"{source}: nothing of it can be read ({index.damage}); expected a TAR, download it again."
        )
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
