"""Servers that lie, dawdle, never end or lead elsewhere: downloads, parts of shards, gathered images."""

import functools
import gzip
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from hypvl.data.gather.fetch import FetchOptions
from hypvl.data.gather.pair_list import ListOptions
from hypvl.data.gather.run import Plan, gather_pairs
from hypvl.data.gather.shard import ImageSettings
from hypvl.io.http import Patience
from hypvl.io.remote import RemoteFile, download
from tests.data.helpers import jpeg
from tests.fuzz.harness import Case, FuzzFailure, Outcome, Sandbox
from tests.fuzz.tars import plain_tar

QUICK = Patience(timeout=0.2, least_rate=1000.0, grace=0.3, seconds=1.5, attempts=2, backoff=0.01)
MOST = 200_000  # bytes that are taken

Header = tuple[str, str]


@functools.cache
def answers() -> dict[str, tuple[int, tuple[Header, ...], bytes | str]]:
    """Path -> status, headers, body: bytes, or what the server does instead."""
    image, tar = jpeg(0), plain_tar()[0]

    def length(body: bytes) -> Header:
        return "Content-Length", str(len(body))

    ok = {
        "image": image, "tar": tar, "html": b"<!DOCTYPE html><h1>Sign in", "empty": b"", "gzip": gzip.compress(image),
        "bomb": gzip.compress(bytes(50_000_000)), "zeros": bytes(150_000), "script": b"#!/bin/sh\ntouch written\n",
    }  # fmt: skip
    found: dict[str, tuple[int, tuple[Header, ...], bytes | str]] = {
        name: (200, (length(body),), body) for name, body in ok.items()
    }
    for name, value in {
        "longer": str(len(image) + 1000), "shorter": "10", "huge": str(1 << 62), "negative": "-5", "text": "many",
        "blank": "",
        "hex": "0x10", "plus": "+5", "letters": "٣", "list": "5, 6", "exponent": "1e9",
    }.items():  # fmt: skip
        found[f"length {name}"] = (200, (("Content-Length", value),), image)
    found["length twice"] = (200, (length(image), ("Content-Length", "5")), image)
    for place in (
        "file:///etc/passwd",
        "ftp://127.0.0.1/a",
        "/redirect",
        "gopher://x",
        "//",
        "",
        "http://[::1",
        "javascript:x",
        "data:,x",
        "http://example.invalid/a",
        "\x1b[31m",
        "pipe:touch written",
        "http://127.0.0.1:1/",
        "/image",
        "/" + "a" * 70_000,
    ):
        found[f"redirect {place[:30]!r}"] = (302, (("Location", place), ("Content-Length", "0")), b"")
    found["redirect"] = (302, (("Location", "/redirect"), ("Content-Length", "0")), b"")
    for status in (201, 204, 206, 301, 304, 400, 401, 403, 404, 410, 416, 418, 429, 500, 503, 599, 999):
        found[f"status {status}"] = (status, (length(image),), image)
    for encoding in ("gzip", "deflate", "br", "identity, gzip", "\x1b[31m"):
        found[f"encoding {encoding!r}"] = (
            200,
            (("Content-Encoding", encoding), length(ok["gzip"])),
            ok["gzip"],
        )
    for part in (
        "bytes 0-9/10",
        "bytes 5-1/10",
        "bytes 0-99999999999/5",
        "bytes */*",
        "bytes 0-0/*",
        "items 0-0/1",
        "",
        "bytes -1-0/1",
    ):
        found[f"range {part!r}"] = (206, (("Content-Range", part), length(image)), image)
    for behaviour in (
        "endless",
        "slow",
        "silent",
        "close",
        "chunked",
        "bad chunks",
        "endless chunks",
        "endless headers",
        "long header",
        "no status",
        "old http",
        "garbage",
    ):
        found[behaviour] = (200, (), behaviour)
    found["etag"] = (200, (("ETag", "x" * 100_000), length(image)), image)
    found["controls"] = (200, (("ETag", "\x1b[31m"), ("Last-Modified", "\x07"), length(image)), image)
    found["retry"] = (503, (("Retry-After", "9" * 50), ("Content-Length", "0")), b"")
    return found


class _Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        names = list(answers())
        with suppress(OSError, ValueError, IndexError):
            path = self.path.lstrip("/")
            name = names[int(path.partition(".")[0])] if path.partition(".")[0].isdigit() else path
            self._answer(*answers()[name if name in answers() else "image"])

    def _answer(self, status: int, headers: tuple[Header, ...], body: bytes | str) -> None:
        if isinstance(body, bytes):
            head = f"HTTP/1.1 {status} X\r\n" + "".join(f"{key}: {value}\r\n" for key, value in headers)
            self.wfile.write(head.encode("utf-8", "surrogateescape") + b"\r\n" + body)
            return
        self.close_connection = True
        start = b"HTTP/1.1 200 OK\r\n"
        if body == "endless":
            self._forever(start + b"\r\n", b"x" * 65_536, 0.0)
        elif body == "slow":
            self._forever(start + b"Content-Length: 1000000\r\n\r\n", b"x", 0.05)
        elif body == "silent":
            time.sleep(1.0)
        elif body == "chunked":
            self.wfile.write(start + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        elif body == "bad chunks":
            self.wfile.write(start + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\nzz\r\n")
        elif body == "endless chunks":
            self._forever(
                start + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65_536 + b"\r\n", 0.0
            )
        elif body == "endless headers":
            self._forever(start, b"X-Y: z\r\n" * 1000, 0.0)
        elif body == "long header":
            self._forever(start + b"X: ", b"y" * 65_536, 0.0)
        elif body == "no status":
            self.wfile.write(b"\r\n\r\n")
        elif body == "old http":
            self.wfile.write(b"HTTP/0.9 200\r\n\r\nhello")
        elif body == "garbage":
            self.wfile.write(bytes(range(256)) * 40)

    def _forever(self, start: bytes, part: bytes, pause: float) -> None:
        self.wfile.write(start)
        end = time.monotonic() + 3.0
        while time.monotonic() < end:
            self.wfile.write(part)
            time.sleep(pause)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _download(url: str, box: Sandbox) -> Outcome:
    target = box.out / "file"
    try:
        download(url, target, max_bytes=MOST, patience=QUICK)
    finally:
        files = [path for path in box.out.iterdir() if path.stat().st_size > MOST + (1 << 20)]
        if files:
            raise FuzzFailure(f"more than {MOST} bytes came: {files}")
    return Outcome(good=1)


def _parts(url: str, box: Sandbox) -> Outcome:
    file = RemoteFile(url, patience=QUICK)
    data = file.read(0, 4096)
    if len(data) > 4096:
        raise FuzzFailure(f"{len(data)} bytes for 4096")
    return Outcome(good=1)


def _gather(url: str, box: Sandbox) -> Outcome:
    listed = box.inputs / "pairs.tsv"
    listed.write_text(f"a cat\t{url}\n")
    options = FetchOptions(threads=1, per_host=1, timeout=0.2, attempts=1, max_bytes=MOST)
    summary = gather_pairs(Plan(ListOptions(listed), ImageSettings(size=40), options), box.out)
    if summary.written + sum(summary.reasons.values()) + len(summary.failed) < 1:
        raise FuzzFailure(f"the pair is not counted: {summary}")
    return Outcome(summary.written, sum(summary.reasons.values()))


READERS: dict[str, Callable[[str, Sandbox], Outcome]] = {
    "download": _download,
    "parts": _parts,
    "gather": _gather,
}


def _case(reader: str, number: int) -> Callable[[Sandbox], Outcome]:
    def run(box: Sandbox) -> Outcome:
        with serving() as address:
            return READERS[reader](f"{address}/{number}.jpg", box)

    return run


def server_cases() -> list[Case]:
    return [
        Case(f"server: {reader} {name}", _case(reader, number))
        for reader in READERS
        for number, name in enumerate(answers())
    ]
