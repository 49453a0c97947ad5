import contextlib
import http.server
import pickle
import threading

import pytest
from loguru import logger

from hypvl.data.storage import FileHandles, LocalFile, open_source, user_cache
from hypvl.errors import DataError
from hypvl.io.http import Patience
from hypvl.io.remote import RemoteFile

CONTENT = bytes(range(256)) * 40


class Answers(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; the server's ``ranges`` and ``faults`` say how well."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.requests.append(self.headers.get("Range"))
        if self.server.faults:
            fault = self.server.faults.pop(0)
            if fault == "drop":
                self.send_response(206)
                span = self.headers["Range"].removeprefix("bytes=")
                self.send_header("Content-Range", f"bytes {span}/{len(CONTENT)}")
                self.end_headers()
                self.wfile.write(b"x")
                self.close_connection = True
            else:
                self.send_error(fault)
            return
        body, status = CONTENT, 200
        wanted = self.headers.get("Range")
        if self.server.ranges and wanted:
            first, last = map(int, wanted.removeprefix("bytes=").split("-"))
            body, status = CONTENT[first : last + 1], 206
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{first + len(body) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", self.server.etag)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # a probe does not read a whole file
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.ranges, server.faults, server.requests, server.etag = True, [], [], '"1"'
        server.url = f"http://127.0.0.1:{server.server_port}/a%20b/s.tar?key=1"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hypvl"


def test_handles_read_any_place_and_stay_few(tmp_path):
    handles = FileHandles(limit=2)
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode() * 10)
    for _ in range(2):
        for name in "abc":
            assert handles.read(tmp_path / name, 8, 10) == name.encode() * 2
    assert len(handles._open) == 2
    assert handles.read(tmp_path / "c", 50, 5) == b""
    assert pickle.loads(pickle.dumps(handles)).read(tmp_path / "a", 0, 1) == b"a"


def test_identity_changes_with_the_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1")
    source = LocalFile(path, FileHandles())
    before = source.identity()
    path.write_bytes(b"12")
    assert source.identity() != before and source.size() == 2


def test_ranges_are_read_without_the_rest(server):
    source = open_source(server.url, FileHandles())
    assert isinstance(source, RemoteFile) and source.name == "s.tar"
    assert source.size() == len(CONTENT)
    assert source.read(1000, 20) == CONTENT[1000:1020]
    assert source.read(len(CONTENT) - 3, 20) == CONTENT[-3:]
    assert source.read(len(CONTENT) + 3, 20) == b""
    assert server.requests == ["bytes=0-0", "bytes=1000-1019", f"bytes={len(CONTENT) - 3}-{len(CONTENT) - 1}"]


def test_transient_faults_are_tried_again(server):
    source = RemoteFile(server.url, patience=Patience(backoff=0.0))
    server.faults = [503, 429]
    assert source.size() == len(CONTENT)
    server.faults = ["drop", 500]
    assert source.read(10, 4) == CONTENT[10:14]


def test_lasting_faults_are_named(server):
    server.faults = [404]
    with pytest.raises(DataError, match=r"s\.tar\?key=1: HTTP Error 404.*after 1 attempts"):
        RemoteFile(server.url, patience=Patience(backoff=0.0)).size()
    server.faults = [503] * 3
    with pytest.raises(DataError, match=r"503.*after 3 attempts.*check the address"):
        RemoteFile(server.url, patience=Patience(backoff=0.0, attempts=3)).size()
    with pytest.raises(DataError, match="after 2 attempts"):
        RemoteFile("http://127.0.0.1:9/x.tar", patience=Patience(backoff=0.0, attempts=2)).size()


def test_download_into_a_cache_folder_happens_once(server, tmp_path):
    folder = tmp_path / "shards"
    source = open_source(server.url, FileHandles(), cache_dir=folder)
    assert isinstance(source, LocalFile) and source.name == "s.tar"
    assert source.read(0, len(CONTENT)) == CONTENT
    requests = len(server.requests)
    assert open_source(server.url, FileHandles(), cache_dir=folder).place == source.place
    assert server.requests[requests:] == ["bytes=0-0"]  # asks only whether it has changed
    server.etag = '"2"'
    assert open_source(server.url, FileHandles(), cache_dir=folder).place != source.place


def test_a_download_continues_where_it_stopped(server, tmp_path):
    source = RemoteFile(server.url, patience=Patience(backoff=0.0))
    target = source.download(tmp_path)
    target.rename(target.with_name(target.name + ".part"))
    part = target.with_name(target.name + ".part")
    part.write_bytes(CONTENT[:4000])
    server.requests.clear()
    assert source.download(tmp_path).read_bytes() == CONTENT
    assert server.requests == [f"bytes=4000-{len(CONTENT) - 1}"]
    assert not part.exists()


def test_a_server_without_ranges_is_downloaded_and_says_so(server, cache):
    server.ranges = False
    messages: list[str] = []
    sink = logger.add(messages.append, level="WARNING", format="{message}")
    source = open_source(server.url, FileHandles())
    logger.remove(sink)
    assert source.read(5000, 10) == CONTENT[5000:5010]
    assert "no range requests there; downloading" in messages[0] and str(cache / "shards") in messages[0]
    with pytest.raises(DataError, match=r"whole file instead of a part; set dataset.cache_dir"):
        RemoteFile(server.url).read(5, 5)


def test_a_pipe_must_be_allowed(tmp_path):
    mark = tmp_path / "ran"
    with pytest.raises(DataError, match=r"pipe:touch.*allow_pipe=true"):
        open_source(f"pipe:touch {mark}", FileHandles())
    assert not mark.exists()


def test_a_pipe_runs_once_and_its_output_is_kept(tmp_path, cache):
    messages: list[str] = []
    sink = logger.add(messages.append, level="WARNING", format="{message}")
    command = f"pipe:echo x >> {tmp_path}/runs; printf hello"
    for _ in range(2):
        source = open_source(command, FileHandles(), allow_pipe=True)
        assert source.read(1, 3) == b"ell"
    logger.remove(sink)
    assert (tmp_path / "runs").read_text() == "x\n"
    assert len(messages) == 1 and "resumes exactly only as long as" in messages[0]
    with pytest.raises(DataError, match=r"ended with status 3 \(oh no\)"):
        open_source("pipe:echo oh no >&2; exit 3", FileHandles(), allow_pipe=True)


def test_other_schemes_are_refused():
    with pytest.raises(
        DataError, match=r"ftp://host/a.tar: has the scheme ftp; expected a path, or an address"
    ):
        open_source("ftp://host/a.tar", FileHandles())


def test_a_cache_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write .*file/sub.*set dataset.cache_dir"):
        open_source(server.url, FileHandles(), cache_dir=tmp_path / "file" / "sub")


def test_the_user_cache_follows_the_environment(tmp_path, monkeypatch):
    assert user_cache() == tmp_path / "cache" / "hypvl"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(user_cache()) == "/home/someone/.cache/hypvl"

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("hypvl.data.storage.Path.home", homeless)
    with pytest.raises(DataError, match=r"no cache folder.*set XDG_CACHE_HOME"):
        user_cache()
