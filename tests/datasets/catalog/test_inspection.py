"""What is found out about a data set."""

from pathlib import Path

from hypvl.datasets.catalog.inspection import inspect_error, inspect_set
from hypvl.datasets.classification.by_name import CLASSIFICATION_SETS, expected_size
from hypvl.datasets.classification.folders import ImageFolderSet
from hypvl.datasets.retrieval.table import table
from hypvl.errors import DataError, MissingDataError
from tests.evaluation.fakes import RED, broken, image


def colors(root: Path, count: int) -> ImageFolderSet:
    for i in range(count):
        image(root / "red" / f"{i:02d}.png", RED)
    return ImageFolderSet(root)


def test_a_whole_set(tmp_path: Path) -> None:
    finding = inspect_set("colors", colors(tmp_path, 20), look_at=5, expected=20)
    assert (finding.status, finding.items, finding.looked_at, finding.detail) == ("ok", 20, 5, "")
    assert inspect_set("colors", ImageFolderSet(tmp_path), look_at=None).looked_at == 20


def test_too_few_and_broken_images(tmp_path: Path) -> None:
    finding = inspect_set("colors", colors(tmp_path, 20), expected=1021)
    assert finding.status == "incomplete" and "has 20 images; expected 1,021, as published" in finding.detail
    broken(tmp_path / "red" / "19.png")
    finding = inspect_set("colors", ImageFolderSet(tmp_path), look_at=None, expected=1021)
    assert finding.status == "damaged" and len(finding.broken) == 1
    assert "1 of 20 images that were looked at cannot be read, the first: " in finding.detail


def test_captioned_images_and_errors(tmp_path: Path) -> None:
    image(tmp_path / "a.png", RED)
    (tmp_path / "set.jsonl").write_text(
        '{"image": "a.png", "caption": "red"}\n{"image": "b.png", "caption": "lost"}'
    )
    finding = inspect_set("pairs", table(tmp_path / "set.jsonl"))
    assert (finding.status, finding.items, finding.looked_at) == ("damaged", 2, 2)
    assert "b.png" in finding.detail
    assert inspect_error("x", MissingDataError("gone.")).status == "missing"
    assert inspect_error("x", DataError("cut.")).status == "damaged"
    assert inspect_set("settings", object()).items is None


def test_published_sizes() -> None:
    published = {
        "imagenet": 50000, "food101": 25250, "cifar10": 10000, "cifar100": 10000, "cub2011": 5794, "sun397": None,
        "cars": 8041, "aircraft": 3333, "dtd": 1880, "pets": 3669, "caltech101": 6084, "flowers102": 6149,
        "stl10": 8000, "eurosat": 5000, "resisc45": 25200, "country211": 21100, "mnist": 10000, "clevr": 5000,
        "pcam": 32768, "sst2": 1821,
    }  # fmt: skip
    assert {name: expected_size(name, "test") for name in CLASSIFICATION_SETS} == published
    cut = {"food101": (68175, 7575), "caltech101": (2448, 612), "eurosat": (5000, 5000), "clevr": (4500, 500),
           "resisc45": (3150, 3150), "dtd": (1880, 1880), "pets": (2944, 736), "sun397": (None, None)}  # fmt: skip
    for name, sizes in cut.items():
        assert (expected_size(name, "train"), expected_size(name, "val")) == sizes
