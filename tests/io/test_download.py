"""Downloads from a server on this machine that breaks off, changes its mind and lies."""

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hypvl.errors import DataError
from hypvl.io.http import Patience
from hypvl.io.remote import DownloadError, download

CONTENT = bytes(range(256)) * 40  # 10,240 bytes


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; what it does wrong is set on the server."""

    def do_GET(self) -> None:
        state = self.server.state  # type: ignore[attr-defined]
        state["requests"].append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        if self.path == "/gone":
            self.send_error(404)
            return
        if state["busy"] > 0:
            state["busy"] -= 1
            self.send_error(503)
            return
        content, begin, status = state["content"], 0, 200
        span = self.headers.get("Range")
        same = self.headers.get("If-Range") == state["etag"] or state["blind"]
        if span and state["ranges"] and same:
            begin, status = int(span.removeprefix("bytes=").partition("-")[0]), 206
            if begin >= len(content):
                self.send_error(416)
                return
        self.send_response(status)
        if state["etag"]:
            self.send_header("ETag", state["etag"])
        if status == 206:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        part = content[begin:]
        if state["cuts"] > 0:  # break the connection after some bytes
            state["cuts"] -= 1
            part = part[:3000]
        self.wfile.write(part)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = {"content": CONTENT, "etag": '"one"', "ranges": True, "cuts": 0, "busy": 0, "blind": False}
    made.state = {**state, "requests": []}  # type: ignore[attr-defined]
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def url(server: http.server.ThreadingHTTPServer, path: str = "/file.bin") -> str:
    return f"http://127.0.0.1:{server.server_address[1]}{path}"


QUICK = Patience(timeout=5, backoff=0.001)
fetch = functools.partial(download, patience=QUICK)
MD5 = hashlib.md5(CONTENT).hexdigest()


def test_a_file_comes_once_with_its_checksum(server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    target = tmp_path / "new" / "file.bin"
    assert fetch(url(server), target, md5=MD5.upper(), progress=lambda *at: seen.append(at)) == target
    assert target.read_bytes() == CONTENT and seen[-1] == (10_240, 10_240)
    assert [p.name for p in target.parent.iterdir() if not p.name.startswith(".")] == ["file.bin"]
    fetch(url(server), target)
    assert len(server.state["requests"]) == 1


def test_a_broken_connection_is_continued(server, tmp_path: Path) -> None:
    server.state["cuts"] = 2
    # each answer brings something: no attempt is used up
    fetch(url(server), tmp_path / "a", md5=MD5, patience=replace(QUICK, attempts=1))
    asked = [span for _, span, _ in server.state["requests"]]
    assert asked == [None, "bytes=3000-10239", "bytes=6000-10239"]
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_later_run_continues(server, tmp_path: Path) -> None:
    server.state |= {"cuts": 1}
    part = tmp_path / "a.part"

    def stop(at: int, size: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(url(server), tmp_path / "a", progress=stop)
    assert not (tmp_path / "a").exists() and 0 < part.stat().st_size < len(CONTENT)
    fetch(url(server), tmp_path / "a", md5=MD5)
    assert server.state["requests"][-1][1] == "bytes=3000-10239" and not part.exists()


@pytest.mark.parametrize("blind", [False, True])  # True: the server does not know If-Range
def test_another_file_of_the_same_name_is_begun_again(server, tmp_path: Path, blind: bool) -> None:
    server.state["cuts"] = 1
    with pytest.raises(KeyboardInterrupt):
        fetch(url(server), tmp_path / "a", progress=lambda *at: (_ for _ in ()).throw(KeyboardInterrupt))
    server.state |= {"content": CONTENT[::-1], "etag": '"two"', "cuts": 0, "blind": blind}
    fetch(url(server), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("state", [{"ranges": False}, {"etag": None}])
def test_servers_that_cannot_continue_start_again(server, tmp_path: Path, state: dict[str, object]) -> None:
    server.state |= state | {"cuts": 2}
    fetch(url(server), tmp_path / "a", md5=MD5)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_server_that_is_busy_is_asked_again(server, tmp_path: Path) -> None:
    server.state["busy"] = 3
    fetch(url(server), tmp_path / "a", patience=replace(QUICK, attempts=4))
    server.state["busy"] = 4
    with pytest.raises(
        DownloadError, match=r"cannot be reached \(Service Unavailable; 4 attempts without progress"
    ):
        fetch(url(server), tmp_path / "b", patience=replace(QUICK, attempts=4))


def test_a_wrong_checksum_is_refused_and_nothing_stays(server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=f"its MD5 is {MD5}, expected {'0' * 32}; it was deleted"):
        fetch(url(server), tmp_path / "a", md5="0" * 32)
    assert [p.name for p in tmp_path.iterdir()] == [".a.lock"]


def test_a_folder_in_the_place_of_the_file(server, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(DataError, match=r"a: cannot be written .*; move it away"):
        fetch(url(server), tmp_path / "a")


def test_a_missing_file_is_an_error_with_advice(server, tmp_path: Path) -> None:
    with pytest.raises(
        DownloadError, match=r"answers 404 \(Not Found\).* download the file yourself and put it at .*a\.zip"
    ):
        fetch(url(server, "/gone"), tmp_path / "a.zip")
    assert len(server.state["requests"]) == 1


def test_no_network(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"cannot be reached .*2 attempts.*check the network"):
        fetch("http://127.0.0.1:9/x", tmp_path / "x", patience=replace(QUICK, attempts=2))
    with pytest.raises(DownloadError, match="begins with http"):
        fetch("file:///etc/passwd", tmp_path / "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        fetch("http://127.0.0.1:9/x", tmp_path / "file" / "x")
