"""The results file of `scripts/evaluate.py`: written after each evaluation, taken up again by the next run.

``results.json`` holds the provenance and, per evaluation, its state, metrics, 95 % intervals, per-item results and a
digest of its settings; ``results.csv`` beside it holds one line per metric.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypvl.errors import DataError

FORMAT_VERSION = 1
CSV_HEADER = ("evaluation", "status", "metric", "value", "low", "high", "chance")
# What the numbers are about; another subject gets another file.
_SUBJECT = ("checkpoint_sha256", "eval_config", "train_config", "standardize", "shift")
# Settings that change how fast something is measured, not what.
_UNIMPORTANT = ("batch_size", "num_workers", "progress", "store", "download")


class ResultsFile:
    """Results of one checkpoint on one suite.

    Args:
        path: The JSON file.
        provenance: What the numbers are about and where they come from.

    Attributes:
        results: Evaluation -> entry, in the order of the file.

    Raises:
        DataError: when the file cannot be written, or is there and something else.
    """

    def __init__(self, path: Path, provenance: Mapping[str, Any]) -> None:
        self.path = path
        self.provenance = dict(provenance)
        self.results: dict[str, dict[str, Any]] = {}
        self._make_room()

    def kept(self, name: str, digest: str) -> bool:
        """Whether an evaluation with these settings has already been done; its entry stays."""
        entry = self.results.get(name, {})
        return entry.get("status") == "ok" and entry.get("settings_sha256") == digest

    def put(self, name: str, entry: dict[str, Any]) -> None:
        """Enter a result and write both files; what was done stays, whatever comes."""
        self.results[name] = {**entry, "measured": self.provenance.get("started")}
        self._write()

    def _write(self) -> None:
        report = {"format_version": FORMAT_VERSION, "provenance": self.provenance, "results": self.results}
        _replace(self.path, json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
        _replace(self.path.with_suffix(".csv"), as_csv(self.results))

    def _make_room(self) -> None:
        """Take up results of the same subject; keep those of another under a free name."""
        path = self.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file():
                there = json.loads(path.read_text("utf-8"))
                if _subject(there) != _subject({"provenance": self.provenance}):
                    kept = _free_name(path)
                    path.rename(kept)
                    if path.with_suffix(".csv").is_file():
                        path.with_suffix(".csv").rename(kept.with_suffix(".csv"))
                    print(f"{path}: holds another evaluation, kept as {kept}")
                else:
                    self.results = dict(there["results"])
            self._write()
        except OSError as error:
            raise DataError(
                f"{path}: cannot be written ({error.strerror}); name another --output-dir."
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: exists and is not a results file; move it away or name another --output."
            ) from error


def settings_digest(settings: Any) -> str:
    """SHA-256 of an evaluation's resolved settings, without those that change only its speed."""
    text = json.dumps(_important(settings), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def as_csv(results: Mapping[str, Mapping[str, Any]]) -> str:
    """One line per metric, full precision; an evaluation without result has one line, its value empty."""
    from hypvl.report.tables import result_rows

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for name, entry in results.items():
        rows = result_rows({name: entry})
        for row in rows:
            low, high = ("", "") if row.interval is None else row.interval
            chance = "" if row.chance is None else row.chance
            writer.writerow((name, entry["status"], row.metric, row.value, low, high, chance))
        if not rows:
            writer.writerow((name, entry["status"], "", "", "", "", ""))
    return out.getvalue()


def _important(settings: Any) -> Any:
    if isinstance(settings, Mapping):
        return {
            str(key): _important(value) for key, value in settings.items() if str(key) not in _UNIMPORTANT
        }
    if isinstance(settings, list | tuple):
        return [_important(value) for value in settings]
    return settings


def _subject(report: Any) -> tuple[Any, ...]:
    """What a results file is about."""
    origin = report.get("provenance") if isinstance(report, dict) else None
    if not isinstance(origin, dict):
        raise ValueError("no provenance")
    return tuple(origin.get(key) for key in _SUBJECT)


def _free_name(path: Path) -> Path:
    number = 1
    while (kept := path.with_stem(f"{path.stem}_{number}")).exists():
        number += 1
    return kept


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, "utf-8")
    temporary.replace(path)
