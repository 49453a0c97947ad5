"""Results of one suite on one checkpoint: a file that several processes share and that loses nothing.

``results.json`` holds, for each evaluation, its state, metrics, 95 % intervals, per-item results, a digest of its
settings and where it comes from; ``results.csv`` beside it holds one line per metric. Each file has one subject: the
checkpoint's contents, the model built from it, the suite, and what is done to the embeddings. The subject of the
last run stands in the file of that name, others in the same folder as ``results_1.json`` ... A lock is held while a
file is read and written back, and not while anything is measured.
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
# What the numbers of an evaluation do not depend on: anywhere, and in the settings of encoding.
_NEVER_MATTERS = frozenset({"num_workers", "progress", "store", "download"})
_ENCODING = "hypvl.embedding.encode.Encoding"
_ONLY_ENCODES = frozenset({"batch_size"})  # elsewhere it is that of training, and decides

Entries = dict[str, dict[str, Any]]


class ResultsFile:
    """Results of one subject, shared with other processes that measure the same or another one.

    Args:
        path: The JSON file; its folder is made.
        subject: What the numbers are about; plain data, equal for runs that share a file.
        provenance: Where what this process measures comes from.
        as_csv: Results, name -> entry, as the text of the CSV file.

    Attributes:
        set_aside: The name that results of another subject got, which stood here before; None without any.

    Raises:
        DataError: when the file cannot be written, or is there and something else.
    """

    def __init__(
        self,
        path: Path,
        *,
        subject: Mapping[str, Any],
        provenance: Mapping[str, Any],
        as_csv: Callable[[Mapping[str, Mapping[str, Any]]], str],
    ) -> None:
        self._wanted = path
        self._path = path
        self._subject = dict(subject)
        self._provenance = dict(provenance)
        self._as_csv = as_csv
        self.set_aside: Path | None = None
        with self._locked():
            self._make_room()
            content = self._read()
            self._write({**content, "provenance": self._provenance})

    @property
    def path(self) -> Path:
        """Where the results stand now: another run in this folder may have given the file another name."""
        with self._locked():
            return self._find() or self._wanted

    def results(self) -> Entries:
        """Evaluation -> entry, as all processes have entered them so far."""
        with self._locked():
            entries: Entries = self._read()["results"]
            return entries

    def kept(self, name: str, digest: str) -> dict[str, Any] | None:
        """The good result that an evaluation with these settings already has; it becomes the current one."""
        with self._locked():
            content = self._read()
            current = content["results"].get(name)
            if _is_good(current) and current["settings_sha256"] == digest:
                return dict(current)
            earlier = content["other_settings"].get(name, {}).get(digest)
            if earlier is None:
                return None
            _enter(content, name, earlier)
            self._write(content)
            return dict(earlier)

    def put(self, name: str, entry: Mapping[str, Any], *, digest: str, settings: Any = None) -> None:
        """Enter a result. A good one that it replaces, of other settings or by a failure, stays in the file.

        Args:
            name: Of the evaluation.
            entry: Its ``status``, ``metrics`` and what else there is; JSON-serialisable.
            digest: Of its settings, see :func:`settings_digest`.
            settings: To be shown with it.

        Raises:
            DataError: when the file cannot be written.
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
            _enter(content, name, stored)
            self._write(content)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        folder = self._wanted.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with exclusive_lock(folder / f".{self._wanted.name}.lock"):
                yield
        except OSError as error:
            raise DataError(
                f"{self._wanted}: cannot be written ({error.strerror or error}); free the disk, or name another "
                "--output-dir."
            ) from error

    def _find(self) -> Path | None:
        """The file of our subject, which another run may have renamed; None before there is one."""
        for path in (self._path, self._wanted, *_siblings(self._wanted)):
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
        path = self._path if self._path.is_file() else self._wanted
        write_atomically(path, json_bytes(content, indent=1))
        text = self._as_csv(content["results"])
        write_atomically(path.with_suffix(".csv"), text.encode("utf-8", "backslashreplace"))

    def _make_room(self) -> None:
        """Give our file the name that was asked for, and what stands there another one."""
        wanted, own = self._wanted, self._find()
        if wanted.is_file() and own != wanted:
            if not _read_results(wanted):
                raise DataError(
                    f"{wanted}: exists and is not a results file; move it away or name another --output."
                )
            aside = _free_name(wanted)
            _move(wanted, aside)
            self.set_aside = aside
        if own is not None and own != wanted:
            _move(own, wanted)
        self._path = wanted


def settings_digest(settings: Any) -> str:
    """SHA-256 of an evaluation's resolved settings, without those that change only its speed.

    Args:
        settings: Plain data. ``batch_size`` counts except in a node of ``Encoding``, for elsewhere it is a batch of
            training.
    """
    return hashlib.sha256(json_bytes(_important(settings), sort_keys=True)).hexdigest()


def _important(settings: Any) -> Any:
    if isinstance(settings, Mapping):
        speed = _NEVER_MATTERS | (_ONLY_ENCODES if settings.get("_target_") == _ENCODING else frozenset())
        return {str(key): _important(value) for key, value in settings.items() if str(key) not in speed}
    if isinstance(settings, list | tuple):
        return [_important(value) for value in settings]
    return settings


def _is_good(entry: Mapping[str, Any] | None) -> bool:
    return entry is not None and entry.get("status") == "ok"


def _enter(content: dict[str, Any], name: str, entry: dict[str, Any]) -> None:
    """Make an entry the current one; a good one it does not supersede moves aside."""
    others: dict[str, Entries] = content["other_settings"]
    current = content["results"].get(name)
    digest = entry["settings_sha256"]
    if _is_good(current) and not (_is_good(entry) and current["settings_sha256"] == digest):
        others.setdefault(name, {})[current["settings_sha256"]] = current
    if _is_good(entry) and name in others:
        others[name].pop(digest, None)
        if not others[name]:
            del others[name]
    content["results"][name] = entry


def _read_results(path: Path) -> dict[str, Any]:
    """A results file; empty for a file that is none."""
    try:
        content = parse_json(path.read_bytes())
    except ValueError:
        return {}
    parts = [content.get(key) if isinstance(content, dict) else None for key in ("provenance", "results")]
    return content if all(isinstance(part, dict) for part in parts) else {}


def _siblings(path: Path) -> list[Path]:
    pattern = re.compile(rf"{re.escape(path.stem)}_\d+{re.escape(path.suffix)}")
    return sorted(other for other in path.parent.iterdir() if pattern.fullmatch(other.name))


def _free_name(path: Path) -> Path:
    number = 1
    while (kept := path.with_stem(f"{path.stem}_{number}")).exists():
        number += 1
    return kept


def _move(source: Path, target: Path) -> None:
    source.rename(target)
    table = source.with_suffix(".csv")
    if table.is_file():
        table.rename(target.with_suffix(".csv"))
