"""Plain http is off: only this machine, known checksums, and what the user says."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hypvl.config import LazyConfig
from hypvl.data.gather.fetch import FetchError, FetchOptions, fetch
from hypvl.data.mappers import GenericMapper
from hypvl.data.shards import ImageTextShards
from hypvl.data.stream import Reader, WebDatasetStream
from hypvl.data.table import ImageTextTable
from hypvl.errors import ConfigError, DataError
from hypvl.io import http as module
from hypvl.io.http import ALLOW_HTTP, Patience, RemoteError, check_encrypted, is_this_machine, request
from hypvl.io.remote import DownloadError, RemoteFile, download
from tests.data.helpers import Letters

CONTENT = b"content"
REFUSED = "is an address of plain http, which anybody on the way can change"


class Site(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        to = {"/up": "http://example.org/a", "/home": "http://127.0.0.1:1/secret"}.get(self.path)
        self.send_response(200 if to is None else 302)
        if to is not None:
            self.send_header("Location", to)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.delenv(ALLOW_HTTP, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8/a", True), ("http://localhost/a", True), ("http://[::1]/a", True),
        ("http://127.9.9.9/", True), ("http://me:pw@127.0.0.1/", True),
        ("http://127.0.0.1.example.org/", False), ("http://127.0.0.1@example.org/", False),
        ("http://example.org/127.0.0.1", False), ("http://10.0.0.1/", False), ("http://localhost.example.org/", False),
        ("http://[::1", False), ("http://", False), ("http://2130706433/", True),
    ],
)  # fmt: skip
def test_what_is_this_machine(url: str, local: bool) -> None:
    assert is_this_machine(url) is local


@pytest.mark.parametrize(
    "url", ["http://example.org/a.tar", "HTTP://example.org/a.tar", "http://me:SECRET@h/a"]
)
def test_plain_http_is_refused_everywhere(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALLOW_HTTP, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(
        module.urllib.request.OpenerDirector, "open", lambda *_, **__: pytest.fail("asked a server")
    )
    shards = {
        "mapper": GenericMapper(),
        "image_transform": lambda image, generator: image,
        "tokenizer": Letters(),
    }
    tries = [
        lambda: RemoteFile(url),
        lambda: download(url, tmp_path / "a"),
        lambda: list(request(url, patience=Patience()).__enter__().chunks(1)),
        lambda: len(ImageTextShards([url.lower()], **shards)),
        lambda: next(
            WebDatasetStream([url.lower()], samples_per_epoch=1, **shards).read_stream(0, Reader(0, 1), 0)
        ),
        lambda: ImageTextTable(f"{url.lower()}.tsv", image_transform=shards["image_transform"]),
    ]
    for number, attempt in enumerate(tries):
        with pytest.raises(DataError, match=REFUSED) as caught:
            attempt()
        assert "SECRET" not in str(caught.value), number
    with pytest.raises(FetchError) as failed:
        fetch(url, FetchOptions())
    assert failed.value.reason == "plain http"


def test_the_user_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RemoteError, match=f"set {ALLOW_HTTP}=1"):
        check_encrypted("http://example.org/a")
    check_encrypted("http://example.org/a", allow_http=True)
    check_encrypted("https://example.org/a")
    for value, allowed in (("1", True), ("0", False), ("", False)):
        monkeypatch.setenv(ALLOW_HTTP, value)
        if allowed:
            check_encrypted("http://example.org/a")
        else:
            with pytest.raises(RemoteError, match=REFUSED):
                check_encrypted("http://example.org/a")


def test_a_config_that_is_data_does_not_allow_it() -> None:
    data = {"dataset": {"_target_": "hypvl.data.shards.ImageTextShards", "allow_http": True}}
    with pytest.raises(
        ConfigError, match=r"'dataset\.allow_http' is True, which lets the config read plain http"
    ):
        LazyConfig.from_dict(data)
    data["dataset"]["allow_http"] = False
    allowed = LazyConfig.apply_overrides(LazyConfig.from_dict(data), ["dataset.allow_http=true"])
    assert allowed.dataset.allow_http is True


def crop(image: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    return image


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of the test as if it were another machine's."""
    monkeypatch.setattr(module, "is_this_machine", lambda url: url.startswith("http://127.0.0.1:1/"))


def test_a_known_checksum_makes_up_for_it(site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(monkeypatch)
    with pytest.raises(DownloadError, match=REFUSED):
        download(f"{site}/a", tmp_path / "a")
    right = hashlib.sha256(CONTENT).hexdigest()
    assert download(f"{site}/a", tmp_path / "a", sha256=right).read_bytes() == CONTENT
    with pytest.raises(DownloadError, match="its SHA256 is"):
        download(f"{site}/a", tmp_path / "b", sha256="0" * 64)


@pytest.mark.parametrize(("path", "words"), [("/up", REFUSED), ("/home", "leads to this machine")])
def test_servers_elsewhere_do_not_lead_to_plain_http_or_to_this_machine(
    site: str, path: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(monkeypatch)
    monkeypatch.setattr(module, "check_encrypted", _only("http://example.org", check_encrypted))
    with pytest.raises(RemoteError, match=words), request(site + path, patience=Patience()):
        pass


#: Other ways to say 127.0.0.1 and localhost, which the system reads as well.
HERE = [
    "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.0.0.1.", "LOCALHOST", "localhost.",
    "a.localhost", "0", "0.0.0.0", "[::]", "[::1]", "[::ffff:127.0.0.1]", "[0:0::ffff:7f00:1]", "[::1%25lo]",
    "\uff11\uff12\uff17.0.0.1", "\u24dbocalhost", "me@127.1",
]  # fmt: skip
NEIGHBOURS = [
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "169.254.43518",
    "[fe80::1]",
    "[::ffff:169.254.169.254]",
]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", [*HERE, *NEIGHBOURS])
def test_no_notation_of_a_number_hides_where_a_redirect_leads(scheme: str, host: str) -> None:
    redirects = module._Redirects("https://example.org/a", "https://example.org/a", allow_http=True)
    words = "leads to this machine" if host in HERE else "which only neighbours of this machine have"
    with pytest.raises(RemoteError, match=words):
        redirects.redirect_request(None, None, 302, "", {}, f"{scheme}://{host}:8080/a")


@pytest.mark.parametrize(
    "host", ["127.0.0.1.example.org", "localhost.example.org", "notlocalhost", "8.8.8.8", "0x8.8"]
)
def test_other_machines_are_other_machines(host: str) -> None:
    assert not is_this_machine(f"https://{host}/") and not module.is_link_local(f"https://{host}/")


@pytest.mark.parametrize("host", NEIGHBOURS)
def test_lists_of_addresses_do_not_reach_neighbours(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        module.urllib.request.OpenerDirector, "open", lambda *_, **__: pytest.fail("asked a server")
    )
    with pytest.raises(FetchError) as failed:
        fetch(f"http://{host}/latest/meta-data/", FetchOptions(allow_http=True))
    assert failed.value.reason == "refused"


def _only(start: str, check):  # type: ignore[no-untyped-def]
    return lambda url, **options: check(url, **options) if url.startswith(start) else None


def test_the_dataset_passes_its_permission_on(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    place = [f"{site}/a.tar"]
    shards = ImageTextShards(place, GenericMapper(), crop, Letters(), allow_http=True)
    assert len(shards) == 1  # the rest of a damaged TAR: its server was asked
    stream = WebDatasetStream(place, GenericMapper(), crop, Letters(), samples_per_epoch=1, allow_http=True)
    item = next(stream.read_stream(0, Reader(0, 1), 0))
    assert item.bad is not None and item.bad[0] == "a.tar/(rest)"
