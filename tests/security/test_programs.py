"""Images start no other program: PIL hands EPS to Ghostscript, whatever the name of the file."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image

from hypvl.data.gather.fetch import FetchError
from hypvl.data.gather.shard import ImageSettings, prepare_image
from hypvl.datasets.classification.by_name import classification_set
from hypvl.datasets.files import images_below
from hypvl.datasets.images import Images
from hypvl.errors import DataError
from hypvl.io.images import ImageError, pixels_of
from hypvl.report.figures import read_pixels
from tests.evaluation.miniatures import classification as miniatures

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n"


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that Ghostscript, if it is started, leaves."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "gs").write_text(f"#!/bin/sh\n{shutil.which('touch')} {tmp_path / 'mark'}\n")
    (folder / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # what was found before
    return tmp_path / "mark"


def test_ghostscript_is_started_where_the_format_is_left_to_pil(tmp_path: Path, mark: Path) -> None:
    (tmp_path / "a.png").write_bytes(EPS)
    with pytest.raises(OSError, match="cannot identify image file"), Image.open(tmp_path / "a.png") as image:
        image.load()
    assert mark.exists()


@pytest.mark.parametrize(
    "read", [lambda path: pixels_of(path.read_bytes()), pixels_of, lambda path: read_pixels(path)]
)
def test_readers_of_images_start_nothing(tmp_path: Path, mark: Path, read: Callable[[Path], object]) -> None:
    (tmp_path / "a.png").write_bytes(EPS)
    with pytest.raises((ImageError, DataError), match="known format"):
        read(tmp_path / "a.png")
    assert not mark.exists()


def test_gathering_starts_nothing(mark: Path) -> None:
    with pytest.raises(FetchError, match="no image"):
        prepare_image(EPS, ImageSettings())
    assert not mark.exists()


#: Sets whose images torchvision finds, and would read.
@pytest.mark.parametrize(
    "name", ["food101", "aircraft", "dtd", "pets", "clevr", "country211", "sst2", "gtsrb"]
)
def test_published_sets_start_nothing(tmp_path: Path, mark: Path, name: str) -> None:
    root = tmp_path / "sets"
    getattr(miniatures, name)(root)
    for path in images_below(root):
        path.write_bytes(EPS)
    dataset = classification_set(name, root=root)
    assert isinstance(dataset.images, Images)
    for i in range(len(dataset)):
        with pytest.raises(DataError, match="known format"):
            dataset[i]
    assert not mark.exists()
