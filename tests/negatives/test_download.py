"""Fetching COCO's captions, from a server on this machine."""

import contextlib
import hashlib
import http.server
import io
import threading
import zipfile
from pathlib import Path

import pytest

from hypvl.errors import DataError
from hypvl.negatives.download import fetch_coco_captions

CAPTIONS = b'{"images": [], "annotations": []}' + b" " * 40_000


def archive(name: str = "annotations/captions_train2014.json", content: bytes = CAPTIONS) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as zipped:
        zipped.writestr(name, content)
    return out.getvalue()


class Answers(http.server.BaseHTTPRequestHandler):
    """Serves the server's ``content`` in parts; the first ``cut`` answers end early."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        body = self.server.content[first : last + 1]
        self.server.asked.append((first, last))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(self.server.content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if len(body) > 1 and self.server.cut:
            self.server.cut -= 1
            body = body[: len(body) // 2]
            self.close_connection = True
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.content, server.asked, server.cut = archive(), [], 0
        server.url = f"http://127.0.0.1:{server.server_port}/annotations_trainval2014.zip"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def test_fetches_once(server, tmp_path: Path) -> None:
    path = fetch_coco_captions(tmp_path, url=server.url)
    assert path == tmp_path / "annotations" / "captions_train2014.json"
    assert path.read_bytes() == CAPTIONS
    asked = len(server.asked)
    assert fetch_coco_captions(tmp_path, url=server.url) == path
    assert len(server.asked) == asked


def test_an_interrupted_download_goes_on(server, tmp_path: Path) -> None:
    server.cut = 1
    assert fetch_coco_captions(tmp_path, url=server.url).read_bytes() == CAPTIONS
    size = len(server.content)
    assert [part for part in server.asked if part != (0, 0)] == [(0, size - 1), (size // 2, size - 1)]


def test_checksum(server, tmp_path: Path) -> None:
    right = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(DataError, match=r"its SHA-256 is .* expected 0000"):
        fetch_coco_captions(tmp_path, url=server.url, sha256="0" * 64)
    assert not (tmp_path / "annotations").exists()
    assert fetch_coco_captions(tmp_path, url=server.url, sha256=right.upper()).exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive(name="annotations/other.json"), "has no annotations/captions_train2014.json"),
        (archive().replace(b'"images"', b'"imagex"'), "is damaged .*CRC"),
        (archive(content=b"{"), "is damaged"),
        (b"<html>not here</html>", "is damaged"),
    ],
)
def test_what_is_not_the_archive(server, tmp_path: Path, content: bytes, message: str) -> None:
    server.content = content
    with pytest.raises(DataError, match=message):
        fetch_coco_captions(tmp_path, url=server.url)
    assert not list((tmp_path / "annotations").glob("*")) if (tmp_path / "annotations").exists() else True


def test_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(DataError, match="check the address and the network"):
        fetch_coco_captions(tmp_path, url="http://127.0.0.1:9/a.zip")
