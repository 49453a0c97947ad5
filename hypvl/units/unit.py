"""One unit of work: some inputs become some files of an output folder, whole or not at all, once.

    output/00000.tar                     what the unit makes
    output/units/settings.json           the command and its settings: the same for all units of the folder
    output/units/manifests/00000.json    of a unit: settings, inputs, counts, hashes; written last, when it is done
    output/units/claims/00000.0          the process that works on it now
    output/units/work/<token>/           where that process writes; moved into place when it is whole

Manifests hold no times, hosts or processes: they are as equal as the files that they describe.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import hypvl
from hypvl.checks import one_of
from hypvl.errors import DataError, UserError
from hypvl.io.files import file_digest, open_new, read_regular
from hypvl.io.json_text import expecting, json_bytes, parse_json
from hypvl.io.redact import redact_url
from hypvl.units.claims import CLAIM_MINUTES, Claims, Held, Owner
from hypvl.units.pool import Tick

FOLDER = "units"
_FORMAT = 1
_LONGEST_NAME = 200  # characters, so that names of files made of it are allowed everywhere

Status: TypeAlias = Literal["made", "existed", "failed", "busy"]


@dataclass(frozen=True)
class Unit:
    """A piece of work: what it is made from, and what the function receives."""

    name: str  # unique in the folder, without slashes
    inputs: tuple[
        str, ...
    ] = ()  # files; when the size or time of one changes, the unit is made again. URLs as they are
    argument: Any = None  # picklable
    settings: Mapping[str, Any] = field(default_factory=dict)  # of this unit, besides those of the folder

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or "\0" in self.name or len(self.name) > _LONGEST_NAME:
            raise ValueError(
                f"name: got {self.name[:60]!r}; expected 1 to {_LONGEST_NAME} characters without a slash."
            )


@dataclass(frozen=True)
class Made:
    """What a function has made: names of the files that it wrote, in the order they appear in, and counts."""

    files: Sequence[str]
    counts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class UnitResult:
    """What became of a unit."""

    name: str
    status: Status
    files: tuple[str, ...] = ()  # names in the output folder
    counts: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""  # one sentence; empty unless it failed

    def __post_init__(self) -> None:
        one_of("status", self.status, Status)


#: Writes the files of a unit into a folder that nobody else sees: ``function(unit.argument, folder, tick)``. It raises
#: UserError when the unit cannot be made. The same argument and inputs give the same bytes.
UnitFunction: TypeAlias = Callable[[Any, Path, Tick], Made]


class UnwritableError(DataError):
    """The output cannot be written: no other unit can be made either."""


class UnitFolder:
    """The output folder of units that are made with the same settings.

    Args:
        folder: Made when the first unit is.
        command: What makes the units, as users call it.
        settings: What decides the content of all of them: plain values.
        claim_minutes: See :mod:`hypvl.units.claims`.

    Raises:
        ValueError: claim_minutes is not above 0.
    """

    def __init__(
        self,
        folder: Path,
        *,
        command: str,
        settings: Mapping[str, Any],
        claim_minutes: float = CLAIM_MINUTES,
    ) -> None:
        if not claim_minutes > 0:
            raise ValueError(f"claim_minutes: got {claim_minutes}; expected a number above 0.")
        self.folder = folder
        self.records = folder / FOLDER
        self.claims = Claims(self.records / "claims", minutes=claim_minutes)
        self._head = parse_json(
            json_bytes({"format": _FORMAT, "command": command, "settings": dict(settings)})
        )

    def check_settings(self, *, write: bool) -> None:
        """Compare with the settings of the folder; ``write`` them where there are none yet.

        Raises:
            DataError: the folder is of other settings, or cannot be read or written.
        """
        path = self.records / "settings.json"
        if not path.exists():
            if not write:
                return
            with _reported(path):
                self.records.mkdir(parents=True, exist_ok=True)
                _write_once(path, json_bytes(self._head, indent=1))
        saved = _read(path)
        difference = _difference(saved, self._head)
        if difference is not None:
            raise DataError(
                f"{self.folder}: was made with other settings ({difference}); name another folder, or give the same "
                "settings."
            )

    def manifest(self, name: str) -> dict[str, Any] | None:
        """What is stored about a unit that was made; None: nothing is. Raises DataError when it is damaged."""
        path = self._manifest(name)
        return _read(path) if path.exists() else None

    def finished(self, unit: Unit) -> UnitResult | None:
        """The result of a unit that is done: its files are there and its inputs as they were; None = to be made.

        Raises:
            DataError: it was made with other settings.
        """
        manifest = self.manifest(unit.name)
        if manifest is None:
            return None
        expected = self._record(unit)
        with expecting(
            self._manifest(unit.name), "the manifest of a unit; delete it to make this part again"
        ):
            return self._compare(unit, manifest, expected)

    def _compare(
        self, unit: Unit, manifest: Mapping[str, Any], expected: Mapping[str, Any]
    ) -> UnitResult | None:
        difference = _difference(manifest["settings"], expected["settings"])
        if difference is not None:
            raise DataError(
                f"{self.folder / unit.name}: was made with other settings ({difference}); name another folder, or give "
                "the same settings."
            )
        if [_compared(one) for one in manifest["inputs"]] != [_compared(one) for one in expected["inputs"]]:
            return None
        for name, about in manifest["outputs"].items():
            with contextlib.suppress(OSError):
                if (self.folder / name).stat().st_size == about["size"]:
                    continue
            return None
        return UnitResult(unit.name, "existed", tuple(manifest["outputs"]), manifest["counts"])

    def _manifest(self, name: str) -> Path:
        return self.records / "manifests" / f"{name}.json"

    def is_busy(self, unit: Unit) -> bool:
        """Whether another process works on a unit now."""
        claim = self.claims.current(unit.name)
        return claim is not None and not claim.is_stale(self.claims.minutes)

    def remove_left_work(self) -> None:
        """Remove what ended processes of this machine left: what they have half written, and claims of what is done.

        Their other claims stay: they tell the next process what to take over.
        """
        for unit, path, owner in self.claims.ended():
            shutil.rmtree(self._work(owner), ignore_errors=True)
            if self._manifest(unit).exists():
                with contextlib.suppress(OSError):
                    path.unlink()

    def _work(self, owner: Owner) -> Path:
        return self.records / "work" / owner.token

    def run(self, unit: Unit, function: UnitFunction, tick: Tick = lambda units: None) -> UnitResult:
        """Make a unit, unless it is done or another process works on it; a UserError of the function is the result.

        Raises:
            UnwritableError: the output folder cannot be written to.
        """
        try:
            done = self.finished(unit)
            if done is not None:
                return done
            with self.claims.hold(unit.name) as held:
                if held is None:
                    return UnitResult(unit.name, "busy")
                done = self.finished(unit)  # another process may have made it in the meantime
                return self._make(unit, function, tick, held) if done is None else done
        except UnwritableError:
            raise
        except UserError as error:
            return UnitResult(unit.name, "failed", error=str(error))

    def _make(self, unit: Unit, function: UnitFunction, tick: Tick, held: Held) -> UnitResult:
        work = self._work(held.owner)
        with _reported(work):
            for claim in held.before:  # what killed processes left
                if claim.owner is not None:
                    shutil.rmtree(self._work(claim.owner), ignore_errors=True)
            work.mkdir(parents=True)
        try:
            record = self._record(unit)  # before they are read: a later change makes the unit again
            made = function(unit.argument, work, tick)
            with _reported(self.folder):
                self._check_places(unit, made.files, known=bool(held.before))
                record["counts"] = parse_json(json_bytes(dict(made.counts)))
                record["outputs"] = {
                    name: {"size": (work / name).stat().st_size, "sha256": file_digest(work / name, "sha256")}
                    for name in made.files
                }
                if held.is_lost():
                    return UnitResult(unit.name, "busy")
                self._publish(unit, work, made.files, record)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return UnitResult(unit.name, "made", tuple(made.files), record["counts"])

    def _record(self, unit: Unit) -> dict[str, Any]:
        """The manifest of a unit as far as it is known before it is made."""
        settings = {**self._head["settings"], **unit.settings}
        head = {**self._head, "settings": settings}
        record = {
            "format": _FORMAT,
            "unit": unit.name,
            "settings": settings,
            "settings_sha256": hashlib.sha256(json_bytes(head)).hexdigest(),
            "inputs": [_identity(place) for place in unit.inputs],
            "hypvl": hypvl.__version__,
        }
        return dict(parse_json(json_bytes(record)))

    def _check_places(self, unit: Unit, files: Sequence[str], *, known: bool) -> None:
        """Refuse to replace files that no earlier run of this unit has made, and the unit's own inputs."""
        for name in files:
            target = self.folder / name
            if not target.exists():
                continue
            is_input = any(Path(place).exists() and target.samefile(place) for place in unit.inputs)
            if is_input or not (known or self._manifest(unit.name).exists()):
                raise DataError(
                    f"{target}: is in the way, as {FOLDER}/ there does not know it; name another folder, or move it."
                )

    def _publish(self, unit: Unit, work: Path, files: Sequence[str], record: dict[str, Any]) -> None:
        """Give the files their places; the manifest comes last."""
        manifest = self._manifest(unit.name)
        manifest.parent.mkdir(exist_ok=True)
        for name in files:
            _sync(work / name)
        part = work / ".manifest"
        with open_new(part) as file:
            file.write(json_bytes(record, indent=1))
        _sync(part)
        moved: list[Path] = []
        try:
            manifest.unlink(missing_ok=True)  # of other inputs
            for name in files:
                moved.append(self.folder / name)
                moved[-1].parent.mkdir(parents=True, exist_ok=True)  # a name may have a folder
                (work / name).replace(self.folder / name)
            part.replace(manifest)
        except BaseException:
            if not manifest.exists():
                for path in moved:
                    path.unlink(missing_ok=True)
            raise


def _identity(place: str) -> dict[str, Any]:
    """What changes when an input does."""
    shown = redact_url(place)
    if "://" in place:
        return {"place": shown}
    try:
        status = Path(place).stat()
    except OSError as error:
        raise DataError(f"{place}: cannot be read ({error.strerror}); check the path.") from error
    return {"place": shown, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _compared(identity: Mapping[str, Any]) -> tuple[Any, ...]:
    """Of a file the name, not the folder: the same shards may be reached by another path."""
    place = str(identity["place"])
    return (place if "://" in place else Path(place).name, identity.get("size"), identity.get("mtime_ns"))


def _difference(saved: Any, now: Mapping[str, Any]) -> str | None:
    """The first entry that differs, in words."""
    if not isinstance(saved, dict):
        return "nothing says which"
    for name in sorted({*saved, *now}):
        old, new = saved.get(name), now.get(name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            return _difference(old, new)
        return f"{name} was {old}, now it is {new}"
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(read_regular(path))
        if not isinstance(content, dict) or "settings" not in content:
            raise ValueError("it is not an object with settings")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete it to make this part again.") from error
    return content


def _write_once(path: Path, content: bytes) -> None:
    """Write a file whole, unless another process has."""
    part = path.with_name(f".{path.name}.{os.urandom(6).hex()}.part")
    with open_new(part) as file:
        file.write(content)
    _sync(part)
    try:
        os.link(part, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        if not path.exists():
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def _reported(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnwritableError(
            f"{error.filename or place}: cannot be written ({error.strerror or error}); free space or rights there, "
            "then run the same command again."
        ) from error
