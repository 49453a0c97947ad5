import functools
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypvl.datasets.catalog import fetching
from hypvl.datasets.catalog.entries import published_files
from hypvl.datasets.catalog.fetching import require_published
from hypvl.datasets.composition import aro
from hypvl.errors import MissingDataError
from hypvl.io.http import Patience
from hypvl.io.remote import download
from tests.evaluation.miniatures.aro import make


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder served on this machine, which is where the files are published."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    known = {
        name: {"homepage": entry["homepage"], "files": {part: f"{address}/{part}" for part in entry["files"]}}
        for name, entry in published_files().items()
    }
    monkeypatch.setattr(fetching, "published_files", lambda: known)
    monkeypatch.setattr(fetching, "download", functools.partial(download, patience=Patience(attempts=1)))
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def published(mirror: Path, tmp_path: Path) -> Path:
    """The miniature of ARO on that server."""
    make(tmp_path / "made")
    source = tmp_path / "made" / "aro"
    for path in (*source.glob("*.json"), tmp_path / "made" / "coco" / "coco_karpathy_test.json"):
        shutil.copy(path, mirror)
    archive = shutil.make_archive(str(tmp_path / "images"), "zip", source, "images")
    shutil.move(archive, mirror / "images")
    return mirror


def test_aro_is_downloaded_once(published: Path, tmp_path: Path) -> None:
    root = tmp_path / "datasets" / "aro"
    with pytest.raises(
        MissingDataError, match=r"put .*json and images of .* download=true in its config fetches"
    ):
        aro.relations(root)
    assert not root.exists()
    data = aro.relations(root, download=True)
    assert len(data.choices) == 3 and data.images[0].shape == (3, 12, 10)
    assert (
        not list((root / ".downloads").glob("*.zip"))
        and not (root / "visual_genome_attribution.json").exists()
    )
    (published / "images").unlink()  # it is here now
    assert len(aro.attributes(root, download=True).choices) == 26


def test_the_file_of_an_order_test_is_downloaded_and_its_images_are_not(
    published: Path, tmp_path: Path
) -> None:
    path = tmp_path / "coco" / "coco_karpathy_test.json"
    with pytest.raises(MissingDataError, match="none of its 3 images is there"):
        aro.order(path, download=True)
    assert len(json.loads(path.read_text())) == 3


def test_a_file_that_the_server_lacks_is_missing(mirror: Path, tmp_path: Path) -> None:
    with pytest.raises(
        MissingDataError, match=r"could not be downloaded: .*answers 404.* By hand: put .* into"
    ):
        require_published("aro", tmp_path / "aro", ["visual_genome_relation.json"], download_missing=True)


@pytest.mark.parametrize(
    ("part", "content", "why"),
    [
        ("visual_genome_relation.json", b"<html>too many downloads</html>", "is not JSON"),
        ("images", b"<html>too many downloads</html>", "is damaged"),
    ],
)
def test_a_page_instead_of_the_file_is_removed(
    mirror: Path, tmp_path: Path, part: str, content: bytes, why: str
) -> None:
    (mirror / part).write_bytes(content)
    with pytest.raises(MissingDataError, match=rf"what the server sends cannot be used \(.*{why}"):
        require_published("aro", tmp_path / "aro", [part], download_missing=True)
    assert not (tmp_path / "aro" / part).exists()
    assert not list((tmp_path / "aro" / ".downloads").glob(f"{part}*"))  # the next run asks anew


def test_an_archive_of_other_files_is_refused(mirror: Path, tmp_path: Path) -> None:
    (tmp_path / "other" / "photos").mkdir(parents=True)
    archive = shutil.make_archive(str(tmp_path / "other"), "zip", tmp_path / "other")
    shutil.move(archive, mirror / "images")
    with pytest.raises(MissingDataError, match="holds no folder images"):
        require_published("aro", tmp_path / "aro", ["images"], download_missing=True)


def test_every_set_has_a_homepage_and_addresses() -> None:
    sets = {name: entry for name, entry in published_files().items() if name != "what"}
    assert set(sets["aro"]["files"]) == {aro.RELATIONS, aro.ATTRIBUTES, "images"}
    for entry in sets.values():
        assert entry["homepage"].startswith("https://")
        assert all(url.startswith("https://") for url in entry["files"].values())
