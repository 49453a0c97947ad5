"""Results of one suite on one checkpoint, in a file that several processes may write to at once.

``results.json`` holds the status, metrics, 95 % intervals, per-item results, settings digest and provenance of each
evaluation; ``results.csv`` beside it holds one line per metric. A file has one subject: the contents of the checkpoint,
the model built from it, the suite, and what is done to the embeddings. Results of the last run's subject are in
``results.json``, those of other subjects in the same folder in ``results_1.json`` ... A lock is held while a file is
read and written back, not while an evaluation runs.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypvl.errors import DataError
from hypvl.io.files import exclusive_lock, write_atomically
from hypvl.io.json_text import json_bytes, parse_json

FORMAT_VERSION = 2
# Settings that change no number: in every node of a config, and in the node of the encoding (elsewhere a batch is one
# of training, which changes numbers).
_ONLY_SPEED = frozenset({"num_workers", "progress", "store", "download"})
_ENCODING = "hypvl.embedding.encode.Encoding"
_ONLY_SPEED_OF_ENCODING = frozenset({"batch_size"})

Entries = dict[str, dict[str, Any]]


class ResultsFile:
    """Results of one subject, shared with other processes that measure the same or another one.

    Args:
        path: The JSON file; its folder is made.
        subject: Plain data, equal for runs that share a file: checkpoint, model, suite.
        provenance: Versions, device and command of this run; every entry that it adds gets them.
        as_csv: Makes the text of the CSV file from the results, name -> entry.

    Raises:
        DataError: when the file cannot be written, or exists and is not a results file.
    """

    def __init__(
        self,
        path: Path,
        *,
        subject: Mapping[str, Any],
        provenance: Mapping[str, Any],
        as_csv: Callable[[Mapping[str, Mapping[str, Any]]], str],
    ) -> None:
        self._requested = path
        self._path = path
        self._subject = dict(subject)
        self._provenance = dict(provenance)
        self._as_csv = as_csv
        self.moved_to: Path | None = None  # new name of the file of another subject that had this path
        with self._locked():
            self._claim_path()
            content = self._read()
            self._write({**content, "provenance": self._provenance})

    @property
    def path(self) -> Path:
        """The file of the results now; another run in this folder may have renamed it."""
        with self._locked():
            return self._find() or self._requested

    def results(self) -> Entries:
        """Evaluation -> entry, of all processes so far."""
        with self._locked():
            entries: Entries = self._read()["results"]
            return entries

    def reuse(self, name: str, digest: str) -> dict[str, Any] | None:
        """The ``ok`` entry of an evaluation with these settings, which becomes the current one; None without any."""
        with self._locked():
            content = self._read()
            current = content["results"].get(name)
            if _is_ok(current) and current["settings_sha256"] == digest:
                return dict(current)
            earlier = content["other_settings"].get(name, {}).get(digest)
            if earlier is None:
                return None
            _make_current(content, name, earlier)
            self._write(content)
            return dict(earlier)

    def put(self, name: str, entry: Mapping[str, Any], *, digest: str, settings: Any = None) -> None:
        """Add an entry: ``status``, ``metrics`` and others, JSON-serialisable, and its settings, for the reader.

        An ``ok`` entry of other settings (by the digest of :func:`settings_digest`), or one that a failure replaces,
        stays in the file. Raises DataError when the file cannot be written.
        """
        origin = {key: value for key, value in self._provenance.items() if key != "config"}
        stored = {
            **entry,
            "settings_sha256": digest,
            "settings": settings,
            "measured": self._provenance.get("started"),
            "provenance": origin,
        }
        with self._locked():
            content = self._read()
            _make_current(content, name, stored)
            self._write(content)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        folder = self._requested.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with exclusive_lock(folder / f".{self._requested.name}.lock"):
                yield
        except OSError as error:
            raise DataError(
                f"{self._requested}: cannot be written ({error.strerror or error}); check that folder and the space on "
                "its disk, or name another --output-dir."
            ) from error

    def _find(self) -> Path | None:
        """The file of this subject, which another run may have renamed; None if there is none yet."""
        stem, suffix = re.escape(self._requested.stem), re.escape(self._requested.suffix)
        siblings = sorted(self._requested.parent.glob("*"))
        siblings = [path for path in siblings if re.fullmatch(rf"{stem}_\d+{suffix}", path.name)]
        for path in (self._path, self._requested, *siblings):
            if path.is_file() and _read_results(path).get("subject") == self._subject:
                self._path = path
                return path
        return None

    def _read(self) -> dict[str, Any]:
        path = self._find()
        content = {} if path is None else _read_results(path)
        return {
            "format_version": FORMAT_VERSION,
            "subject": self._subject,
            "provenance": content.get("provenance", self._provenance),
            "results": content.get("results", {}),
            "other_settings": content.get("other_settings", {}),
        }

    def _write(self, content: dict[str, Any]) -> None:
        path = self._path if self._path.is_file() else self._requested
        write_atomically(path, json_bytes(content, indent=1))
        text = self._as_csv(content["results"])
        write_atomically(path.with_suffix(".csv"), text.encode("utf-8", "backslashreplace"))

    def _claim_path(self) -> None:
        """Give this subject's file the requested path; a file of another subject there gets another name."""
        requested, own = self._requested, self._find()
        if requested.is_file() and own != requested:
            if not _read_results(requested):
                raise DataError(
                    f"{requested}: exists and is not a results file; move it away or name another --output."
                )
            number = 1
            while (moved := requested.with_stem(f"{requested.stem}_{number}")).exists():
                number += 1
            _move(requested, moved)
            self.moved_to = moved
        if own is not None and own != requested:
            _move(own, requested)
        self._path = requested


def settings_digest(settings: Any) -> str:
    """SHA-256 of an evaluation's resolved settings (plain data), without those that change only its speed."""
    return hashlib.sha256(json_bytes(_without_speed(settings), sort_keys=True)).hexdigest()


def _without_speed(settings: Any) -> Any:
    if isinstance(settings, Mapping):
        is_encoding = settings.get("_target_") == _ENCODING
        speed = _ONLY_SPEED | (_ONLY_SPEED_OF_ENCODING if is_encoding else frozenset())
        return {str(key): _without_speed(value) for key, value in settings.items() if str(key) not in speed}
    if isinstance(settings, list | tuple):
        return [_without_speed(value) for value in settings]
    return settings


def _is_ok(entry: Mapping[str, Any] | None) -> bool:
    return entry is not None and entry.get("status") == "ok"


def _make_current(content: dict[str, Any], name: str, entry: dict[str, Any]) -> None:
    """Make an entry the current one; an ``ok`` entry of other settings, or before a failure, moves to others."""
    others: dict[str, Entries] = content["other_settings"]
    current = content["results"].get(name)
    digest = entry["settings_sha256"]
    if _is_ok(current) and not (_is_ok(entry) and current["settings_sha256"] == digest):
        others.setdefault(name, {})[current["settings_sha256"]] = current
    if _is_ok(entry) and name in others:
        others[name].pop(digest, None)
        if not others[name]:
            del others[name]
    content["results"][name] = entry


def _read_results(path: Path) -> dict[str, Any]:
    """Content of a results file; empty if it is not one."""
    try:
        content = parse_json(path.read_bytes())
    except ValueError:
        return {}
    parts = [content.get(key) if isinstance(content, dict) else None for key in ("provenance", "results")]
    return content if all(isinstance(part, dict) for part in parts) else {}


def _move(source: Path, target: Path) -> None:
    source.rename(target)
    table = source.with_suffix(".csv")
    if table.is_file():
        table.rename(target.with_suffix(".csv"))
