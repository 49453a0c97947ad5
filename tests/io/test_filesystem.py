"""Object stores through fsspec: ``memory:`` stands for all of them."""

import http.server
import pickle
import sys
import threading

import fsspec
import numpy as np
import pytest

from hypvl.data.mappers import GenericMapper
from hypvl.data.sample import BadSample
from hypvl.data.shards import ImageTextShards, expand_shards
from hypvl.data.storage import FileHandles, LocalFile, open_source
from hypvl.data.stream import Reader, WebDatasetStream
from hypvl.data.table import ImageTextTable
from hypvl.data.transforms import RandomResizedCrop
from hypvl.errors import DataError, UserError
from hypvl.io import filesystem as module
from hypvl.io.filesystem import PACKAGES, StoredFile, read_below
from hypvl.io.http import RemoteError
from tests.data.helpers import Letters, jpeg, text_of, write_tar
from tests.data.test_loader import sequence
from tests.data.test_mix import members


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A bucket with two shards and a table with images; and a cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_BACKOFF", 0.0)
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    for name, seeds in (("a.tar", range(5)), ("b.tar", range(5, 9))):
        memory.pipe_file(f"/bucket/{name}", write_tar(tmp_path / name, members("m", seeds)).read_bytes())
    memory.pipe_file(
        "/bucket/pairs.csv", b"filepath,title\nimages/0.jpg,a dog\nimages/9.jpg,gone\n../x.jpg,out\n"
    )
    memory.pipe_file("/bucket/images/0.jpg", jpeg(0))
    yield memory
    memory.store.clear()


def shards(places, **options):
    return ImageTextShards(
        places, GenericMapper(), RandomResizedCrop(8), Letters(), shuffle_window=4, **options
    )


def test_shards_are_read_in_parts_and_like_files(store, tmp_path, monkeypatch):
    asked = []
    whole = type(store).cat_file

    def cat_file(self, path, start=None, end=None, **kwargs):
        asked.append((start, end))
        return whole(self, path, start=start, end=end, **kwargs)

    monkeypatch.setattr(type(store), "cat_file", cat_file)
    stored = shards("memory://bucket/*.tar")
    expected = sequence(shards([str(tmp_path / "a.tar"), str(tmp_path / "b.tar")]), 3)
    assert sequence(stored, 3) == expected
    assert all(start is not None and end is not None for start, end in asked)
    again = shards("memory://bucket/{a,b}.tar")
    asked.clear()
    assert len(again) == 9 and not asked  # the indexes are kept
    assert again.fingerprint == stored.fingerprint
    store.pipe_file("/bucket/a.tar", (tmp_path / "b.tar").read_bytes())
    assert len(shards("memory://bucket/*.tar")) == 8  # another file, another index


def test_shards_are_downloaded_once_into_a_cache(store, tmp_path):
    cached = shards("memory://bucket/*.tar", cache_dir=tmp_path / "here")
    assert len(cached) == 9
    assert sorted(path.name[17:] for path in (tmp_path / "here").glob("*.tar")) == ["a.tar", "b.tar"]
    source = open_source("memory://bucket/a.tar", FileHandles(), cache_dir=tmp_path / "here")
    assert isinstance(source, LocalFile) and source.name == "a.tar"


def test_streams_read_stores(store):
    stream = WebDatasetStream(
        "memory://bucket/*.tar",
        GenericMapper(),
        RandomResizedCrop(8),
        Letters(),
        samples_per_epoch=9,
        shuffle_window=1,
    )
    items = stream.read_stream(0, Reader(0, 1), 0)
    assert {next(items).sample["key"] for _ in range(9)} == {
        f"{'a' if i < 5 else 'b'}.tar/{i:04d}" for i in range(9)
    }


def check_table(table):
    generator = np.random.default_rng(0)
    assert text_of(table.sample(0, generator)["text"]) == "a dog"
    with pytest.raises(BadSample, match=r"pairs\.csv/row 1: cannot read images/9\.jpg"):
        table.sample(1, generator)
    with pytest.raises(BadSample, match=r"'\.\./x\.jpg' is outside"):
        table.sample(2, generator)


def test_tables_and_their_images(store):
    check_table(
        ImageTextTable("memory://bucket/pairs.csv", image_transform=RandomResizedCrop(8), tokenizer=Letters())
    )


def test_tables_and_their_images_on_a_web_server(store, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/0.jpg").write_bytes(jpeg(0))
    (tmp_path / "pairs.csv").write_bytes(store.cat_file("/bucket/pairs.csv"))

    class Files(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/pairs.csv"
        check_table(ImageTextTable(url, image_transform=RandomResizedCrop(8), tokenizer=Letters()))
        server.shutdown()


def test_a_file_goes_to_another_process_without_its_connection(store):
    file = StoredFile("memory://bucket/a.tar")
    other = pickle.loads(pickle.dumps(file))
    assert other.read(0, 10) == file.read(0, 10)
    assert other.identity() == file.identity()
    assert file.read(file.size() - 3, 100) == file.read(file.size() - 3, 3)


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(
        UserError, match=r"^s3://bucket/a\.tar: needs s3fs, which is not installed: pip install s3fs$"
    ):
        StoredFile("s3://bucket/a.tar")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "reference://x", "zip://a", "github://a:b@c"])
def test_other_schemes_are_refused(url):
    with pytest.raises(DataError, match="expected a path, or an address of http, https, s3"):
        StoredFile(url)
    assert url.partition(":")[0] not in PACKAGES


def test_what_fails_is_tried_again_and_shows_no_secret(store, monkeypatch):
    file = StoredFile("memory://bucket/a.tar")
    times = []

    def info(self, path, **kwargs):
        times.append(path)
        raise RuntimeError(
            "refused: https://h/x?X-Amz-Signature=abc AKIAABCDEFGHIJKLMNOP https://me:pw@host/x?token=abc"
        )

    monkeypatch.setattr(type(store), "info", info)
    with pytest.raises(RemoteError, match=r"after 4 attempts\); check the address, the login") as caught:
        file.size()
    assert len(times) == 4
    assert "abc" not in str(caught.value).replace("bucket", "") and "pw" not in str(caught.value)
    assert "AKIA" not in str(caught.value)


def test_what_is_not_there(store):
    with pytest.raises(FileNotFoundError):
        StoredFile("memory://bucket/none.tar").size()
    with pytest.raises(DataError, match=r"memory://bucket/none\.tar: cannot be read"):
        len(shards("memory://bucket/none.tar"))
    with pytest.raises(DataError, match="matches no file"):
        expand_shards("memory://bucket/x*.tar")
    with pytest.raises(OSError, match="more than 10 bytes"):
        read_below("memory://bucket", "images/0.jpg", max_bytes=10)
