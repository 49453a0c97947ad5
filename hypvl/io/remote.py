"""Files on web servers: parts of them by range requests, or the whole downloaded once."""

import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from loguru import logger

from hypvl.errors import DataError
from hypvl.io.files import DigestKind, exclusive_lock, file_digest, open_new
from hypvl.io.http import (
    TRANSIENT,
    Answer,
    Patience,
    RemoteError,
    TooSlowError,
    check_encrypted,
    request,
    size_of_refused,
)  # fmt: skip
from hypvl.io.json_text import parse_json
from hypvl.io.redact import printable, redact_url

#: Bytes of a download, unless the caller says otherwise; where the server does not say how many, the second.
MAX_DOWNLOAD = 1 << 40
MAX_UNANNOUNCED = 1 << 34
_FIRST_ANSWER = 10.0  # seconds
_GONE = (401, 403, 404, 410)
_NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, OSError)
_T = TypeVar("_T")
PATIENCE = Patience()

#: Called with (bytes there, bytes in all or None).
Report = Callable[[int, int | None], None]


class DownloadError(RemoteError):
    """A file could not be downloaded: no network, a server that refuses, or other content than expected."""


class UnwritableError(DataError):
    """A place on this machine cannot be written."""

    def __init__(
        self, place: Path, reason: str | None, advice: str = "choose a folder with space that you may write"
    ) -> None:
        super().__init__(f"{place}: cannot be written ({reason}); {advice}.")
        self.place, self.reason = place, reason


class RemoteFile:
    """A file on a server that answers range requests; see :func:`download` for one that does not.

    ``patience`` says how slow a server may be; the time of a request follows from what is asked for. ``allow_http``
    allows plain http; without it, its address is a RemoteError (:func:`hypvl.io.http.check_encrypted`).
    """

    block = 1 << 18

    def __init__(self, url: str, *, patience: Patience = PATIENCE, allow_http: bool = False) -> None:
        check_encrypted(url, allow_http=allow_http)
        self.url = url
        self._allow_http = allow_http
        self.place = redact_url(url)
        self.name = _name(url)
        self._patience = patience
        self._probe: _Probe | None = None

    def identity(self) -> dict[str, Any]:
        """Changes when the content does."""
        probe = self._ask()
        return {"size": probe.size, "etag": probe.etag, "modified": probe.modified}

    def size(self) -> int:
        """Bytes."""
        return self._ask().size

    def accepts_ranges(self) -> bool:
        """Whether the server sends parts of this file."""
        return self._ask().ranges

    def read(self, offset: int, length: int) -> bytes:
        """That part, shorter at the end of the file. Raises DataError, also for another part than was requested."""
        probe = self._ask()
        length = min(length, probe.size - offset)
        if length <= 0:
            return b""

        def fetch() -> bytes:
            with request(
                self.url, first=offset, last=offset + length - 1, patience=self._patience_for(length),
                allow_http=self._allow_http,
            ) as answer:  # fmt: skip
                if not answer.partial:
                    raise RemoteError(
                        f"{self.place}: the server sent the whole file instead of a part; set dataset.cache_dir "
                        "so that it is downloaded once."
                    )
                etag = answer.headers.get("ETag")
                if answer.size not in (None, probe.size) or etag not in (None, probe.etag):
                    raise RemoteError(f"{self.place}: the file has changed while it was in use; start again.")
                data = b"".join(answer.chunks(length))
            if len(data) != length:
                raise http.client.IncompleteRead(b"", length - len(data))
            return data

        return self._retry(fetch)

    def download(self, folder: Path) -> Path:
        """Download the whole file into a folder, once, by :func:`download`. Returns its path."""
        mark = hashlib.sha256(repr((self.url, sorted(self.identity().items()))).encode()).hexdigest()[:16]
        target = folder / f"{mark}-{self.name}"
        known = self._ask()
        return download(
            self.url, target, patience=self._patience, expected=_Mark(known.same, known.size),
            allow_http=self._allow_http,
        )  # fmt: skip

    def _ask(self) -> "_Probe":
        if self._probe is None:
            self._probe = self._retry(self._first_byte)
        return self._probe

    def _first_byte(self) -> "_Probe":
        try:
            with request(
                self.url, first=0, last=0, patience=self._patience_for(1), allow_http=self._allow_http
            ) as answer:
                if answer.size is None:
                    raise RemoteError(f"{self.place}: the server does not say how long the file is.")
                etag, modified = answer.headers.get("ETag"), answer.headers.get("Last-Modified")
                return _Probe(answer.size, answer.partial, etag, modified, answer.same)
        except urllib.error.HTTPError as error:
            if error.code == 416 and size_of_refused(error) == 0:  # an empty file has no first byte
                return _Probe(0, True, error.headers.get("ETag"), error.headers.get("Last-Modified"), None)
            raise

    def _patience_for(self, length: int) -> Patience:
        patience = self._patience
        seconds = patience.timeout + patience.grace + length / patience.least_rate
        return replace(patience, seconds=min(patience.seconds, seconds))

    def _retry(self, action: Callable[[], _T]) -> _T:
        attempt = 1
        while True:
            try:
                return action()
            except _NETWORK_ERRORS as error:
                status = error.code if isinstance(error, urllib.error.HTTPError) else None
                if attempt >= self._patience.attempts or (status is not None and status not in TRANSIENT):
                    raise RemoteError(
                        f"{self.place}: {printable(str(error))} (after {attempt} attempts); check the address and "
                        "the network.",
                        status,
                    ) from error
                time.sleep(self._patience.backoff * 2 ** (attempt - 1))
                attempt += 1


@dataclass(frozen=True)
class _Probe:
    size: int
    ranges: bool
    etag: str | None
    modified: str | None
    same: str | None


@dataclass(frozen=True)
class _Mark:
    """What identifies an unfinished file, and its size when it is finished."""

    same: str | None
    size: int | None

    def fits(self, answer: Answer) -> bool:
        """Whether a response can be of this file."""
        known = None not in (self.size, answer.size)
        return answer.same in (None, self.same) and not (known and self.size != answer.size)


def download(
    url: str,
    target: Path,
    *,
    md5: str | None = None,
    sha256: str | None = None,
    max_bytes: int = MAX_DOWNLOAD,
    patience: Patience = PATIENCE,
    progress: Report | None = None,
    expected: _Mark | None = None,
    allow_http: bool = False,
) -> Path:
    """Download a file, once.

    What has arrived is kept in ``<target>.part`` and continued by a range request, also by a later run, as long as
    the server says that it is still the same file (``If-Range``). ``target`` appears when everything is there: as
    many bytes as announced, the stream ended as it should, and the checksum agrees. One process at a time; others
    wait and then use it.

    Args:
        url: https; plain http only where a checksum shows what came, or it is allowed.
        target: The file to make; its folder is made too.
        md5, sha256: Hex digests the file must have; None = not looked at.
        max_bytes: More is refused, before anything is written where the server says how much it is.
        patience: How slow the server may be, how long all of it may take, and how often it may fail without progress
            (at most twice where the server never answered).
        progress: Called with (bytes there, bytes in all or None).
        expected: What identifies the file, where it is known.
        allow_http: Allow plain http without a checksum, too.

    Returns:
        ``target``.

    Raises:
        DownloadError: naming the response of the server, or the wrong checksum.
        UnwritableError: when it cannot be written.
    """
    with only_one(target):
        if not target.is_file():
            logger.info("downloading {} to {}", redact_url(url), target)
            part = target.with_name(f"{target.name}.part")
            wanted: dict[DigestKind, str | None] = {"md5": md5, "sha256": sha256}
            checked = any(digest is not None for digest in wanted.values())
            job = _Download(
                url,
                part,
                patience,
                max_bytes,
                progress,
                expected,
                checked=checked,
                allow_http=allow_http or checked,
            )
            try:
                job.run()
            except DownloadError:
                raise
            except RemoteError as error:
                raise DownloadError(str(error), error.status) from error
            try:
                with part.open("rb") as file:
                    os.fsync(file.fileno())
                for kind, digest in wanted.items():
                    if digest is not None:
                        _check_digest(part, redact_url(url), kind, digest.lower())
                part.replace(target)
                _mark(part).unlink(missing_ok=True)
            except OSError as error:
                raise UnwritableError(target, error.strerror, "move it away") from error
    return target


@dataclass
class _Download:
    url: str
    part: Path
    patience: Patience
    max_bytes: int
    progress: Report | None
    expected: _Mark | None
    checked: bool  # a checksum will show whether it is whole
    allow_http: bool
    begun: bool = False  # the bytes on disk came from this server in this run

    def run(self) -> None:
        """Requests until everything is there."""
        attempts, backoff = self.patience.attempts, self.patience.backoff
        end = time.monotonic() + self.patience.seconds
        failures, answered = 0, False
        shown, by_hand = redact_url(self.url), self.part.with_suffix("")
        while True:
            before = _own_size(self.part)
            try:
                # The first response comes soon or not at all: without a network nobody should wait.
                patience = self.patience if answered else replace(
                    self.patience, timeout=min(self.patience.timeout, _FIRST_ANSWER)
                )  # fmt: skip
                if self._fetch(before, replace(patience, seconds=max(end - time.monotonic(), 0.0))):
                    return
                answered = True
                error: Exception = http.client.IncompleteRead(b"")
            except urllib.error.HTTPError as refused:
                if refused.code not in TRANSIENT:
                    what = (
                        "the file does not exist there or needs a login"
                        if refused.code in _GONE
                        else "it refuses"
                    )
                    raise DownloadError(
                        f"{shown}: the server answers {refused.code} ({printable(str(refused.reason), limit=80)}), "
                        f"{what}; download the file yourself and put it at {by_hand}.",
                        refused.code,
                    ) from refused
                answered, error = True, refused
            except _NETWORK_ERRORS as broken:
                error = broken
            after = _own_size(self.part)
            answered = answered or after > before or isinstance(error, http.client.IncompleteRead)
            failures = 0 if after > before and not isinstance(error, TooSlowError) else failures + 1
            if failures >= (attempts if answered else min(attempts, 2)) or time.monotonic() >= end:
                reason = printable(str(getattr(error, "reason", None) or error))
                raise DownloadError(
                    f"{shown}: cannot be reached ({reason}; {failures} attempts without progress, {after} bytes "
                    f"kept in {self.part.name}); check the network and run again, or put the file at {by_hand}."
                ) from error
            if failures:
                time.sleep(min(backoff * 2 ** (failures - 1), max(end - time.monotonic(), 0.0)))

    def _fetch(self, have: int, patience: Patience) -> bool:
        """One request for the missing bytes. Returns whether the file is whole now."""
        known = (_read_mark(self.part, self.url) or self.expected) if have else None
        if known is not None and known.same is None and not self.begun:
            known = None  # nothing identifies what an earlier run left
        self.begun = True
        size = known.size if known is not None else self.expected.size if self.expected is not None else None
        first = have if known is not None else 0 if size else None
        try:
            with request(
                self.url,
                first=first,
                last=None if first is None or size is None else max(size - 1, first),
                same=None if known is None else known.same,
                patience=patience,
                allow_http=self.allow_http,
            ) as answer:
                if answer.partial and known is not None and not known.fits(answer):
                    self.part.unlink()  # a part of another file, from a server that does not know If-Range
                    return False
                self._check_size(answer.size, have if answer.partial else 0)
                if not (answer.delimited or self.checked):
                    raise DownloadError(
                        f"{answer.url}: the server says neither how long the file is nor where it ends, and no "
                        f"checksum is known; download it yourself and put it at {self.part.with_suffix('')}."
                    )
                with self._writing(answer.begin) as file:
                    self._keep_mark(answer.same, answer.size)
                    at = answer.begin
                    limit = min(self.max_bytes, MAX_UNANNOUNCED) if answer.length is None else answer.length
                    for chunk in answer.chunks(limit):
                        with self._disk_errors():
                            file.write(chunk)
                        at += len(chunk)
                        if self.progress is not None:
                            self.progress(at, answer.size)
                return answer.size is None or at == answer.size
        except urllib.error.HTTPError as error:
            if error.code != 416 or known is None:
                raise
            if known.size == have:
                return True  # nothing after what is there
            self.part.unlink()  # the file has become shorter
            return False

    def _check_size(self, size: int | None, have: int) -> None:
        shown = redact_url(self.url)
        if size is None:
            return
        if size > self.max_bytes:
            raise DownloadError(
                f"{shown}: has {size} bytes, more than the {self.max_bytes} expected at most."
            )
        if self.expected is not None and self.expected.size not in (None, size):
            raise DownloadError(f"{shown}: has {size} bytes now, {self.expected.size} before; start again.")
        free = shutil.disk_usage(self.part.parent).free
        if size - have > free:
            raise UnwritableError(self.part, f"{free} bytes are free, and {shown} needs {size - have}")

    @contextlib.contextmanager
    def _writing(self, begin: int) -> Iterator[BinaryIO]:
        with self._disk_errors():
            if begin == 0:
                self.part.unlink(missing_ok=True)
                file = open_new(self.part)
            else:
                handle = os.open(self.part, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                file = os.fdopen(handle, "wb")
                file.seek(begin)
                file.truncate()
        try:
            yield file
        finally:
            with self._disk_errors():
                file.close()

    def _keep_mark(self, same: str | None, size: int | None) -> None:
        place = _mark(self.part)
        with self._disk_errors():
            place.unlink(missing_ok=True)
            if same is not None:  # otherwise there is nothing to recognise the file by, and no continuing
                with open_new(place) as file:
                    file.write(json.dumps({"url": _digest(self.url), "same": same, "size": size}).encode())

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Tells errors of the disk from those of the network, which are an OSError, too."""
        try:
            yield
        except OSError as error:
            raise UnwritableError(self.part, error.strerror) from error


@contextlib.contextmanager
def only_one(target: Path) -> Iterator[None]:
    """Lets one process at a time write a file; the others wait. Raises UnwritableError."""
    with contextlib.ExitStack() as held:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(exclusive_lock(target.with_name(f".{target.name}.lock")))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UnwritableError(target, str(reason)) from error
        yield


def _own_size(part: Path) -> int:
    """Bytes of an unfinished file; 0 for none, and for a link or another user's file in its place."""
    try:
        status = part.lstat()
    except OSError:
        return 0
    own = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1
    return status.st_size if own else 0


def _mark(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_mark(part: Path, url: str) -> _Mark | None:
    try:
        if not 0 < _own_size(_mark(part)) < 1 << 16:
            return None
        content = parse_json(_mark(part).read_bytes())
    except (OSError, ValueError):
        return None  # then the download starts again
    if not isinstance(content, dict) or content.get("url") != _digest(url):
        return None
    same, size = content.get("same"), content.get("size")
    return _Mark(same, size) if isinstance(same, str) and isinstance(size, int | None) else None


def _digest(url: str) -> str:
    return hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()  # may hold a password


def _check_digest(part: Path, shown: str, kind: DigestKind, wanted: str) -> None:
    if (got := file_digest(part, kind)) != wanted:
        part.unlink()
        _mark(part).unlink(missing_ok=True)
        raise DownloadError(
            f"{shown}: its {kind.upper()} is {got}, expected {wanted}; it was deleted: try again, or get the "
            "file elsewhere if the server has another one now."
        )


def _name(url: str) -> str:
    """The name of the file at an address, made safe for a local file."""
    name = Path(urllib.request.url2pathname(re.split(r"[?#]", url)[0])).name
    return re.sub(r"[\x00-\x1f\x7f/]", "_", name)[-150:] or redact_url(url).replace("/", "_")[-150:]
