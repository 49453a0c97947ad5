import json
from pathlib import Path

import pytest

from hypvl.datasets.classification.imagenet_variants import FOLDERS, imagenet_variant, objectnet
from hypvl.datasets.classification.outliers import imagenet_o
from hypvl.errors import DataError, MissingDataError
from tests.evaluation.fakes import GREEN, RED, image
from tests.evaluation.miniatures import robustness
from tests.evaluation.miniatures.robustness import IDS


@pytest.mark.parametrize("name", FOLDERS)
def test_a_variant_has_the_classes_of_its_folders(name: str, tmp_path: Path) -> None:
    robustness.make(tmp_path)
    data = imagenet_variant(name, root=tmp_path / "eval")  # type: ignore[arg-type]
    assert data.classes == ["tench", "goldfish"] and sorted(data.labels) == [0, 0, 1, 1]
    assert len(data.prompts or ()) == (1 if name == "imagenet_sketch" else 80)


def test_numbers_are_those_of_the_classes_and_not_of_the_sorted_folders(tmp_path: Path) -> None:
    for name in ("2", "10"):
        image(tmp_path / "imagenetv2" / name / "a.jpeg", RED)
    data = imagenet_variant("imagenetv2", root=tmp_path)
    assert data.classes == ["brambling", "great white shark"] and data.keys[0] == "10/a.jpeg"


def test_another_folder_or_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"imagenet-r: has no classnames\.txt .*wds_imagenet-r"):
        imagenet_variant("imagenet-r", root=tmp_path)
    for name in (IDS[0], "n00000000"):
        image(tmp_path / "imagenet-r" / name / "a.png", RED)
    with pytest.raises(DataError, match=r"imagenet-r: 'n00000000' is not a class of ImageNet-1k"):
        imagenet_variant("imagenet-r", root=tmp_path)
    with pytest.raises(ValueError, match="name: got 'imagenet-c'"):
        imagenet_variant("imagenet-c", root=tmp_path)  # type: ignore[arg-type]


def test_objectnet_has_the_classes_that_imagenet_has_without_the_border(tmp_path: Path) -> None:
    robustness.objectnet(tmp_path / "objectnet-1.0")
    data = objectnet(tmp_path)
    assert data.classes == ["alarm clock", "backpack", "bath towel"] and data.labels == [0, 1, 2]
    assert data.keys == ["alarm_clock/a.png", "backpack/a.png", "bath_towel/a.png"]
    assert data[0][0].shape == (3, 5, 7) and data.ids is None  # of 9 x 7 pixels


def test_objectnet_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="wds_objectnet"):
        objectnet(tmp_path)
    folder = tmp_path / "objectnet-1.0"
    robustness.objectnet(folder)
    (folder / "images" / "zebra").mkdir()
    with pytest.raises(DataError, match=r"zebra is not in folder_to_objectnet_label\.json"):
        objectnet(tmp_path)
    path = folder / "mappings" / "folder_to_objectnet_label.json"
    path.write_text(json.dumps(["Alarm clock"]))
    with pytest.raises(DataError, match="expected an object of texts"):
        objectnet(tmp_path)
    names = {"alarm_clock": "x", "backpack": "x", "bath_towel": "x", "bills_money": "x", "zebra": "x"}
    path.write_text(json.dumps(names))
    with pytest.raises(MissingDataError, match="holds no images of the 3 classes"):
        objectnet(tmp_path)


def test_imagenet_o_has_the_images_of_its_classes_and_outliers(tmp_path: Path) -> None:
    for name, color in zip((*IDS, "n01484850"), (RED, GREEN, RED), strict=True):
        image(tmp_path / "val" / name / "b.JPEG", color)
    for name in IDS:
        image(tmp_path / "imagenet-o" / name / "a.png", GREEN)
    data = imagenet_o(tmp_path, imagenet=tmp_path / "val")
    assert list(data.outlier) == [False, False, True, True] and list(data.classes) == ["tench", "goldfish"]
    assert data.keys[0] == f"{IDS[0]}/b.JPEG" and len(data.prompts) == 80 and len(data.images) == 4
    image(tmp_path / "imagenet-o" / "n01491361" / "a.png", GREEN)
    with pytest.raises(MissingDataError, match=r"has no images of n01491361 \(1 of ImageNet-O's 3 classes\)"):
        imagenet_o(tmp_path, imagenet=tmp_path / "val")
    with pytest.raises(MissingDataError, match="nowhere"):
        imagenet_o(tmp_path, imagenet=tmp_path / "nowhere")
