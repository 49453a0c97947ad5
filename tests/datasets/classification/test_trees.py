"""The folder trees of ITRA and I0T, and sets without some classes."""

from pathlib import Path

import pytest

from hypvl.datasets.catalog.entries import class_names
from hypvl.datasets.classification.folder_names import plain
from hypvl.datasets.classification.folders import ImageFolderSet
from hypvl.datasets.classification.splits import without_classes
from hypvl.datasets.classification.trees import (
    BIRDSNAP_LEFT_OUT,
    I0T_CLASSIFICATION_SETS,
    ITRA_SETS,
    i0t_classification_set,
    itra_set,
)
from hypvl.datasets.retrieval.coco import coco
from hypvl.errors import ConfigError, DataError, MissingDataError
from tests.evaluation.fakes import BLUE, GREEN, RED, image as pil_image
from tests.evaluation.miniatures import i0t_classification, itra


def test_itra(tmp_path: Path) -> None:
    itra.make(tmp_path)
    root = tmp_path / "itra"
    names = {name: itra_set(name, root=root).classes[:2] for name in ITRA_SETS}
    assert names == {
        "imagenet": ["tench", "goldfish"],
        "birdsnap": ["Acadian Flycatcher", "Acorn Woodpecker"],
        "country211": ["Andorra", "United Arab Emirates"],
        "flowers102": ["pink primrose", "globe thistle"],  # "1", "10"
        "gtsrb": ["red and white circle 20 kph speed limit", "red and white circle 30 kph speed limit"],
        "stanford_cars": ["Acura RL Sedan 2012", "BMW X5 SUV 2007"],
        "ucf101": ["Apply Eye Makeup", "Yo Yo"],
    }
    for name in ITRA_SETS:
        data = itra_set(name, root=root)
        assert data[len(data) - 1][0].float().mean(dim=(1, 2)).tolist() == list(BLUE)
        assert data.prompts and len(data.prompts) == (80 if name == "imagenet" else len(data.prompts))
    assert len(itra_set("ucf101", root=root, split="testlist03")) == 4
    assert len(coco(root / "coco2017").images) == 5
    with pytest.raises(
        ConfigError, match=r"'ucf101': split 'test': unknown .*; expected one of testlist01, testlist02"
    ):
        itra_set("ucf101", root=root, split="test")
    with pytest.raises(ConfigError, match="ITRA set 'cars': unknown"):
        itra_set("cars", root=root)
    with pytest.raises(MissingDataError, match="test: is not there"):
        itra_set("gtsrb", root=tmp_path)


@pytest.mark.parametrize(("name", "first"), [("flowers102", 1), ("flowers102", 0), ("gtsrb", 0)])
def test_numbered_folders_get_the_name_of_their_number(name: str, first: int, tmp_path: Path) -> None:
    known = class_names(name)
    assert known is not None
    for i in range(len(known)):
        pil_image(tmp_path / name / "test" / str(first + i) / "a.png", RED)
    data = itra_set(name, root=tmp_path)
    for key, label in zip(data.keys, data.labels, strict=True):
        assert data.classes[label] == known[int(key.split("/")[0]) - first]


@pytest.mark.parametrize("style", ["{}", "upper"])
def test_folders_called_by_names_get_their_own_name(style: str, tmp_path: Path) -> None:
    known = class_names("flowers102")
    assert known is not None
    for name in known:
        folder = name.replace(" ", "_").title() if style == "upper" else name
        pil_image(tmp_path / "flowers102" / "test" / folder / "a.png", RED)
    data = itra_set("flowers102", root=tmp_path)
    assert len(data) == 102
    for key, label in zip(data.keys, data.labels, strict=True):
        assert plain(data.classes[label]) == plain(key.split("/")[0])


def test_one_folder_spelt_otherwise_is_named(tmp_path: Path) -> None:
    known = class_names("flowers102")
    assert known is not None
    for name in known:
        folder = "tigre lily" if name == "tiger lily" else name
        pil_image(tmp_path / "flowers102" / "test" / folder / "a.png", RED)
    with pytest.raises(
        DataError,
        match="flowers102/test: 'tigre lily' is not a class of flowers102, and 'tiger lily' is missing",
    ):
        itra_set("flowers102", root=tmp_path)


def test_countries_are_called_by_their_code_even_where_some_are_missing(tmp_path: Path) -> None:
    for code in ("ZW", "DE", "XK"):
        pil_image(tmp_path / "country211" / "test" / code / "a.png", RED)
    assert itra_set("country211", root=tmp_path).classes == ["Germany", "Kosovo", "Zimbabwe"]
    pil_image(tmp_path / "country211" / "test" / "ZZ" / "a.png", RED)
    with pytest.raises(DataError, match=r"'ZZ' is not a class .* 'Andorra', .* and 203 more are missing"):
        itra_set("country211", root=tmp_path)


def test_numbers_that_may_be_counted_from_0_or_1_are_refused(tmp_path: Path) -> None:
    for number in ("1", "2"):
        pil_image(tmp_path / "flowers102" / "test" / number / "a.png", RED)
    with pytest.raises(DataError, match=r"numbered 1 \.\.\. 2, neither 0 nor 102"):
        itra_set("flowers102", root=tmp_path)
    pil_image(tmp_path / "gtsrb" / "test" / "00000" / "a.png", RED)
    pil_image(tmp_path / "gtsrb" / "test" / "00043" / "a.png", RED)
    with pytest.raises(DataError, match="'00043' is not a class of gtsrb"):
        itra_set("gtsrb", root=tmp_path)


def test_birdsnap_in_another_order_is_refused(tmp_path: Path) -> None:
    for i in range(500):
        pil_image(tmp_path / "birdsnap" / "test" / f"Bird_{i:03d}" / "1.jpg", RED)
    assert len(itra_set("birdsnap", root=tmp_path)) == 491
    for i in BIRDSNAP_LEFT_OUT:  # without images, as published; one folder in front moves all places
        (tmp_path / "birdsnap" / "test" / f"Bird_{i:03d}" / "1.jpg").unlink()
    assert len(itra_set("birdsnap", root=tmp_path)) == 491
    (tmp_path / "birdsnap" / "test" / "Bird_499").rename(tmp_path / "birdsnap" / "test" / "A_Bird")
    with pytest.raises(DataError, match=r"'Bird_046'.* without images, while 'Bird_045'"):
        itra_set("birdsnap", root=tmp_path)


def test_birdsnap_without_the_nine_classes(tmp_path: Path) -> None:
    for i in range(500):
        (tmp_path / "birdsnap" / "test" / f"Bird_{i:03d}").mkdir(parents=True)
    for i in (45, 47, 499):
        pil_image(tmp_path / "birdsnap" / "test" / f"Bird_{i:03d}" / "1.jpg", RED)
    data = itra_set("birdsnap", root=tmp_path)
    assert len(data.classes) == 491 and len(BIRDSNAP_LEFT_OUT) == 9
    assert [data.classes[label] for label in data.labels] == ["Bird 045", "Bird 047", "Bird 499"]


def test_without_classes(tmp_path: Path) -> None:
    for name, color in (("a", RED), ("b", GREEN), ("c", BLUE)):
        pil_image(tmp_path / name / "1.png", color)
    data = without_classes(ImageFolderSet(tmp_path), [1])
    assert data.classes == ["a", "c"] and data.labels == [0, 1] and data.keys == ["a/1.png", "c/1.png"]
    image, label = data[1]
    assert label == 1 and image.float().mean(dim=(1, 2)).tolist() == list(BLUE)
    assert data.ids == [str(tmp_path / "a" / "1.png"), str(tmp_path / "c" / "1.png")] and len(data) == 2
    with pytest.raises(DataError, match=r"classes other than \[0, 1, 2\]: none of the 3 images"):
        without_classes(ImageFolderSet(tmp_path), [0, 1, 2])


def test_i0t(tmp_path: Path) -> None:
    i0t_classification.make(tmp_path)
    cifar, birds = (i0t_classification_set(n, root=tmp_path / "i0t") for n in I0T_CLASSIFICATION_SETS)
    assert len(cifar.classes) == 100 and len(cifar) == 6
    assert birds.classes == ["Acadian Flycatcher", "Acorn Woodpecker"] and birds.prompts == [
        "a photo of a {}, a type of bird."
    ]
    for name in I0T_CLASSIFICATION_SETS:
        with pytest.raises(MissingDataError, match="zeroshot_datasets"):
            i0t_classification_set(name, root=tmp_path)
    with pytest.raises(ConfigError, match="I0T set 'cifar10': unknown"):
        i0t_classification_set("cifar10", root=tmp_path)
