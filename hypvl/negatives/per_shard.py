"""Hard negatives of many caption files: one JSON Lines file for each, made once, whole or not at all.

The folder holds ``<name>.jsonl`` for every ``<name>.tar``, ``.csv`` ... and in ``units/`` the settings and a manifest
of each with its counts (:mod:`hypvl.units.unit`). Draws depend on the position of a caption in its own file.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from hypvl.checks import one_path, whole_number
from hypvl.errors import ConfigError, DataError
from hypvl.io.files import open_new
from hypvl.io.redact import redact_url
from hypvl.negatives.backends.base import BackendArguments, BuiltinArguments
from hypvl.negatives.entries import SourceArguments
from hypvl.negatives.generate import Settings, make_negatives
from hypvl.negatives.run import build_backend
from hypvl.negatives.sources import Captions, is_tar
from hypvl.negatives.writer import Counts
from hypvl.units.claims import CLAIM_MINUTES
from hypvl.units.engines import Engine, make_unit, run_units
from hypvl.units.pool import Tick
from hypvl.units.unit import Made, Unit, UnitFolder, UnitResult, UnwritableError

_FORMAT = 1
#: Of a source, what does not say how its captions are read.
_NOT_SETTINGS = ("places", "limit")


@dataclasses.dataclass(frozen=True)
class ShardNegatives:
    """Makes the negatives of one file: the function of a unit (:data:`hypvl.units.unit.UnitFunction`).

    Args:
        backend: What replaces which words.
        settings: Which negatives are made.
        part_size: Captions that a backend sees together.
    """

    backend: BackendArguments
    settings: Settings
    part_size: int = 1000

    def __post_init__(self) -> None:
        whole_number("part_size", self.part_size, least=1)

    def __call__(self, argument: SourceArguments, folder: Path, tick: Tick) -> Made:
        """Write the file of a source into ``folder``; ``tick`` receives captions.

        Raises:
            DataError: it cannot be read, or has no captions.
            UserError: the backend lacks a package or a model.
            UnwritableError: the output cannot be written.
        """
        captions = Captions(argument)
        backend = build_backend(self.backend)
        (place,) = argument.places
        target = folder / f"{_name(place)}.jsonl"
        counts = Counts()
        rows_left = iter(captions)
        try:
            with open_new(target) as file:
                while rows := list(islice(rows_left, self.part_size)):
                    for made in make_negatives(rows, backend, self.settings):
                        counts.add(made)
                        file.write((json.dumps(made.line(), ensure_ascii=False) + "\n").encode())
                    tick(len(rows))
        except OSError as error:
            raise UnwritableError(f"{target}: cannot be written ({error}); free some space.") from error
        if counts.captions == 0:
            skipped = ", ".join(f"{count} x {reason}" for reason, count in captions.skipped.items())
            raise DataError(f"{redact_url(place)}: has no captions ({skipped or 'it is empty'}).")
        counts.skipped = dict(captions.skipped)
        return Made([target.name], counts.to_json())


def negatives_of_shards(
    source: SourceArguments,
    output_dir: str | Path,
    make: ShardNegatives,
    *,
    engine: Engine | None = None,
    claim_minutes: float = CLAIM_MINUTES,
    on_tick: Any = None,
) -> Iterator[UnitResult]:
    """Make the negatives of each file of a source; yields the result of each as :func:`hypvl.units.engines.run_units`.

    Args:
        source: Files with different names; ``limit`` must be None.
        output_dir: Folder to create, or of other calls with the same settings.
        make: How they are made.
        engine: Who does it; None: this process.
        claim_minutes: See :mod:`hypvl.units.claims`.
        on_tick: Receives the number of captions done so far.

    Raises:
        ConfigError: a limit.
        DataError: a file is not there, the folder is of other settings, or it cannot be written to.
        UserError: the backend lacks a package.
    """
    folder = _folder(Path(output_dir), source, make, claim_minutes)
    yield from run_units(_units(source), make, folder=folder, engine=engine, on_tick=on_tick)


def negatives_shard(
    captions: str | Path,
    output_dir: str | Path,
    *,
    backend: BackendArguments | None = None,
    settings: Settings | None = None,
    part_size: int = 1000,
    source: Mapping[str, Any] | None = None,
    claim_minutes: float = CLAIM_MINUTES,
) -> UnitResult:
    """Make the hard negatives of one caption file as ``output_dir/<its name>.jsonl``, once.

    For pools, Spark or NeMo Curator: it is picklable, may be called again or by several processes, and the same file
    gives the same bytes. A backend with a model loads it once per process.

    Args:
        captions: A TAR, table, JSON Lines file or COCO annotations.
        output_dir: Folder to create, or of other calls with the same settings.
        backend: What replaces which words; None: the built-in word lists.
        settings: Which negatives are made.
        part_size: Captions that a backend sees together.
        source: How the file is read: further fields of :class:`hypvl.negatives.entries.SourceArguments`.
        claim_minutes: See :mod:`hypvl.units.claims`.

    Returns:
        ``files``: the name of the file in the folder; ``counts``: captions, and valid negatives by type.

    Raises:
        ValueError: ``captions`` or ``output_dir`` is no path.
        DataError: the file cannot be read or has no captions, or the folder is of other settings.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "0.csv").write_text("image,caption\\n1.jpg,a red dog on a bed\\n")
        >>> result = negatives_shard(folder / "0.csv", folder / "negatives")
        >>> result.files, result.counts["captions"], result.counts["types"]["attribute"]["valid"]
        (('0.jsonl',), 1, 1)
    """
    folder = Path(one_path("output_dir", output_dir))
    arguments = SourceArguments(places=(one_path("captions", captions),), **(source or {}))
    make = ShardNegatives(
        BuiltinArguments() if backend is None else backend,
        Settings() if settings is None else settings,
        part_size,
    )
    units = _units(arguments)
    if len(units) > 1:
        raise DataError(f"{captions}: names {len(units):,} files; expected one.")
    return make_unit(units[0], make, folder=_folder(folder, arguments, make, claim_minutes))


def _units(source: SourceArguments) -> list[Unit]:
    """A unit for each file, in order."""
    if source.limit is not None:
        raise ConfigError("--limit counts the captions of all files; it cannot be used with --output-dir.")
    places = list(source.places)
    if is_tar(source):
        from hypvl.data.shards import expand_shards  # reads images too, so it brings torch along

        places = expand_shards(places)
    places = [place if "://" in place else str(Path(place).expanduser()) for place in places]
    return [Unit(_name(place), (place,), dataclasses.replace(source, places=(place,))) for place in places]


def _name(place: str) -> str:
    return Path(place.partition("?")[0]).stem


def _folder(folder: Path, source: SourceArguments, make: ShardNegatives, claim_minutes: float) -> UnitFolder:
    settings = {
        "layout": _FORMAT,
        **{
            field.name: getattr(source, field.name)
            for field in dataclasses.fields(source)
            if field.name not in _NOT_SETTINGS
        },
        "seed": make.settings.seed,
        "types": list(make.settings.types),
        "relation": make.settings.relation,
        "part_size": make.part_size,
        **make.backend.identity(),
    }
    return UnitFolder(folder, command="hard-negatives", settings=settings, claim_minutes=claim_minutes)
