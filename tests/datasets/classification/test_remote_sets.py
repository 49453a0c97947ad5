"""Sets on a server: few requests, the index kept, the same samples in worker processes."""

import contextlib
import http.server
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from hypvl.datasets.classification.webdataset import WebDatasetSet
from hypvl.datasets.images import TarMembers
from hypvl.io.remote import RemoteFile
from tests.data.helpers import encode, jpeg, write_tar

SAMPLES = 100


class Server(http.server.ThreadingHTTPServer):
    folder: Path
    asked: list[str]


class Parts(http.server.BaseHTTPRequestHandler):
    """Serves files of a folder, in parts."""

    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.asked.append(self.path)
        path = self.server.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        body = content[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(body) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "served"
    (folder / "test").mkdir(parents=True)
    members = []
    for i in range(SAMPLES):
        members += [(f"{i:03d}.jpg", jpeg(i)), (f"{i:03d}.cls", str(i % 3).encode())]
    write_tar(folder / "test" / "0.tar", members)
    (folder / "test" / "nshards.txt").write_text("1\n")
    (folder / "classnames.txt").write_text("a\nb\nc\n")
    with Server(("127.0.0.1", 0), Parts) as made:
        made.folder, made.asked = folder, []
        threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield made
        made.shutdown()


def test_a_hundred_images_take_a_few_requests(server: Server) -> None:
    address = f"http://127.0.0.1:{server.server_port}"
    remote = WebDatasetSet(address)
    assert list(remote.labels) == [i % 3 for i in range(SAMPLES)]
    local = WebDatasetSet(server.folder)
    assert all(torch.equal(remote[i][0], local[i][0]) for i in range(SAMPLES))
    tar = server.asked.count("/test/0.tar")
    assert tar <= 5 and len(server.asked) <= 12  # one for each sample and member before
    assert not list(server.folder.rglob("*index"))  # the index of a remote TAR lies in the user's cache
    server.asked.clear()
    again = TarMembers([f"{address}/test/0.tar"])
    assert again.ids[99] == f"{address}/test/0.tar::099"
    assert len(server.asked) == 1  # is it still the same file?


def test_a_remote_set_travels_to_a_worker(server: Server) -> None:
    members = TarMembers([f"http://127.0.0.1:{server.server_port}/test/0.tar"])
    first = members[0]
    data = pickle.dumps(members)
    assert len(data) < 50_000  # nothing of what was read ahead
    assert torch.equal(pickle.loads(data)[0], first)


def test_ids_of_remote_images_hold_no_secret(server: Server) -> None:
    (server.folder / "x.tar").write_bytes((server.folder / "test" / "0.tar").read_bytes())
    place = f"http://me:SECRET@127.0.0.1:{server.server_port}/x.tar"
    assert TarMembers([place]).ids[0] == f"http://***@127.0.0.1:{server.server_port}/x.tar::000"
    assert RemoteFile(place).url == place


def test_transparency_is_white_there_too(server: Server) -> None:
    write_tar(server.folder / "x.tar", [("a.png", encode(Image.new("RGBA", (3, 2)), "PNG"))])
    assert (TarMembers([f"http://127.0.0.1:{server.server_port}/x.tar"])[0] == 255).all()
