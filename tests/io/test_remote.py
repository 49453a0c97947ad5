"""Servers on this machine that misbehave: what they send is bounded and compared with what was asked."""

import contextlib
import hashlib
import io
import os
import pickle
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loguru import logger

from hypvl.errors import DataError
from hypvl.io import remote as module
from hypvl.io.http import Patience, RemoteError
from hypvl.io.remote import DownloadError, RemoteFile, UnwritableError, download, only_one

CONTENT = bytes(range(256)) * 40  # 10,240 bytes
QUICK = Patience(timeout=5.0, least_rate=1000.0, grace=0.3, seconds=10.0, attempts=2, backoff=0.0)
ONCE = Patience(attempts=1)
Send = Callable[[socket.socket, str], None]


class Server:
    """Answers each connection by what ``send`` writes into it.

    Attributes:
        send: (connection, head of the request).
        asked: Heads of the requests so far.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.send: Send = lambda connection, head: None
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.url = f"http://{self.address}/a.tar"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head and not head.startswith(b"\x16"):  # the greeting of TLS
                head += connection.recv(4096)
            self.asked.append(head.decode("latin-1"))
            self.send(connection, self.asked[-1])

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def answer(status: str, *headers: str, body: bytes = b"") -> Send:
    head = "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1")
    return lambda connection, _: connection.sendall(head + body)


def part(head: str) -> tuple[int, int]:
    match = re.search(r"Range: bytes=(\d+)-(\d+)", head)
    assert match is not None
    return int(match[1]), int(match[2])


def honest(connection: socket.socket, head: str) -> None:
    """The part that was asked for."""
    first, last = part(head)
    body = CONTENT[first : last + 1]
    span = f"Content-Range: bytes {first}-{first + len(body) - 1}/{len(CONTENT)}"
    answer("206 Partial", span, f"Content-Length: {len(body)}", 'ETag: "1"', body=body)(connection, head)


def probed(server: Server, send: Send) -> RemoteFile:
    """A file whose first byte came as it should; what follows is sent by ``send``."""
    server.send = honest
    file = RemoteFile(server.url, patience=QUICK)
    assert file.size() == len(CONTENT) and file.accepts_ranges()
    server.send = send
    return file


def endless(connection: socket.socket, piece: bytes, pause: float = 0.0) -> None:
    while True:
        connection.sendall(piece)
        time.sleep(pause)


def test_a_part_without_a_length_is_as_long_as_it_was_asked_for(server: Server) -> None:
    def send(connection: socket.socket, head: str) -> None:
        answer("206 Partial", f"Content-Range: bytes 10-29/{len(CONTENT)}", body=CONTENT[10:30])(
            connection, head
        )
        endless(connection, b"x" * 65536)

    assert probed(server, send).read(10, 20) == CONTENT[10:30]


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        (["Content-Length: 20"], "without saying which"),
        (["Content-Range: bytes 11-30/10240"], "sends bytes 11 to 30 where 10 to 29 was asked for"),
        (["Content-Range: bytes 10-30/10240"], "sends bytes 10 to 30 where 10 to 29"),
        (["Content-Range: bytes 29-10/10240"], "a part that cannot be"),
        (["Content-Range: bytes 10-29/29"], "a part that cannot be"),
        (["Content-Range: bytes 10-29/10241"], "has changed while it was in use"),
        (["Content-Range: bytes 10-29/10240", 'ETag: "2"'], "has changed while it was in use"),
        (["Content-Range: bytes \xb2-29/10240"], "without saying which"),
        (["Content-Range: bytes 10-29/10240", "Content-Length: 19"], "sends 19 bytes and calls them 10 to 29"),
        (["Content-Range: bytes 10-29/10240", "Content-Length: \xb2"], "about the length of its answer"),
        (["Content-Range: bytes 10-29/10240", "Content-Length: 20", "Content-Length: 21"], "about the length"),
        (["Content-Range: bytes 10-29/10240", "Content-Encoding: gzip"], "sends 'gzip'"),
    ],
)  # fmt: skip
def test_a_part_that_is_not_the_one_asked_for(server: Server, headers: list[str], words: str) -> None:
    file = probed(server, answer("206 Partial", *headers, body=CONTENT[10:30]))
    with pytest.raises(RemoteError, match=words):
        file.read(10, 20)
    assert len(server.asked) == 2  # trying again does not help


def test_a_part_that_is_cut_is_asked_for_again(server: Server) -> None:
    def send(connection: socket.socket, head: str) -> None:
        first, last = part(head)
        cut = len(server.asked) == 2
        span = f"Content-Range: bytes {first}-{last}/{len(CONTENT)}"
        answer("206 Partial", span, body=CONTENT[first : last if cut else last + 1])(connection, head)

    assert probed(server, send).read(10, 20) == CONTENT[10:30]
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        ("206 Partial", ["Content-Range: bytes 0-0/0", "Content-Length: 0"], "a part that cannot be"),
        ("206 Partial", ["Content-Length: 0"], "without saying which"),
        ("206 Partial", ["Content-Range: bytes 0-0/*"], "does not say how long the file is"),
        ("200 OK", [], "does not say how long the file is"),
        ("204 No Content", [], "answers 204, which is not a file"),
        ("404 Not Found", ["Content-Length: 0"], "404"),
    ],
)
def test_a_missing_size_is_an_error(server: Server, status: str, headers: list[str], words: str) -> None:
    server.send = answer(status, *headers)
    with pytest.raises(RemoteError, match=words):
        RemoteFile(server.url, patience=ONCE).size()


def test_an_empty_file_is_one(server: Server) -> None:
    server.send = answer("416 No", "Content-Range: bytes */0", "Content-Length: 0")
    file = RemoteFile(server.url, patience=ONCE)
    assert file.size() == 0 and file.read(0, 10) == b""


def trickle_head(connection: socket.socket, head: str) -> None:
    connection.sendall(b"HTTP/1.1 206 Partial\r\n")
    endless(connection, b"x", 0.02)


def trickle_body(connection: socket.socket, head: str) -> None:
    answer("206 Partial", f"Content-Range: bytes 0-9999/{len(CONTENT)}", 'ETag: "1"')(connection, head)
    endless(connection, b"x", 0.02)


@pytest.mark.parametrize("send", [trickle_head, trickle_body])
def test_a_byte_at_a_time_is_too_slow(server: Server, send: Send, tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(RemoteError, match=r"slower than 1000 bytes a second \(after 2 attempts\)"):
        probed(server, send).read(0, 10_000)
    with pytest.raises(DownloadError, match=r"slower than 1000 bytes a second; 2 attempts without progress"):
        server.send = send if send is trickle_head else trickle_whole
        download(server.url, tmp_path / "a", patience=QUICK)
    assert time.monotonic() - begin < 20  # four times 0.3 seconds, on a busy machine
    assert not (tmp_path / "a").exists()


def trickle_whole(connection: socket.socket, head: str) -> None:
    answer("200 OK", f"Content-Length: {len(CONTENT)}", 'ETag: "1"')(connection, head)
    endless(connection, b"x", 0.02)


def test_all_of_a_download_has_a_limit_too(server: Server, tmp_path: Path) -> None:
    def fast_enough(connection: socket.socket, head: str) -> None:
        answer("200 OK", "Content-Length: 1000000000", 'ETag: "1"')(connection, head)
        endless(connection, b"x" * 100, 0.01)

    server.send = fast_enough
    patience = Patience(timeout=5.0, least_rate=10.0, grace=5.0, seconds=0.5)
    with pytest.raises(DownloadError, match="not finished after 0 seconds"):
        download(server.url, tmp_path / "a", patience=patience)
    assert 0 < (tmp_path / "a.part").stat().st_size < 1_000_000  # a later run goes on from there


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> Send:
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return answer("200 OK", "Transfer-Encoding: chunked", body=body + end)


def test_a_stream_of_chunks_is_whole_when_it_ends_as_it_should(server: Server, tmp_path: Path) -> None:
    server.send = chunked(CONTENT[:5], CONTENT[5:])
    assert download(server.url, tmp_path / "a").read_bytes() == CONTENT
    for cut in (chunked(CONTENT[:5], end=b""), chunked(CONTENT[:5], end=b"8\r\nxy"), chunked(end=b"")):
        server.send = cut
        with pytest.raises(DownloadError, match="attempts without progress"):
            download(server.url, tmp_path / "b", patience=Patience(attempts=2, backoff=0.0))
        assert not (tmp_path / "b").exists()


def test_a_body_that_ends_with_the_connection_needs_a_checksum(server: Server, tmp_path: Path) -> None:
    server.send = answer("200 OK", body=CONTENT)
    with pytest.raises(DownloadError, match="neither how long the file is nor where it ends"):
        download(server.url, tmp_path / "a")
    assert download(server.url, tmp_path / "a", md5=hashlib.md5(CONTENT).hexdigest()).read_bytes() == CONTENT


def test_an_endless_body_is_stopped(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def send(connection: socket.socket, head: str) -> None:
        chunked(end=b"")(connection, head)
        endless(connection, b"1000\r\n" + b"x" * 4096 + b"\r\n")

    server.send = send
    with pytest.raises(DownloadError, match="sends more than the 100000 bytes expected at most"):
        download(server.url, tmp_path / "a", max_bytes=100_000)
    assert (tmp_path / "a.part").stat().st_size <= 100_000
    monkeypatch.setattr(module, "MAX_UNANNOUNCED", 50_000)
    with pytest.raises(DownloadError, match="sends more than the 50000 bytes"):
        download(server.url, tmp_path / "a")


def test_what_is_too_large_is_refused_before_anything_is_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.send = answer("200 OK", f"Content-Length: {1 << 60}")
    with pytest.raises(DownloadError, match=f"has {1 << 60} bytes, more than the {1 << 40} expected at most"):
        download(server.url, tmp_path / "a")
    server.send = answer("200 OK", f"Content-Length: {1 << 39}")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: shutil_usage(free=1000))
    with pytest.raises(UnwritableError, match=r"a.part: cannot be written \(1000 bytes are free, and http"):
        download(server.url, tmp_path / "a")
    assert [p.name for p in tmp_path.iterdir()] == [".a.lock"]


class shutil_usage:  # noqa: N801 (what shutil.disk_usage returns)
    def __init__(self, free: int) -> None:
        self.free = free


def test_an_empty_part_is_no_file(server: Server, tmp_path: Path) -> None:
    server.send = answer("206 Partial", "Content-Range: bytes 0-0/1", "Content-Length: 0")
    with pytest.raises(DownloadError, match="answers 206, which is not a file"):
        download(server.url, tmp_path / "a")
    with pytest.raises(DataError, match="sends 0 bytes and calls them 0 to 0"):
        RemoteFile(server.url, patience=ONCE).download(tmp_path)
    assert not [p for p in tmp_path.iterdir() if not p.name.startswith(".")]


FULL = """
import resource, sys
from pathlib import Path
from hypvl.errors import DataError
from hypvl.io.remote import download
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    download(sys.argv[1], Path(sys.argv[2]))
except DataError as error:
    print(error)
"""


def test_a_disk_that_fills_up_is_one_sentence(server: Server, tmp_path: Path) -> None:
    server.send = answer("200 OK", f"Content-Length: {len(CONTENT)}", body=CONTENT)
    arguments = [sys.executable, "-c", FULL, server.url, str(tmp_path / "a")]
    done = subprocess.run(
        arguments, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": "."}
    )
    assert done.stdout.strip() == (
        f"{tmp_path}/a.part: cannot be written (File too large); choose a folder with space that you may write."
    )


def test_links_in_a_shared_folder_are_not_followed(server: Server, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(CONTENT[:100])
    shared = tmp_path / "shared"
    shared.mkdir()
    server.send = answer("200 OK", f"Content-Length: {len(CONTENT)}", 'ETag: "1"', body=CONTENT)
    (shared / "a.part").symlink_to(victim)
    (shared / "a.part.json").symlink_to(victim)
    assert download(server.url, shared / "a").read_bytes() == CONTENT
    os.link(victim, shared / "b.part")
    assert download(server.url, shared / "b").read_bytes() == CONTENT
    (shared / ".c.lock").symlink_to(victim)
    with pytest.raises(UnwritableError, match=r"c: cannot be written \(Too many levels of symbolic links\)"):
        download(server.url, shared / "c")
    with pytest.raises(UnwritableError, match="cannot be written"), only_one(victim / "x"):
        pass
    assert victim.read_bytes() == CONTENT[:100]


def test_redirections_lead_to_the_web_only_and_carry_no_secrets(server: Server, tmp_path: Path) -> None:
    for place in ("file:///etc/passwd", "ftp://127.0.0.1/x"):
        server.send = answer("302 Found", f"Location: {place}", "Content-Length: 0")
        with pytest.raises(DataError, match=r"which is not a web address|is not allowed"):
            download(server.url, tmp_path / "a")
    server.send = answer("302 Found", f"Location: {server.url}", "Content-Length: 0")
    with pytest.raises(DownloadError, match="302"):
        download(server.url, tmp_path / "a", patience=ONCE)

    def elsewhere(connection: socket.socket, head: str) -> None:
        if head.startswith("GET /from"):
            place = f"Location: http://localhost:{server.address.rpartition(':')[2]}/to"
            answer("302 Found", place)(connection, head)
            endless(connection, b"x" * 65536)  # nobody reads what a redirection itself holds
        else:
            answer("200 OK", f"Content-Length: {len(CONTENT)}", body=CONTENT)(connection, head)

    server.send, server.asked = elsewhere, []
    download(f"http://me:p%20w@{server.address}/from", tmp_path / "b")
    assert "Authorization: Basic bWU6cCB3" in server.asked[0] and "Authorization" not in server.asked[1]


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "http://", "http://h\x00st/", "http://[::1", "http://h:port/x"]
)
def test_addresses_that_are_none(url: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="address"):
        download(url, tmp_path / "a")


def test_signs_outside_of_ascii_are_asked_for_as_percent(server: Server, tmp_path: Path) -> None:
    server.send = answer("200 OK", f"Content-Length: {len(CONTENT)}", body=CONTENT)
    download(f"http://{server.address}/bär ist/%20x?q=ü", tmp_path / "a")
    assert server.asked[0].startswith("GET /b%C3%A4r%20ist/%20x?q=%C3%BC HTTP/1.1")


def test_secrets_of_addresses_are_neither_shown_nor_kept(server: Server, tmp_path: Path) -> None:
    shown = io.StringIO()
    sink = logger.add(shown, format="{message}")
    url = f"http://me:SECRET@{server.address}/a.tar?X-Amz-Signature=SECRET&token=SECRET&part=1"
    server.send = answer("200 OK", f"Content-Length: {len(CONTENT)}", 'ETag: "1"', body=CONTENT[:100])
    messages = []
    for action in (
        lambda: download(url, tmp_path / "a", patience=ONCE),
        lambda: RemoteFile(url).read(0, 5),
        lambda: RemoteFile(url.replace(server.address, "127.0.0.1:9"), patience=ONCE).size(),
    ):
        with pytest.raises(DataError) as caught:
            action()
        messages.append(str(caught.value))
    logger.remove(sink)
    kept = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert "SECRET" not in shown.getvalue() + "".join(messages) + RemoteFile(url).place
    assert b"SECRET" not in kept and (tmp_path / "a.part.json").exists()
    assert all("***@" in message and "&part=1" in message for message in messages)
    assert "SECRET" in server.asked[0]


def test_what_a_server_says_reaches_no_screen_raw(server: Server, tmp_path: Path) -> None:
    server.send = answer("403 \x1b]0;owned\x07", "Content-Length: 0")
    for action in (lambda: download(server.url, tmp_path / "a"), lambda: RemoteFile(server.url).size()):
        with pytest.raises(DataError, match="403") as caught:
            action()
        assert "\x1b" not in str(caught.value)


def test_a_server_without_a_certificate_is_no_https_server(server: Server, tmp_path: Path) -> None:
    server.send = answer("200 OK", f"Content-Length: {len(CONTENT)}", body=CONTENT)
    with pytest.raises(DownloadError, match=r"cannot be reached \(.*SSL"):
        download(server.url.replace("http:", "https:"), tmp_path / "a", patience=ONCE)


def test_names_of_files_are_names(server: Server) -> None:
    names = {
        "/a/b.tar?x=/c#d": "b.tar",
        "/a%2F..%2Fb%00%1b.tar": "b__.tar",
        "/" + "x" * 300 + ".tar": "x" * 146 + ".tar",
        "/": server.address.replace("/", "_"),
    }
    for path, name in names.items():
        assert RemoteFile(f"http://{server.address}{path}").name.endswith(name)
        assert "/" not in RemoteFile(f"http://{server.address}{path}").name
    assert pickle.loads(pickle.dumps(RemoteFile(server.url))).url == server.url
