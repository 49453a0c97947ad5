"""Data sets by name, on miniatures of the folders torchvision and the demo generator make."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torchvision

from hypvl.errors import ConfigError, DataError
from hypvl.evaluation.datasets.catalog import (
    CLASSIFICATION_SETS,
    DEMO_CLASSIFICATION_SETS,
    classification_prompts,
    classification_set,
    demo_classification_set,
    demo_retrieval_set,
)
from hypvl.evaluation.protocol import MissingDataError
from tests.evaluation.fakes import BLUE, GREEN, RED, broken, picture


def food101(root: Path) -> None:
    meta = {"red_meat": ["red_meat/1", "red_meat/2"], "blueberry_pie": ["blueberry_pie/3"]}
    (root / "food-101" / "meta").mkdir(parents=True)
    (root / "food-101" / "meta" / "test.json").write_text(json.dumps(meta))
    picture(root / "food-101" / "images" / "red_meat" / "1.jpg", RED)
    broken(root / "food-101" / "images" / "red_meat" / "2.jpg")
    picture(root / "food-101" / "images" / "blueberry_pie" / "3.jpg", BLUE)


def mnist(root: Path) -> None:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        images = struct.pack(">iiii", 0x803, 3, 28, 28) + bytes(3 * 28 * 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 0x801, 3) + bytes([7, 0, 7]))


def dtd(root: Path) -> None:
    folder = root / "dtd" / "dtd"
    (folder / "labels").mkdir(parents=True)
    (folder / "labels" / "test1.txt").write_text("dotted/d1.jpg\nbanded/b1.jpg\ndotted/d2.jpg\n")
    for name in ("dotted/d1", "banded/b1", "dotted/d2"):
        picture(folder / "images" / f"{name}.jpg", GREEN)


def pets(root: Path) -> None:
    folder = root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    lines = "great_cat_1 1 1 1\nsmall_dog_9 2 2 1\nsmall_dog_10 2 2 1\n"
    (folder / "annotations" / "test.txt").write_text(lines)
    for name in ("great_cat_1", "small_dog_9", "small_dog_10"):
        picture(folder / "images" / f"{name}.jpg", RED)


def aircraft(root: Path) -> None:
    folder = root / "fgvc-aircraft-2013b" / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "variants.txt").write_text("A380\nBoeing 717\n")
    (folder / "images_variant_test.txt").write_text("01 Boeing 717\n02 A380\n")
    picture(folder / "images" / "01.jpg", RED)
    picture(folder / "images" / "02.jpg", BLUE)


def country211(root: Path) -> None:
    for code, name in (("AD", "1.jpg"), ("BE", "2.jpg"), ("BE", "3.jpg")):
        picture(root / "country211" / "test" / code / name, BLUE)


def sst2(root: Path) -> None:
    for label in ("negative", "positive"):
        picture(root / "rendered-sst2" / "test" / label / "1.png", RED)


def stl10(root: Path) -> None:
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    np.zeros(2 * 3 * 96 * 96, dtype=np.uint8).tofile(folder / "test_X.bin")
    np.array([10, 1], dtype=np.uint8).tofile(folder / "test_y.bin")
    (folder / "class_names.txt").write_text("airplane\nbird\n")


def cars(root: Path) -> None:
    from scipy.io import savemat

    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(["Audi A4", "BMW"], dtype=object)})
    rows = np.array([("1.jpg", 2), ("2.jpg", 1)], dtype=[("fname", object), ("class", object)])
    savemat(folder / "cars_test_annos_withlabels.mat", {"annotations": rows})
    picture(folder / "cars_test" / "1.jpg", RED)
    picture(folder / "cars_test" / "2.jpg", BLUE)


MINIATURES: dict[str, tuple[Callable[[Path], None], list[int], str]] = {
    "food101": (food101, [1, 1, 0], "red meat"),
    "mnist": (mnist, [7, 0, 7], "seven"),
    "dtd": (dtd, [1, 0, 1], "dotted"),
    "pets": (pets, [0, 1, 1], "Great Cat"),
    "aircraft": (aircraft, [1, 0], "Boeing 717"),
    "country211": (country211, [0, 1, 1], "AD"),
    "sst2": (sst2, [0, 1], "negative"),
    "stl10": (stl10, [9, 0], ""),
    "cars": (cars, [1, 0], "BMW"),
}


@pytest.mark.parametrize("name", MINIATURES)
def test_sets_of_torchvision(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, labels, first_class = MINIATURES[name]
    make(tmp_path)
    monkeypatch.setattr(torchvision.datasets.STL10, "_check_integrity", lambda self: True)  # checks the MD5
    dataset = classification_set(name, root=tmp_path)
    assert list(dataset.labels) == labels and len(dataset) == len(labels) == len(dataset.keys)
    if first_class:
        assert dataset.classes[labels[0]] == first_class
    image, label = dataset[0]
    assert image.shape[0] == 3 and image.dtype.itemsize == 1 and label == labels[0]


def test_labels_agree_with_what_torchvision_returns(tmp_path: Path) -> None:
    for name in ("dtd", "pets", "sst2", "cars"):
        MINIATURES[name][0](tmp_path)
        dataset = classification_set(name, root=tmp_path)
        original = dataset._dataset  # type: ignore[attr-defined]
        assert [original[i][1] for i in range(len(original))] == list(dataset.labels)


def test_a_broken_picture_of_torchvision_is_a_data_error(tmp_path: Path) -> None:
    food101(tmp_path)
    with pytest.raises(DataError, match=r"Food101\[1\]: cannot be read \(UnidentifiedImageError"):
        classification_set("food101", root=tmp_path)[1]


@pytest.mark.parametrize("name", CLASSIFICATION_SETS)
def test_a_missing_set_is_missing(name: str, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"is not there \(looked in"):
        classification_set(name, root=tmp_path)


def test_an_incomplete_set_says_so_and_downloads_nothing(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(
        DataError, match=r"cifar10: torchvision.datasets.CIFAR10 cannot read .*complete the set"
    ):
        classification_set("cifar10", root=tmp_path)
    assert list((tmp_path / "cifar-10-batches-py").iterdir()) == []


def test_unknown_names_are_answered_with_the_closest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'cifar': unknown \\(closest: cifar1"):
        classification_set("cifar", root=tmp_path)
    with pytest.raises(ConfigError, match="closest: imagenet"):
        classification_prompts("image-net")
    with pytest.raises(ConfigError, match="closest: digits"):
        demo_classification_set("digit", root=tmp_path)


def test_prompts_by_set() -> None:
    assert len(classification_prompts("imagenet")) == 80
    assert "a photo of a {}." in classification_prompts("dtd")


def test_demo_sets(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"make_demo_data\.py"):
        demo_classification_set("digits", root=tmp_path)
    folder = tmp_path / "eval" / "digits"
    picture(folder / "one" / "a.png", RED)
    (folder / "two").mkdir()
    prompts = {"one": ["the one"], "two": ["a two", "2"]}
    (folder / "classes.json").write_text(json.dumps({"classes": ["one", "two"], "prompts": prompts}))
    dataset = demo_classification_set("digits", root=tmp_path)
    assert dataset.classes == ["one", "two"] and dataset.prompts == prompts and dataset.labels == [0]
    (folder / "classes.json").write_text('{"classes": []}')
    with pytest.raises(DataError, match=r"classes\.json: lacks 'prompts'"):
        demo_classification_set("digits", root=tmp_path)


@pytest.mark.slow
def test_demo_sets_are_what_the_generator_writes(tmp_path: Path) -> None:
    from hypvl.data.demo import DemoArguments, make_demo_data

    make_demo_data(tmp_path / "demo", DemoArguments(num_train=12, num_test=24))
    for name in DEMO_CLASSIFICATION_SETS:
        dataset = demo_classification_set(name, root=tmp_path / "demo")
        assert dataset.prompts is not None and set(dataset.prompts) == set(dataset.classes)
        assert dataset[0][0].shape == (3, 64, 64)
        assert len(dataset) > 300 if name == "digits" else len(dataset) == 6
    retrieval = demo_retrieval_set(root=tmp_path / "demo")
    assert len(retrieval.images) == len(set(retrieval.captions)) == 12
    assert retrieval.images[0].shape == (3, 64, 64)


def test_demo_retrieval_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"make_demo_data\.py"):
        demo_retrieval_set(root=tmp_path)
