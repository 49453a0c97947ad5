"""Gathering a whole list: its shards as units of work, and the table that joins their parts."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from hypvl.checks import one_of, whole_number
from hypvl.data.gather.fetch import FetchOptions
from hypvl.data.gather.pair_list import ListOptions, choose_rows, open_list
from hypvl.data.gather.shard import TABLE_HEADER, TABLES, ImageSettings, Layout, ShardJob, gather_shard
from hypvl.io.files import write_output
from hypvl.units.claims import CLAIM_MINUTES
from hypvl.units.engines import Engine, run_units
from hypvl.units.unit import Unit, UnitFolder, UnitResult

TABLE = "pairs.tsv"


@dataclass(frozen=True)
class Plan:
    """What is gathered, and how.

    Args:
        source: The list.
        images: What becomes of images.
        fetching: How addresses are fetched; it may differ when a run is continued.
        layout: ``"tar"``, or ``"folder"`` with a table.
        per_shard: Pairs of a shard.
        subset: That many rows, drawn by ``seed``; None = all.
        seed: Of the subset.
    """

    source: ListOptions
    images: ImageSettings = dataclasses.field(default_factory=ImageSettings)
    fetching: FetchOptions = dataclasses.field(default_factory=FetchOptions)
    layout: Layout = "tar"
    per_shard: int = 5000
    subset: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("layout", self.layout, Layout)
        whole_number("per_shard", self.per_shard, least=1)
        whole_number("seed", self.seed, least=0)

    def settings(self) -> dict[str, Any]:
        """What decides the content of all shards."""
        source = {name: value for name, value in dataclasses.asdict(self.source).items() if name != "path"}
        return {
            "list": source, "images": dataclasses.asdict(self.images), "layout": self.layout,
            "per_shard": self.per_shard, "subset": self.subset, "seed": self.seed,
        }  # fmt: skip

    def units(self) -> list[Unit]:
        """One unit for each shard. Raises DataError when the list cannot be read."""
        rows = choose_rows(len(open_list(self.source)), subset=self.subset, seed=self.seed)
        starts = range(0, len(rows), self.per_shard)
        digits = max(5, len(str(len(starts) - 1)))
        result = []
        for i, start in enumerate(starts):
            name = f"{i:0{digits}d}"
            own = rows[start : start + self.per_shard]
            job = ShardJob(name, self.source, own, self.images, self.fetching, self.layout)
            chosen = {"rows": hashlib.sha256(own.astype("<i8").tobytes()).hexdigest()}
            result.append(Unit(name, inputs=(str(self.source.path),), argument=job, settings=chosen))
        return result


@dataclass
class Summary:
    """What became of the pairs of this run's shards, those of earlier runs included."""

    pairs: int = 0
    written: int = 0
    reasons: Counter[str] = dataclasses.field(default_factory=Counter)
    shards: int = 0
    failed: list[UnitResult] = dataclasses.field(default_factory=list)

    def add(self, result: UnitResult) -> None:
        """Count a shard."""
        if result.status == "failed":
            self.failed.append(result)
            return
        self.shards += 1
        self.pairs += result.counts["pairs"]
        self.written += result.counts["written"]
        self.reasons.update(result.counts["failed"])


def gather_pairs(
    plan: Plan,
    folder: Path,
    *,
    engine: Engine | None = None,
    claim_minutes: float = CLAIM_MINUTES,
    on_tick: Callable[[int], None] | None = None,
    on_shard: Callable[[Summary, int], None] | None = None,
) -> Summary:
    """Gather a list of pairs into a folder; started again, it goes on with the shards that are not finished.

    Args:
        plan: What to gather.
        folder: Where the shards are written.
        engine: Who works; None = this process.
        claim_minutes: After which a shard of another machine that gave no sign of life is taken over.
        on_tick: Receives the number of pairs done by this run so far.
        on_shard: Receives the counts so far and the number of this engine's shards, after each shard.

    Raises:
        DataError: when the list cannot be read, or the folder was made with other settings.
        UnwritableError: when the folder cannot be written to.
    """
    engine = Engine() if engine is None else engine
    units = plan.units()
    target = UnitFolder(folder, command="gather-pairs", settings=plan.settings(), claim_minutes=claim_minutes)
    summary, total = Summary(), len(engine.share(units))
    for result in run_units(units, gather_shard, folder=target, engine=engine, on_tick=on_tick):
        summary.add(result)
        if on_shard is not None:
            on_shard(summary, total)
    if plan.layout == "folder" and all(target.finished(unit) is not None for unit in units):
        _join_tables(folder, [unit.name for unit in units])
    return summary


def _join_tables(folder: Path, names: Sequence[str]) -> None:
    def write(file: BinaryIO) -> None:
        file.write("\t".join(TABLE_HEADER).encode() + b"\n")
        for name in names:
            file.write((folder / TABLES / f"{name}.tsv").read_bytes())

    write_output(folder / TABLE, write, flag="--output-dir")
