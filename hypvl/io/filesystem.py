"""Files of object stores and the hub, through fsspec: read in parts, listed by a glob, or downloaded once.

Keys and logins are those that the package of the store finds by itself (environment, its own files): hypvl takes none
in a config, and shows none in messages.
"""

import hashlib
import http.client
import os
import re
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from loguru import logger

from hypvl.errors import DataError, UserError
from hypvl.io.http import TRANSIENT, RemoteError, request
from hypvl.io.redact import printable, redact_url
from hypvl.io.remote import PATIENCE, RemoteFile, UnwritableError, only_one

#: Schemes that are read, and the package that reads each; None = fsspec itself. Others of fsspec are not: some open
#: further files that a file names, or run programs.
PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub", "az": "adlfs", "abfs": "adlfs",
    "abfss": "adlfs", "oci": "ocifs", "oss": "ossfs", "hdfs": "pyarrow", "webhdfs": "requests", "sftp": "paramiko",
    "memory": None,
}  # fmt: skip
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://")
# What stores call a mark of the content or, where they have none, its date.
_MARKS = (
    "ETag",
    "etag",
    "md5Hash",
    "generation",
    "blob_id",
    "sha256",
    "LastModified",
    "last_modified",
    "mtime",
    "created",
)
_ATTEMPTS = 4
_BACKOFF = 0.5  # seconds before the second attempt, doubled after each
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError)

_T = TypeVar("_T")


def scheme_of(place: str) -> str | None:
    """The scheme of an address, such as ``s3``; None for a path.

    Example:
        >>> scheme_of("s3://bucket/a.tar"), scheme_of("/data/a.tar")
        ('s3', None)
    """
    match = _SCHEME.match(place)
    return None if match is None else match[1]


class StoredFile:
    """A file of an object store, readable in parts; every read opens its own request.

    Args:
        url: Such as ``s3://bucket/0000.tar``, of a scheme in ``PACKAGES``.

    Raises:
        DataError: for another scheme.
        UserError: when the package of the scheme is not installed; it names the pip command.
    """

    block = 1 << 20  # a request costs more than a megabyte

    def __init__(self, url: str) -> None:
        self.url = url
        self.place = redact_url(url)
        self.name = printable(self.place.partition("?")[0].rstrip("/").rpartition("/")[2], limit=150)
        self._info: dict[str, Any] | None = None
        self._opened: tuple[int, Any, str] | None = None
        self._open()

    def _open(self) -> tuple[Any, str]:
        """(file system, path in it) of this process: connections do not outlive a fork."""
        if self._opened is None or self._opened[0] != os.getpid():
            file_system, path = _file_system(self.url)
            self._opened = (os.getpid(), file_system, path)
        return self._opened[1:]

    def identity(self) -> dict[str, Any]:
        """Size, and the store's mark of the content, or its date."""
        info = self._asked()
        mark = next((str(info[name]) for name in _MARKS if info.get(name) is not None), None)
        return {"size": self.size(), "mark": mark}

    def size(self) -> int:
        """Bytes. Raises OSError when it is not there, RemoteError when the store cannot be asked."""
        size = self._asked().get("size")
        if not isinstance(size, int):
            raise RemoteError(f"{self.place}: the store does not say how long the file is.")
        return size

    def _asked(self) -> dict[str, Any]:
        if self._info is None:
            self._info = self.retry(lambda file_system, path: dict(file_system.info(path)))
        return self._info

    def read(self, offset: int, length: int) -> bytes:
        """That part; shorter at the end of the file. Raises as :meth:`size`."""
        end = min(offset + length, self.size())
        return self.read_part(offset, end) if end > offset else b""

    def read_part(self, start: int, end: int) -> bytes:
        """The bytes in [start, end), without asking for the size first; shorter at the end of the file."""
        return self.retry(lambda file_system, path: bytes(file_system.cat_file(path, start=start, end=end)))

    def download(self, folder: Path) -> Path:
        """The whole file in a folder, downloaded once. Returns its path."""
        mark = hashlib.sha256(repr((self.url, sorted(self.identity().items()))).encode()).hexdigest()[:16]
        target = folder / f"{mark}-{self.name}"
        with only_one(target):
            if not target.is_file():
                logger.info("downloading {} to {}", self.place, target)
                part = target.with_name(f"{target.name}.part")
                self.retry(lambda file_system, path: file_system.get_file(path, str(part)))
                if part.stat().st_size != self.size():
                    raise RemoteError(
                        f"{self.place}: {part.stat().st_size} of {self.size()} bytes came; start again."
                    )
                try:
                    part.replace(target)
                except OSError as error:
                    raise UnwritableError(target, error.strerror) from error
        return target

    def retry(self, action: Callable[[Any, str], _T]) -> _T:
        """``action(file system, path)``, tried again when it fails. Raises OSError or RemoteError."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return action(*self._open())
            except _FINAL as error:
                raise type(error)(f"{type(error).__name__}: {self.place}") from error
            except Exception as error:  # each package has its own
                if attempt == _ATTEMPTS:
                    raise RemoteError(
                        f"{self.place}: {printable(str(error) or type(error).__name__)} (after {attempt} attempts); "
                        "check the address, the login and the network."
                    ) from error
                time.sleep(_BACKOFF * 2 ** (attempt - 1))
        raise AssertionError("unreachable")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}


def glob_store(pattern: str) -> list[str]:
    """The addresses that match a glob such as ``s3://bucket/cc12m/*.tar``, by name. Raises as :class:`StoredFile`."""

    def listed(file_system: Any, path: str) -> list[str]:
        before = pattern.removesuffix(path) if pattern.endswith(path) else None  # scheme and host
        names = [str(name) for name in file_system.glob(path)]
        return [file_system.unstrip_protocol(name) if before is None else f"{before}{name}" for name in names]

    return sorted(StoredFile(pattern).retry(listed))


def remote_file(url: str, *, allow_http: bool = False) -> RemoteFile | StoredFile:
    """The file at a web address, or in an object store. Raises as :class:`RemoteFile` and :class:`StoredFile`."""
    return RemoteFile(url, allow_http=allow_http) if scheme_of(url) in ("http", "https") else StoredFile(url)


def read_below(root: str, name: str, *, max_bytes: int, allow_http: bool = False) -> bytes:
    """The content of a file below an address, such as an image of ``s3://bucket/images``.

    Raises:
        ValueError: when the name leads out of the root: it is an address or an absolute path, or has ``..`` in it.
        OSError: when there is no such file, or it has more than ``max_bytes``.
        RemoteError: when the store cannot be asked.
    """
    if scheme_of(name) is not None or name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"{printable(name)!r} is outside {redact_url(root)}")
    url = f"{root.rstrip('/')}/{name}"
    if scheme_of(url) in ("http", "https"):
        return _read_web(url, max_bytes=max_bytes, allow_http=allow_http)
    data = StoredFile(url).read_part(0, max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(f"more than {max_bytes} bytes")
    return data


def _read_web(url: str, *, max_bytes: int, allow_http: bool) -> bytes:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with request(url, patience=PATIENCE, allow_http=allow_http) as answer:
                if answer.length is not None and answer.length > max_bytes:
                    raise FileNotFoundError(f"more than {max_bytes} bytes")
                return b"".join(answer.chunks(max_bytes))
        except FileNotFoundError:
            raise
        except (OSError, http.client.HTTPException) as error:
            status = error.code if isinstance(error, urllib.error.HTTPError) else None
            if status is not None and status not in TRANSIENT:
                raise FileNotFoundError(f"the server answers {status}") from error
            if attempt == _ATTEMPTS:
                raise RemoteError(
                    f"{redact_url(url)}: {printable(str(error))} (after {attempt} attempts); check the network."
                ) from error
            time.sleep(_BACKOFF * 2 ** (attempt - 1))
    raise AssertionError("unreachable")


def _file_system(url: str) -> tuple[Any, str]:
    scheme = scheme_of(url)
    if scheme not in PACKAGES:
        raise DataError(
            f"{redact_url(url)}: has the scheme {scheme}; expected a path, or an address of http, https, "
            f"{', '.join(PACKAGES)}."
        )
    package = PACKAGES[scheme]
    try:
        from fsspec.core import url_to_fs

        file_system, path = url_to_fs(url)
    except ImportError as error:
        name = package or "fsspec"
        raise UserError(
            f"{redact_url(url)}: needs {name}, which is not installed: pip install {name}"
        ) from error
    except Exception as error:  # a login that is missing, an address that is none
        raise DataError(f"{redact_url(url)}: cannot be opened ({printable(str(error))}).") from error
    return file_system, str(path)
