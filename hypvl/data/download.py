"""Files from web servers: continued where they broke off, checked, never half there."""

import contextlib
import fcntl
import hashlib
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from loguru import logger

from hypvl.errors import DataError

_CHUNK = 1 << 20
_FIRST_ANSWER = 10.0  # seconds
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_GONE = (401, 403, 404, 410)
_NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, OSError)


class DownloadError(DataError):
    """A file could not be brought here: no network, a server that refuses, or other content than expected."""


def download(
    url: str,
    target: Path,
    *,
    md5: str | None = None,
    sha256: str | None = None,
    attempts: int = 5,
    backoff: float = 1.0,
    timeout: float = 30.0,
    progress: Callable[[int, int | None], None] | None = None,
) -> Path:
    """Bring a file here, once.

    What has arrived is kept in ``<target>.part`` and continued by a range request, also by a later run, as long as
    the server says that it is still the same file (``If-Range``). ``target`` appears when everything is there and
    the checksum agrees. One process at a time; others wait and find it.

    Args:
        url: http or https.
        target: The file to make; its folder is made too.
        md5: Hex digest the file must have; None = not looked at.
        sha256: Likewise.
        attempts: Failures in a row, none of which brought anything, before giving up; at most 2 where the server
            never answered.
        backoff: Seconds waited after the first of them, doubled after each.
        timeout: Seconds without an answer that count as a failure.
        progress: Called with (bytes there, bytes in all or None).

    Returns:
        ``target``.

    Raises:
        DownloadError: saying what the server answered, or which checksum came.
        DataError: when it cannot be written.
    """
    if not url.startswith(("http://", "https://")):
        raise DownloadError(f"{url}: expected an address that begins with http:// or https://.")
    with only_one(target):
        if not target.is_file():
            logger.info("downloading {} to {}", url, target)
            part = target.with_name(f"{target.name}.part")
            _fetch_all(url, part, attempts, backoff, timeout, progress)
            _check(part, url, {"md5": md5, "sha256": sha256})
            try:
                part.replace(target)
                _mark(part).unlink(missing_ok=True)
            except OSError as error:
                raise DataError(f"{target}: cannot be written ({error.strerror}); move it away.") from error
    return target


def _fetch_all(
    url: str,
    part: Path,
    attempts: int,
    backoff: float,
    timeout: float,
    progress: Callable[[int, int | None], None] | None,
) -> None:
    failures, answered = 0, False
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            # The first answer comes soon or not at all: whoever has no network should not wait.
            if _fetch(url, part, timeout if answered else min(timeout, _FIRST_ANSWER), progress):
                return
            answered = True
            error: Exception = http.client.IncompleteRead(b"")
        except urllib.error.HTTPError as refused:
            if refused.code not in _TRANSIENT:
                what = "the file is gone or not for everybody" if refused.code in _GONE else "it refuses"
                raise DownloadError(
                    f"{url}: the server answers {refused.code} ({refused.reason}), {what}; download the file "
                    f"yourself and put it at {part.with_suffix('')}."
                ) from refused
            answered, error = True, refused
        except _NETWORK_ERRORS as broken:
            error = broken
        after = part.stat().st_size if part.exists() else 0
        failures = 0 if after > before else failures + 1
        if failures >= (attempts if answered else min(attempts, 2)):
            reason = getattr(error, "reason", None) or error
            raise DownloadError(
                f"{url}: cannot be reached ({reason}; {failures} attempts without progress, {after} bytes kept in "
                f"{part.name}); check the network and run again, or put the file at {part.with_suffix('')}."
            ) from error
        if failures:
            time.sleep(backoff * 2 ** (failures - 1))


def _fetch(url: str, part: Path, timeout: float, progress: Callable[[int, int | None], None] | None) -> bool:
    """One request for what is not there yet; whether the file is whole now."""
    have = part.stat().st_size if part.exists() else 0
    known = _read_mark(part, url) if have else None
    headers = {"Accept-Encoding": "identity", "User-Agent": "hypvl"}
    if have and known is not None:
        headers |= {"Range": f"bytes={have}-", "If-Range": known["same"]}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and known is not None:  # nothing after what we have, or the file became shorter
            if known["size"] == have:
                return True
            part.unlink()
            return False
        raise
    with answer:
        begin = 0
        same = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if answer.status == 206 and known is not None and same not in (None, known["same"]):
            part.unlink()  # a part of another file, from a server that does not know If-Range
            return False
        if answer.status == 206:
            begin, size = _content_range(answer.headers.get("Content-Range"), url)
            if begin != have:
                raise DownloadError(
                    f"{url}: the server sends byte {begin} where {have} was asked for; delete {part} and try again."
                )
        else:
            length = answer.headers.get("Content-Length")
            size = int(length) if length is not None and length.isdigit() else None
        try:
            if same is not None and not same.startswith("W/"):
                _mark(part).write_text(json.dumps({"url": url, "same": same, "size": size}), "utf-8")
            else:
                _mark(part).unlink(missing_ok=True)  # nothing to recognise the file by: no continuing
            with part.open("r+b" if begin else "wb") as file:
                file.seek(begin)
                _copy(answer, file, begin, size, progress)
                file.truncate()
                there = file.tell()
        except OSError as error:  # those of the network end in _copy
            raise DataError(
                f"{part}: cannot be written ({error.strerror}); choose a folder with space."
            ) from error
    if size is None:
        return True  # the end of the connection is the end of the file; a checksum tells more
    return there == size


def _copy(
    answer: Any, file: BinaryIO, at: int, size: int | None, progress: Callable[[int, int | None], None] | None
) -> None:
    while True:
        try:
            chunk = answer.read1(_CHUNK) if hasattr(answer, "read1") else answer.read(_CHUNK)
        except (http.client.HTTPException, OSError):
            return  # what has come is kept; the caller sees that it is not all
        if not chunk:
            return
        file.write(chunk)
        at += len(chunk)
        if progress is not None:
            progress(at, size)


def _content_range(header: str | None, url: str) -> tuple[int, int | None]:
    """``"bytes 5-9/10"`` -> (5, 10)."""
    span, _, total = (header or "").removeprefix("bytes ").partition("/")
    begin = span.partition("-")[0]
    if not begin.isdigit():
        raise DownloadError(f"{url}: the server sends a part without saying which ({header!r}).")
    return int(begin), int(total) if total.isdigit() else None


def _mark(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_mark(part: Path, url: str) -> dict[str, Any] | None:
    try:
        content = json.loads(_mark(part).read_text("utf-8"))
    except (OSError, ValueError):
        return None  # then the download starts again
    fits = isinstance(content, dict) and content.get("url") == url and isinstance(content.get("same"), str)
    return content if fits else None


def _check(part: Path, url: str, expected: dict[str, str | None]) -> None:
    for kind, value in expected.items():
        if value is None:
            continue
        with part.open("rb") as file:
            got = hashlib.file_digest(file, kind).hexdigest()
        if got != value.lower():
            part.unlink()
            _mark(part).unlink(missing_ok=True)
            raise DownloadError(
                f"{url}: its {kind.upper()} is {got}, expected {value.lower()}; it was deleted: try again, or get the "
                "file elsewhere if the server has another one now."
            )


@contextlib.contextmanager
def only_one(target: Path) -> Iterator[None]:
    """Lets one process at a time work on a file; the others wait.

    Raises:
        DataError: when its folder cannot be written to.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = target.with_name(f".{target.name}.lock").open("w")
    except OSError as error:
        raise DataError(
            f"{target}: cannot be written ({error.strerror}); choose a folder you may write."
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
