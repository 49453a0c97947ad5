"""Claims of units of work: files in a shared folder that say which process works on what.

A claim is made by creating a file that must not exist yet, which a shared file system does for one process only. Its
owner touches the file while it works. A claim is *stale* when its owner has ended (known at once on the same machine),
or when nobody has touched it for some minutes (the only sign of an owner on another machine).

A stale claim is never removed or renamed by others, for two processes could do so one after the other and meet. Its
successor creates the claim with the next number instead, which again only one process can do.
"""

import contextlib
import json
import os
import re
import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from hypvl.errors import DataError
from hypvl.io.files import read_regular
from hypvl.io.json_text import parse_json
from hypvl.io.processes import process_stat

#: Minutes without a sign of life after which a claim of another machine is taken over.
CLAIM_MINUTES = 10.0
_BEATS = 10  # signs of life in that time
_LONGEST_BEAT = 60.0  # seconds
_LARGEST = 1 << 16  # bytes of a claim
_TOKEN = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Owner:
    """The process that holds a claim."""

    host: str
    machine: str  # differs after a restart of the host, and between containers; empty where it is not known
    pid: int
    started: str  # when the process began, in a form of the system; empty where it is not known
    token: str  # of this claim
    time: str  # when it was made; for people

    @classmethod
    def new(cls) -> "Owner":
        """This process, with a new token."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(
            socket.gethostname(), _machine(), os.getpid(), _started(os.getpid()), uuid.uuid4().hex, now
        )

    def __str__(self) -> str:
        return f"process {self.pid} of {self.host}"

    def has_ended(self) -> bool:
        """Whether the process is known to be gone: only of those on this machine."""
        if not self.machine or self.machine != _machine():
            return False
        return _started(self.pid) != self.started


@dataclass(frozen=True)
class Claim:
    """A claim that some process made."""

    path: Path
    number: int  # 0, or one more than that of the stale claim before it
    owner: Owner | None  # None: the file does not say, as it is being written or was cut off
    age: float  # seconds since its last sign of life, by the clock of the file system

    def is_stale(self, minutes: float) -> bool:
        """Whether it may be taken over."""
        return self.age > 60 * minutes or (self.owner is not None and self.owner.has_ended())


@dataclass(frozen=True)
class Held:
    """A claim of this process; ``before`` are the stale ones that it replaces."""

    path: Path
    owner: Owner
    before: tuple[Claim, ...]

    def is_lost(self) -> bool:
        """Whether another process has taken it over: this one gave no sign of life for too long."""
        names = _numbers(self.path.parent, _unit_of(self.path))
        return not self.path.exists() or max(names, default=-1) > int(self.path.name.rpartition(".")[2])


class Claims:
    """The claims of a folder.

    Args:
        folder: Where the files are; made when it is needed.
        minutes: Without a sign of life after which a claim is stale, > 0.
    """

    def __init__(self, folder: Path, *, minutes: float = CLAIM_MINUTES) -> None:
        self.folder = folder
        self.minutes = minutes

    def current(self, unit: str) -> Claim | None:
        """The claim of a unit that holds now, stale or not; None: there is none."""
        found = self._all(unit)
        return found[-1] if found else None

    def ended(self) -> list[tuple[str, Path, Owner]]:
        """Unit, file and owner of the claims of processes of this machine that have ended without giving them up."""
        ended = []
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                owner = None if path.name.startswith(".") else _read(path)
                if owner is not None and owner.has_ended():
                    ended.append((_unit_of(path), path, owner))
        return ended

    @contextlib.contextmanager
    def hold(self, unit: str) -> Iterator[Held | None]:
        """Claim a unit while the block runs; yields None when another process holds it.

        Raises:
            DataError: when the folder cannot be written to.
        """
        held = self._take(unit)
        if held is None:
            yield None
            return
        stop = threading.Event()
        every = min(_LONGEST_BEAT, 60 * self.minutes / _BEATS)
        beats = threading.Thread(target=_beat, args=(held.path, stop, every), daemon=True)
        beats.start()
        try:
            yield held
        finally:
            stop.set()
            beats.join()
            # Its own last: as long as it is there, nobody begins anew with the number of one before it.
            for path in [*(claim.path for claim in held.before), held.path]:
                with contextlib.suppress(OSError):
                    path.unlink()

    def _take(self, unit: str) -> Held | None:
        before = self._all(unit)
        if before and not before[-1].is_stale(self.minutes):
            return None
        number = before[-1].number + 1 if before else 0
        path = self.folder / f"{unit}.{number}"
        owner = Owner.new()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(json.dumps(asdict(owner)))
        except FileExistsError:
            return None
        except OSError as error:
            raise DataError(
                f"{path}: cannot be written ({error.strerror}); name an output folder that you may write."
            ) from error
        # Two processes may have read the folder at different times and created different numbers: each looks again
        # after it has created its own, so that at least one of them sees the other.
        others = [claim for claim in self._all(unit) if claim.path != path]
        if any(claim.number > number or not claim.is_stale(self.minutes) for claim in others):
            path.unlink(missing_ok=True)
            return None
        return Held(path, owner, tuple(before))

    def _all(self, unit: str) -> list[Claim]:
        """The claims of a unit by number; those that vanish meanwhile are left out."""
        found = []
        for number in _numbers(self.folder, unit):
            path = self.folder / f"{unit}.{number}"
            with contextlib.suppress(OSError):
                found.append(Claim(path, number, _read(path), self._now() - path.stat().st_mtime))
        return found

    def _now(self) -> float:
        """The time of the file system, whose clock may differ from this machine's."""
        probe = self.folder / f".{uuid.uuid4().hex}"
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink()


def _numbers(folder: Path, unit: str) -> list[int]:
    """The numbers of a unit's claims, ascending."""
    try:
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(
        int(name[len(unit) + 1 :])
        for name in names
        if name.startswith(f"{unit}.") and name[len(unit) + 1 :].isdecimal()
    )


def _unit_of(path: Path) -> str:
    return path.name.rpartition(".")[0]


def _read(path: Path) -> Owner | None:
    """The owner that a claim names; None where it names none, or one that no process writes.

    A folder may come from elsewhere. The token becomes the name of a folder that is removed: only one of
    :meth:`Owner.new` is taken, which leads nowhere else.
    """
    try:
        content: Any = parse_json(read_regular(path, max_bytes=_LARGEST))
        owner = Owner(**content)
    except (OSError, ValueError, TypeError):
        return None
    texts = (owner.host, owner.machine, owner.started, owner.token, owner.time)
    if type(owner.pid) is not int or not all(isinstance(text, str) for text in texts):
        return None
    return owner if _TOKEN.fullmatch(owner.token) else None


def _beat(path: Path, stop: threading.Event, every: float) -> None:
    while not stop.wait(every):
        with contextlib.suppress(OSError):
            os.utime(path)


@cache
def _machine() -> str:
    """The start of this machine's system and the set of processes that this one can see; empty where not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115
    except OSError:  # not Linux
        return ""


def _started(pid: int) -> str:
    """When a process began, which differs for another one with the same number; empty when there is none."""
    fields = process_stat(pid)
    return "" if fields is None or fields[0] in ("Z", "X") else fields[19]
