"""Where shards are: local files, http(s) servers, object stores, commands; each can be read at any offset.

An http(s) or stored shard is read in parts, or downloaded once into a cache folder. A ``pipe:`` shard runs a command,
which must be allowed; its output is kept in the cache folder.
"""

import contextlib
import hashlib
import os
import re
import subprocess
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from loguru import logger

from hypvl.errors import DataError
from hypvl.io.files import open_new, open_regular
from hypvl.io.filesystem import StoredFile, scheme_of
from hypvl.io.redact import printable, redact_text
from hypvl.io.remote import RemoteFile, UnwritableError, only_one


class Source(Protocol):
    """One shard, local or remote."""

    name: str  # short, for keys and messages
    place: str  # path or URL as it may be shown
    block: int  # bytes worth reading at once while walking headers

    def identity(self) -> dict[str, Any]:
        """Changes when the content does."""
        ...

    def size(self) -> int:
        """Bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """That part; shorter at the end of the file."""
        ...


def user_cache() -> Path:
    """``$XDG_CACHE_HOME/hypvl`` or ``~/.cache/hypvl``. Raises DataError when the user has no home folder."""
    root = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(root) if root else Path.home() / ".cache") / "hypvl"
    except RuntimeError as error:
        raise DataError(
            f"no cache folder ({error}); set XDG_CACHE_HOME to a folder you may write."
        ) from error


class FileHandles:
    """Open files of one process, at most ``limit``; opened when first read.

    Reading is positional (``pread``), so that processes can share a handle inherited through a fork.
    """

    def __init__(self, limit: int = 64) -> None:
        self._limit = limit
        self._open: OrderedDict[Path, BinaryIO] = OrderedDict()

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """That part of a file. Raises OSError."""
        if path not in self._open:
            self._open[path] = open_regular(path)
            if len(self._open) > self._limit:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(path)
        file = self._open[path].fileno()
        parts = []
        while length > 0 and (part := os.pread(file, length, offset)):
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def __getstate__(self) -> dict[str, Any]:
        return {"_limit": self._limit, "_open": OrderedDict()}  # files stay with their process


class LocalFile:
    """A file on this machine, or on a file system it mounts."""

    block = 1 << 14

    def __init__(self, path: Path, handles: FileHandles, *, name: str | None = None) -> None:
        self.path = path
        self.place = str(path)
        self.name = path.name if name is None else name
        self._handles = handles

    def identity(self) -> dict[str, Any]:
        stat = self.path.stat()
        return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}

    def size(self) -> int:
        return self.path.stat().st_size

    def read(self, offset: int, length: int) -> bytes:
        return self._handles.read(self.path, offset, length)


def open_source(
    place: str,
    handles: FileHandles,
    *,
    cache_dir: Path | None = None,
    allow_pipe: bool = False,
    allow_http: bool = False,
) -> Source:
    """The source for a path, URL or ``pipe:`` command. Raises DataError for one out of reach, or not allowed."""
    if place.startswith("pipe:"):
        if not allow_pipe:
            raise DataError(
                f"{redact_text(place)}: runs a command; set dataset.allow_pipe=true if you trust it, or name files."
            )
        with _advised():
            path = _run_once(place.removeprefix("pipe:"), cache_dir or user_cache() / "shards")
        return LocalFile(path, handles, name=path.name)
    if re.match(r"https?://", place):
        remote = RemoteFile(place, allow_http=allow_http)
        if cache_dir is None and remote.accepts_ranges():
            return remote
        if cache_dir is None:
            cache_dir = user_cache() / "shards"
            logger.warning(
                "{}: no range requests there; downloading the file into {}", remote.place, cache_dir
            )
        with _advised():
            return LocalFile(remote.download(cache_dir), handles, name=remote.name)
    if scheme_of(place) is not None:
        stored = StoredFile(place)
        if cache_dir is None:
            return stored
        with _advised():
            return LocalFile(stored.download(cache_dir), handles, name=stored.name)
    return LocalFile(Path(place), handles)


def _run_once(command: str, folder: Path) -> Path:
    """The output of a shell command, kept in a folder under a name made of the command."""
    mark = hashlib.sha256(command.encode()).hexdigest()[:16]
    target = folder / f"pipe-{mark}.tar"
    partial = target.with_name(f"{target.name}.part")
    with only_one(target):
        if not target.exists():
            logger.warning(
                "pipe:{}: its output is kept in {}; a run resumes exactly only as long as it stays there, or "
                "the command gives the same bytes again",
                redact_text(command), target,
            )  # fmt: skip
            try:
                partial.unlink(missing_ok=True)
                with open_new(partial) as file:
                    done = subprocess.run(
                        command, shell=True, stdout=file, stderr=subprocess.PIPE, check=False
                    )
                if done.returncode == 0:
                    partial.replace(target)
            except OSError as error:
                raise UnwritableError(target, error.strerror) from error
            if done.returncode != 0:
                message = printable(done.stderr.decode(errors="replace").strip()[-300:])
                raise DataError(
                    f"pipe:{redact_text(command)}: ended with status {done.returncode} ({message})."
                )
    return target


@contextlib.contextmanager
def _advised() -> Iterator[None]:
    """Errors of a cache folder name its setting."""
    try:
        yield
    except UnwritableError as error:
        raise DataError(
            f"cannot write {error.place} ({error.reason}); set dataset.cache_dir to a folder with space that you may "
            "write."
        ) from error
