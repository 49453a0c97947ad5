"""One request to a web server, with every bound and check that a response needs.

The standard library's client, because it follows the proxies of the environment and keeps no connection open that a
forked process would share; around it what it lacks: a deadline for headers and body together, bounded redirects,
answers compared with what was asked for, and the end of the stream distinguished from a broken connection.
"""

import base64
import contextlib
import functools
import http.client
import io
import ipaddress
import os
import re
import socket
import ssl
import time
import unicodedata
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from typing import Any, cast

from hypvl.checks import natural_number
from hypvl.errors import DataError
from hypvl.io.redact import printable, redact_url

#: Set to 1, it allows addresses of plain http for every command.
ALLOW_HTTP = "HYPVL_ALLOW_HTTP"
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_CHUNK = 1 << 20
_SPAN = re.compile(r"bytes (?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19}|\*)", re.ASCII)


class RemoteError(DataError):
    """A server refuses (``status``), or sends something else than was requested; trying again does not help."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class TooSlowError(TimeoutError):
    """A server sends too slowly."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server."""

    timeout: float = 30.0  # seconds without a byte
    least_rate: float = 1024.0  # bytes a second; less than that for ``grace`` seconds is too slow
    grace: float = 60.0
    seconds: float = 86_400.0  # all of one request at most; of a download, all of its requests
    attempts: int = 6  # failures in a row before giving up
    backoff: float = 0.5  # seconds waited after the first of them, doubled after each


@dataclass
class Answer:
    """A response of a server, its headers checked."""

    url: str  # redacted, for messages
    begin: int  # first byte of the file that the body holds
    length: int | None  # bytes of the body; None where the server does not say
    size: int | None  # bytes of the whole file; None likewise
    partial: bool  # whether it is the part that was requested
    # ETag, or else date, which identify the file; None where there is neither, or a weak ETag.
    same: str | None
    delimited: bool  # whether the end of the body can be distinguished from a broken connection
    headers: Message
    _body: Any

    def chunks(self, max_bytes: int) -> Iterator[bytes]:
        """The body, piece by piece; never more of it than its length, or ``max_bytes`` where that is not known.

        Raises:
            http.client.IncompleteRead: when the connection ends too early.
            RemoteError: when more comes than is allowed.
            OSError: of the network.
        """
        count = 0
        while self.length is None or count < self.length:
            chunk = self._body.read1(_CHUNK if self.length is None else min(_CHUNK, self.length - count))
            if not chunk:
                break
            count += len(chunk)
            if self.length is None and count > max_bytes:
                raise RemoteError(
                    f"{self.url}: the server sends more than the {max_bytes} bytes expected at most."
                )
            yield chunk
        if self.length is not None and count < self.length:
            raise http.client.IncompleteRead(b"", self.length - count)


@contextlib.contextmanager
def request(
    url: str,
    *,
    first: int | None = None,
    last: int | None = None,
    same: str | None = None,
    patience: Patience,
    allow_http: bool = False,
) -> Iterator[Answer]:
    """Ask for a file or a part of it.

    Args:
        url: https, or http where it is allowed; user and password in it are sent to this server only.
        first, last: Bytes wanted; None = the whole file, and to the end.
        same: Send the part only if the file is still this one (``If-Range``).
        patience: How long to wait.
        allow_http: Take plain http from other machines, too: see :func:`check_encrypted`.

    Raises:
        RemoteError: for a wrong address or a wrong response, and for plain http that is not allowed.
        urllib.error.HTTPError: when the server answers with an error.
        OSError: of the network. http.client.HTTPException: likewise.
    """
    shown = redact_url(url)
    check_encrypted(url, allow_http=allow_http)
    asked = urllib.request.Request(
        _plain(url, shown), headers={"Accept-Encoding": "identity", "User-Agent": "hypvl"}
    )
    if (secret := _authorization(url)) is not None:
        asked.add_unredirected_header("Authorization", secret)
    if first is not None:
        asked.add_header("Range", f"bytes={first}-{'' if last is None else last}")
        if same is not None:
            asked.add_header("If-Range", same)
    opener = urllib.request.build_opener(_Redirects(url, shown, allow_http=allow_http), _Handler(patience))
    try:
        body = opener.open(asked, timeout=patience.timeout)
    except (http.client.InvalidURL, UnicodeError, ValueError) as error:
        raise RemoteError(f"{shown}: is not an address ({printable(str(error))}).") from error
    with body:
        yield _checked(body, shown, first, last)


def check_encrypted(url: str, *, allow_http: bool = False) -> None:
    """RemoteError for an address of plain http, whose content anybody on the way can read and change.

    Allowed are those of this machine (``localhost``, 127.0.0.1), all of them with ``allow_http``, or with the
    environment variable ``HYPVL_ALLOW_HTTP=1``.
    """
    if not url.lower().startswith("http://") or allow_http or os.environ.get(ALLOW_HTTP) == "1":
        return
    with contextlib.suppress(ValueError):  # what is no address is refused where it is used
        if not urllib.parse.urlsplit(url).hostname or is_this_machine(url):
            return
        raise RemoteError(
            f"{redact_url(url)}: is an address of plain http, which anybody on the way can change; use https, or set "
            f"{ALLOW_HTTP}=1 if you trust the network."
        )


def is_this_machine(url: str) -> bool:
    """Whether an address is one of this machine, by what it says; no name is looked up.

    Example:
        >>> is_this_machine("http://127.0.0.1:80/a"), is_this_machine("http://127.0.0.1.example.org/a")
        (True, False)
        >>> is_this_machine("http://2130706433/a"), is_this_machine("http://[::ffff:127.0.0.1]/a")
        (True, True)
    """
    host, number = _host(url)
    if number is None:
        return host == "localhost" or host.endswith(".localhost")
    return number.is_loopback or number.is_unspecified  # the latter leads to the former


def is_link_local(url: str) -> bool:
    """Whether an address is one that only neighbours have: there, clouds hand out credentials."""
    _, number = _host(url)
    return number is not None and number.is_link_local


def _host(url: str) -> tuple[str, ipaddress.IPv4Address | ipaddress.IPv6Address | None]:
    """The host of an address, and its number where it says one, in any way that the system reads: 127.1, 0x7f000001."""
    try:
        host = unicodedata.normalize("NFKC", urllib.parse.urlsplit(url).hostname or "").rstrip(".")
    except ValueError:  # no address
        return "", None
    with contextlib.suppress(ValueError):
        number = ipaddress.ip_address(host)
        return host, getattr(number, "ipv4_mapped", None) or number
    with contextlib.suppress(OSError, ValueError):  # a null character, or none of ASCII
        return host, ipaddress.IPv4Address(socket.inet_aton(host))
    return host, None


def _plain(url: str, shown: str) -> str:
    """The address as it is requested: without a user, characters outside ASCII written as %xx."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError as error:
        raise RemoteError(f"{shown}: is not an address ({error}).") from error
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise RemoteError(f"{shown}: expected an address that begins with http:// or https://.")
    host = parts.netloc.rpartition("@")[2]
    path = urllib.parse.quote(parts.path, safe="%/:=&~+!$,;'@()*[]")
    query = urllib.parse.quote(parts.query, safe="%/:=&~+!$,;'@()*[]?")
    return urllib.parse.urlunsplit((parts.scheme, host, path, query, ""))


def _authorization(url: str) -> str | None:
    user, at, _ = urllib.parse.urlsplit(url).netloc.rpartition("@")
    return f"Basic {base64.b64encode(urllib.parse.unquote(user).encode()).decode()}" if at else None


def _checked(body: Any, shown: str, first: int | None, last: int | None) -> Answer:
    headers: Message = body.headers
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise RemoteError(
            f"{shown}: the server sends {printable(encoding)!r}, though it was asked for the plain file."
        )
    lengths = {text.strip() for text in headers.get_all("Content-Length", [])}
    chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
    if len(lengths) > 1 or any(natural_number(text, digits=19) is None for text in lengths):
        raise RemoteError(
            f"{shown}: the server says {printable(str(sorted(lengths)))} about the length of its answer."
        )
    length = int(lengths.pop()) if lengths and not chunked else None
    begin, size, partial = 0, length, False
    if body.status == 206 and first is not None:
        partial = True
        begin, end, size = content_range(headers.get("Content-Range"), shown)
        if begin != first or (last is not None and end > last):
            raise RemoteError(
                f"{shown}: the server sends bytes {begin} to {end} where {first} to "
                f"{'the end' if last is None else last} was asked for."
            )
        if length not in (None, end - begin + 1):
            raise RemoteError(f"{shown}: the server sends {length} bytes and calls them {begin} to {end}.")
        length = end - begin + 1
    elif body.status != 200:
        raise RemoteError(f"{shown}: the server answers {body.status}, which is not a file.", body.status)
    same = headers.get("ETag") or headers.get("Last-Modified")
    if same is not None and (same.startswith("W/") or len(same) > 1000 or not same.isprintable()):
        same = None
    return Answer(shown, begin, length, size, partial, same, chunked or length is not None, headers, body)


def content_range(header: str | None, shown: str) -> tuple[int, int, int | None]:
    """``"bytes 5-9/10"`` -> (5, 9, 10); the size is None where it says ``*``. Anything else is a RemoteError."""
    match = _SPAN.fullmatch((header or "").strip())
    if match is None or match[1] is None:
        raise RemoteError(
            f"{shown}: the server sends a part without saying which ({printable(repr(header))})."
        )
    begin, end, size = int(match[1]), int(match[2]), None if match[3] == "*" else int(match[3])
    if end < begin or (size is not None and end >= size):
        raise RemoteError(f"{shown}: the server sends a part that cannot be ({printable(repr(header))}).")
    return begin, end, size


def size_of_refused(error: urllib.error.HTTPError) -> int | None:
    """The size of a file that a server names when it refuses a part behind its end (416)."""
    match = _SPAN.fullmatch((error.headers.get("Content-Range") or "").strip())
    return int(match[3]) if match is not None and match[1] is None and match[3] != "*" else None


_certificates = functools.cache(ssl.create_default_context)  # reading them takes longer than a small answer


class _Pace:
    """Whether a connection is fast enough: each byte received extends the time limit."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        now = time.monotonic()
        self._end, self._slow = now + patience.seconds, now + patience.grace

    def left(self) -> float:
        """Seconds in which the next byte must arrive."""
        now = time.monotonic()
        if now >= self._end:
            raise TooSlowError(f"not finished after {self._patience.seconds:.0f} seconds")
        if now >= self._slow:
            raise TooSlowError(f"slower than {self._patience.least_rate:.0f} bytes a second")
        return min(self._patience.timeout, self._end - now, self._slow - now)

    def received(self, count: int) -> None:
        patience = self._patience
        self._slow = min(time.monotonic() + patience.grace, self._slow + count / patience.least_rate)


class _PacedReader(io.RawIOBase):
    """The bytes of a socket; raises where they come too slowly."""

    def __init__(self, raw: Any, sock: Any, pace: _Pace) -> None:
        self._raw, self._sock, self._pace = raw, sock, pace

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        self._sock.settimeout(max(self._pace.left(), 0.001))
        try:
            count = cast(int, self._raw.readinto(buffer))
        except TimeoutError:
            self._pace.left()  # says so if it was too slow all along
            raise
        self._pace.received(count)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, pace: _Pace, **settings: Any) -> None:
        super().__init__(sock, *args, **settings)
        self.fp: Any = io.BufferedReader(_PacedReader(self.fp.detach(), sock, pace))  # headers and body


class _Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens connections whose every byte must arrive in time."""

    def __init__(self, patience: Patience) -> None:
        super().__init__()
        self._patience = patience

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(functools.partial(self._connect, http.client.HTTPConnection), req)

    def https_open(self, req: urllib.request.Request) -> Any:
        connect = functools.partial(self._connect, http.client.HTTPSConnection)
        return self.do_open(connect, req, context=_certificates())

    def _connect(self, kind: Any, *args: Any, **settings: Any) -> Any:
        made = kind(*args, **settings)
        made.response_class = functools.partial(_Response, pace=_Pace(self._patience))
        return made


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to the web only, and does not read their bodies.

    From elsewhere none leads to plain http that is not allowed, or to a server of this machine.
    """

    def __init__(self, url: str, shown: str, *, allow_http: bool) -> None:
        self._shown, self._allow_http = shown, allow_http
        self._local = is_this_machine(url)

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        fp.close()
        return super().http_error_302(req, io.BytesIO(), code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.lower().startswith(("http://", "https://")):
            raise RemoteError(
                f"{self._shown}: the server leads to {printable(newurl, limit=100)}, which is not a web address."
            )
        if not self._local:
            if is_this_machine(newurl):
                raise RemoteError(f"{self._shown}: the server leads to this machine; expected a web address.")
            if is_link_local(newurl):
                raise RemoteError(
                    f"{self._shown}: the server leads to {printable(newurl, limit=100)}, which only neighbours of this "
                    "machine have; expected a web address."
                )
            check_encrypted(newurl, allow_http=self._allow_http)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
