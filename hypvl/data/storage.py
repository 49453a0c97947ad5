"""Where shards lie: local files, http(s) servers, commands; all of them can be read at any place.

An http(s) shard is read through range requests, or downloaded once into a cache folder. A ``pipe:`` shard runs
a command, which must be allowed; its output is kept in the cache folder.
"""

import contextlib
import fcntl
import hashlib
import http.client
import os
import re
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from loguru import logger

from hypvl.errors import DataError

_CHUNK = 1 << 20
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_NETWORK_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
)


class Source(Protocol):
    """One shard, wherever it lies."""

    name: str  # short, for keys and messages
    place: str  # path or URL
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
    """The user's cache folder of this library (``$XDG_CACHE_HOME/hypvl`` or ``~/.cache/hypvl``).

    Raises:
        DataError: when the user has no home folder.
    """
    root = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(root) if root else Path.home() / ".cache") / "hypvl"
    except RuntimeError as error:
        raise DataError(
            f"no cache folder ({error}); set XDG_CACHE_HOME to a folder you may write."
        ) from error


class FileHandles:
    """Open files of one process, at most ``limit``; opened when first read.

    Reading is positional (``pread``), so that a handle inherited through a fork does no harm.
    """

    def __init__(self, limit: int = 64) -> None:
        self._limit = limit
        self._open: OrderedDict[Path, BinaryIO] = OrderedDict()

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """That part of a file. Raises OSError."""
        if path not in self._open:
            self._open[path] = path.open("rb", buffering=0)
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


class HttpFile:
    """A file on a server that answers range requests; see :meth:`download` for one that does not.

    Args:
        url: http or https.
        attempts: Requests made before giving up.
        backoff: Seconds waited after the first failure, doubled after each.
        timeout: Seconds without an answer that count as a failure.
    """

    block = 1 << 18

    def __init__(self, url: str, *, attempts: int = 6, backoff: float = 0.5, timeout: float = 30.0) -> None:
        self.place = url
        self.name = Path(urllib.request.url2pathname(url.split("?")[0])).name or url
        self._attempts, self._backoff, self._timeout = attempts, backoff, timeout
        self._probe: dict[str, Any] | None = None

    def identity(self) -> dict[str, Any]:
        probe = self._ask()
        return {"size": probe["size"], "etag": probe["etag"], "modified": probe["modified"]}

    def size(self) -> int:
        return int(self._ask()["size"])

    def accepts_ranges(self) -> bool:
        """Whether the server sends parts of this file."""
        return bool(self._ask()["ranges"])

    def read(self, offset: int, length: int) -> bytes:
        length = min(length, self.size() - offset)
        if length <= 0:
            return b""

        def fetch() -> bytes:
            with self._open(offset, offset + length - 1) as answer:
                if answer.status != 206:
                    raise DataError(
                        f"{self.place}: the server sent the whole file instead of a part; set dataset.cache_dir "
                        "so that it is downloaded once."
                    )
                data = answer.read()
            if len(data) != length:
                raise http.client.IncompleteRead(data, length - len(data))
            return data

        return bytes(self._retry(fetch))

    def download(self, folder: Path) -> Path:
        """Bring the whole file into a folder, once; continues a partial download. Returns its path."""
        identity = self.identity()
        mark = hashlib.sha256(repr((self.place, sorted(identity.items()))).encode()).hexdigest()[:16]
        target = folder / f"{mark}-{self.name}"
        with _only_one(target) as partial:
            if not target.exists():
                logger.info("downloading {} into {}", self.place, folder)
                self._retry(lambda: self._download(partial, identity["size"]))
                partial.replace(target)
        return target

    def _download(self, partial: Path, size: int) -> None:
        have = partial.stat().st_size if partial.exists() else 0
        if have > size or not self.accepts_ranges():
            have = 0
        if have < size:
            with self._open(have, size - 1) as answer, partial.open("r+b" if have else "wb") as file:
                file.seek(have if answer.status == 206 else 0)
                while chunk := answer.read(_CHUNK):
                    file.write(chunk)
                file.truncate()
        if (got := partial.stat().st_size) != size:
            raise http.client.IncompleteRead(b"", size - got)

    def _ask(self) -> dict[str, Any]:
        if self._probe is None:

            def probe() -> dict[str, Any]:
                with self._open(0, 0) as answer:
                    total = (answer.headers.get("Content-Range") or "").rpartition("/")[2]
                    if answer.status != 206:
                        total = answer.headers.get("Content-Length") or ""
                    if not total.isdigit():
                        raise DataError(f"{self.place}: the server does not say how long the file is.")
                    return {
                        "size": int(total),
                        "ranges": answer.status == 206,
                        "etag": answer.headers.get("ETag"),
                        "modified": answer.headers.get("Last-Modified"),
                    }

            self._probe = self._retry(probe)
        return self._probe

    def _open(self, first: int, last: int) -> Any:
        headers = {"Range": f"bytes={first}-{last}", "Accept-Encoding": "identity", "User-Agent": "hypvl"}
        return urllib.request.urlopen(
            urllib.request.Request(self.place, headers=headers), timeout=self._timeout
        )

    def _retry(self, action: Any) -> Any:
        for attempt in range(1, self._attempts + 1):
            try:
                return action()
            except _NETWORK_ERRORS as error:
                final = isinstance(error, urllib.error.HTTPError) and error.code not in _TRANSIENT
                if final or attempt == self._attempts:
                    raise DataError(
                        f"{self.place}: {error} (after {attempt} attempts); check the address and the network."
                    ) from error
                time.sleep(self._backoff * 2 ** (attempt - 1))
        raise AssertionError("attempts is at least 1")


def open_source(
    place: str, handles: FileHandles, *, cache_dir: Path | None = None, allow_pipe: bool = False
) -> Source:
    """The source for a path, an http(s) URL or a ``pipe:`` command.

    Raises:
        DataError: when it cannot be reached, or is not allowed.
    """
    if place.startswith("pipe:"):
        if not allow_pipe:
            raise DataError(
                f"{place}: runs a command; set dataset.allow_pipe=true if you trust it, or name files."
            )
        path = _run_once(place.removeprefix("pipe:"), cache_dir or user_cache() / "shards")
        return LocalFile(path, handles, name=path.name)
    if re.match(r"https?://", place):
        remote = HttpFile(place)
        if cache_dir is None and remote.accepts_ranges():
            return remote
        if cache_dir is None:
            cache_dir = user_cache() / "shards"
            logger.warning("{}: no range requests there; downloading the file into {}", place, cache_dir)
        return LocalFile(remote.download(cache_dir), handles, name=remote.name)
    if re.match(r"[a-z][a-z0-9+.-]+://", place):
        raise DataError(f"{place}: expected a local path, http:// or https:// (or pipe: with allow_pipe).")
    return LocalFile(Path(place), handles)


def _run_once(command: str, folder: Path) -> Path:
    """The output of a shell command, kept in a folder under a name made of the command."""
    mark = hashlib.sha256(command.encode()).hexdigest()[:16]
    target = folder / f"pipe-{mark}.tar"
    with _only_one(target) as partial:
        if not target.exists():
            logger.warning(
                "pipe:{}: its output is kept in {}; a run resumes exactly only as long as it stays there, or "
                "the command gives the same bytes again",
                command, target,
            )  # fmt: skip
            with partial.open("wb") as file:
                done = subprocess.run(command, shell=True, stdout=file, stderr=subprocess.PIPE, check=False)
            if done.returncode != 0:
                said = done.stderr.decode(errors="replace").strip()[-300:]
                raise DataError(f"pipe:{command}: ended with status {done.returncode} ({said}).")
            partial.replace(target)
    return target


@contextlib.contextmanager
def _only_one(target: Path) -> Iterator[Path]:
    """Lets one process at a time make a file; yields the name to write to until it is whole."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.with_name(f".{target.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield target.with_name(f"{target.name}.part")
    except OSError as error:  # network errors have become DataErrors by now
        raise DataError(
            f"cannot write {target} ({error}); set dataset.cache_dir to a folder with space that you may write."
        ) from error
