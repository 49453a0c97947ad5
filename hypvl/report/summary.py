"""One table over many results files: a row per checkpoint and protocol, a column per set, and their average."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypvl.errors import DataError
from hypvl.io.json_text import read_object
from hypvl.report.datacomp_tasks import TASKS
from hypvl.report.tables import APPROXIMATE, CHANCE, format_value, unit_of

AVERAGE = "Average"
#: Files that :func:`read_folder` takes.
PATTERN = "results*.json"
_LABELS = ("checkpoint", "protocol")
_COUNTS = ("sets_averaged", "sets_missing")


@dataclass(frozen=True)
class Cell:
    """One number, or why there is none."""

    status: str  # "ok", "missing" (no data), "failed", "error", "absent" (not there)
    value: float | None = None  # where it is ok
    metric: str | None = None  # what the value is
    approximate: bool = False  # whether the set is another than the published one


@dataclass(frozen=True)
class SummaryRow:
    """What one checkpoint did in one protocol."""

    checkpoint: str  # its path, and how its embeddings were standardised
    protocol: str  # what follows the last "/" of an evaluation's name; empty where there is none, or it is DataComp's
    cells: dict[str, Cell]  # set -> cell, for every column

    @property
    def values(self) -> list[float]:
        """The numbers of the cells that have one."""
        return [cell.value for cell in self.cells.values() if cell.value is not None]

    @property
    def units(self) -> dict[str, list[str]]:
        """Unit -> sets whose numbers are in it."""
        sets: dict[str, list[str]] = {}
        for name, cell in self.cells.items():
            if cell.value is not None:
                sets.setdefault(unit_of(cell.metric or ""), []).append(name)
        return sets

    @property
    def average(self) -> float | None:
        """Plain mean of the numbers; None without any, or if they are in different units.

        Missing numbers do not count. Percentages, radii, distances and edges of trees are never averaged together.
        """
        return math.fsum(self.values) / len(self.values) if len(self.units) == 1 else None

    @property
    def missing(self) -> dict[str, str]:
        """Set -> why it has no number."""
        return {name: cell.status for name, cell in self.cells.items() if cell.value is None}


@dataclass(frozen=True)
class Summary:
    """The table."""

    columns: list[str]  # sets, in the order they come first in the files
    rows: list[SummaryRow]  # sorted by checkpoint and protocol
    metrics: dict[str, str]  # set -> the metric of its column

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows as strings; the average says over how many sets where some are missing."""
        rows = []
        for row in self.rows:
            texts = [_shown(cell) for cell in row.cells.values()]
            average = "" if row.average is None else f"{row.average:.2f}"
            if row.missing and row.average is not None:
                average += f" ({len(row.values)}/{len(self.columns)})"
            rows.append([row.checkpoint, row.protocol, *texts, average])
        return [*_LABELS, *self.columns, AVERAGE], rows

    def as_csv(self) -> str:
        """Full precision; what is missing is empty, and counted."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([*_LABELS, *self.columns, AVERAGE, *_COUNTS])
        for row in self.rows:
            values = ["" if cell.value is None else repr(cell.value) for cell in row.cells.values()]
            average = "" if row.average is None else repr(row.average)
            counts = (0 if row.average is None else len(row.values), len(row.missing))
            writer.writerow([row.checkpoint, row.protocol, *values, average, *counts])
        return out.getvalue()


def read_folder(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """All results files below a folder, ``results*.json``, in the order of their paths; or the one file.

    Raises:
        DataError: there is none, or one is not a results file.
    """
    paths = [folder] if folder.is_file() else sorted(path for path in folder.rglob(PATTERN) if path.is_file())
    if not paths:
        raise DataError(
            f"{folder}: holds no {PATTERN} (nor do folders in it); name a folder hypvl evaluate wrote into."
        )
    return [(path, read_file(path)) for path in paths]


def read_file(path: Path) -> dict[str, Any]:
    """A results file. Raises DataError."""
    content = read_object(path, expected="a file of hypvl evaluate")
    if not all(isinstance(content.get(key), dict) for key in ("provenance", "results")):
        raise DataError(f"{path}: has no provenance and results; expected a file of hypvl evaluate.")
    check_entries(content["results"], path)
    return content


def check_entries(results: Mapping[str, Any], path: Path) -> None:
    """Raises DataError, which names the file, for an entry that no evaluation writes."""
    for name, entry in results.items():
        fault = _fault(entry)
        if fault is not None:
            raise DataError(f"{path}: the entry {name[:80]!r} {fault}; evaluate again or remove it.")


def _fault(entry: Any) -> str | None:
    """What is wrong with the result of an evaluation, in words; None for one that can be used."""
    if not isinstance(entry, dict):
        return f"is {str(entry)[:40]!r}"
    for key in ("metrics", "meta", "intervals"):
        if not isinstance(entry.get(key, {}), dict):
            return f"has {key} {str(entry[key])[:40]!r}"
    if entry.get("status") != "ok":
        return None
    for name, value in entry.get("metrics", {}).items():
        if not _is_number(value):
            return f"has {name[:80]} = {str(value)[:40]!r}, which is no number"
    for name, bounds in entry.get("intervals", {}).items():
        if bounds is not None and not (
            isinstance(bounds, list) and len(bounds) == 2 and all(map(_is_number, bounds))
        ):
            return f"has an interval of {name[:80]} that is no pair of numbers"
    return None


def _is_number(value: Any) -> bool:
    """Whether it is a number that a float can hold, maybe NaN."""
    try:
        return isinstance(value, int | float) and isinstance(float(value), float)
    except OverflowError:
        return False


def summarize(
    contents: Sequence[dict[str, Any]],
    *,
    metric: str | None = None,
    protocol: str | None = None,
    sets: Sequence[str] | None = None,
) -> Summary:
    """Put results files together.

    Files of one checkpoint (by its contents, model definition and standardisation) share their rows; of two results for
    the same evaluation the newest that is ok counts.

    Args:
        contents: As :func:`read_file` gives them.
        metric: For all sets; None = the main metric of each evaluation.
        protocol: Only this one.
        sets: Columns, in this order; None = all there are.

    Raises:
        DataError: when an evaluation lacks the metric, or one column has two main metrics.
    """
    columns: dict[str, None] = {}
    by_row: dict[tuple[str, str], dict[str, Cell]] = {}
    for label, entries in by_checkpoint(contents).items():
        for name, entry in entries.items():
            # The key of a task of DataComp is one name, whatever it has a "/" for.
            parted = "/" in name and name not in TASKS
            set_name, _, kind = name.rpartition("/") if parted else (name, "", "")
            if (protocol is not None and kind != protocol) or (sets is not None and set_name not in sets):
                continue
            columns.setdefault(set_name)
            by_row.setdefault((label, kind), {})[set_name] = _cell(name, entry, metric)
    names = list(columns) if sets is None else list(sets)
    rows = [
        SummaryRow(label, kind, {name: cells.get(name, Cell("absent")) for name in names})
        for (label, kind), cells in sorted(by_row.items())
    ]
    return Summary(names, rows, _metrics(rows, names))


def by_checkpoint(contents: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Label -> evaluation -> its newest entry that is ok, else its newest; files of one checkpoint are put together."""
    subjects: dict[tuple[Any, ...], dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {}
    labels: dict[tuple[Any, ...], str] = {}
    for content in contents:
        origin = content["provenance"]
        about = content.get("subject")
        keys = ("checkpoint_sha256", "model_sha256", "standardize", "shift")
        if about is None:  # files of version 1
            about, keys = origin, ("checkpoint_sha256", "train_config", "standardize", "shift")
        subject = tuple(about.get(key) for key in keys)
        parts = [str(origin.get("checkpoint") or origin.get("model", "?"))]
        parts += [f"{key}={origin[key]}" for key in ("standardize", "shift") if origin.get(key) is not None]
        labels.setdefault(subject, " ".join(parts))
        known = subjects.setdefault(subject, {})
        for name, entry in content["results"].items():
            if name not in known or _rank(entry, content) >= _rank(*known[name]):
                known[name] = (entry, content)
    named: dict[str, dict[str, dict[str, Any]]] = {}
    for subject, entries in subjects.items():
        label = labels[subject]
        if list(labels.values()).count(label) > 1:  # the file of that name has changed since
            label = f"{label} [{str(subject[0] or subject[1])[:8]}]"
        while label in named:
            label += "'"
        named[label] = {name: entry for name, (entry, _) in entries.items()}
    return named


def _rank(entry: dict[str, Any], content: dict[str, Any]) -> tuple[bool, str]:
    """A result before none, and then the newest; times are ISO 8601 in UTC, so that they sort as text."""
    return entry.get("status") == "ok", str(
        entry.get("measured") or content["provenance"].get("started") or ""
    )


def _cell(name: str, entry: dict[str, Any], metric: str | None) -> Cell:
    if entry.get("status") != "ok":
        return Cell(str(entry.get("status")))
    chosen = main_metric(name, entry, metric)
    return Cell("ok", float(entry["metrics"][chosen]), chosen, bool(entry.get("meta", {}).get(APPROXIMATE)))


def main_metric(name: str, entry: Mapping[str, Any], metric: str | None) -> str:
    """The metric of an ``ok`` entry to look at: ``metric`` where it is given, else the entry's own.

    Raises:
        DataError: when the evaluation of this name lacks it.
    """
    metrics = entry["metrics"]
    chosen = metric
    if chosen is None:
        main = entry.get("meta", {}).get("main_metric")
        chosen = next((key for key in metrics if not key.endswith(CHANCE)), None) if main is None else main
    if chosen not in metrics:
        raise DataError(
            f"{name}: has no {chosen}; expected one of {', '.join(metrics)} (choose with --metric, or other sets)."
        )
    return str(chosen)


def _metrics(rows: Sequence[SummaryRow], columns: Sequence[str]) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for name in columns:
        kinds = sorted({row.cells[name].metric or "" for row in rows} - {""})
        if len(kinds) > 1:
            raise DataError(
                f"{name}: has {' and '.join(kinds)} as main metric in different files; choose one with --metric."
            )
        if kinds:
            chosen[name] = kinds[0]
    return chosen


def _shown(cell: Cell) -> str:
    if cell.value is None:
        return "-" if cell.status == "absent" else cell.status
    text = format_value(cell.metric or "", cell.value)
    return f"{text} ({APPROXIMATE})" if cell.approximate else text
