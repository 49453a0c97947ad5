import json
from pathlib import Path

import pytest

from hypvl.datasets.classification.multi_label import VOC_CLASSES, coco_labels, label_lists, voc2007
from hypvl.errors import DataError, MissingDataError
from tests.evaluation.fakes import RED, image
from tests.evaluation.miniatures import boxes, multi_label


def test_voc2007_has_labels_and_difficult_objects(tmp_path: Path) -> None:
    multi_label.voc(tmp_path)
    data = voc2007(tmp_path / "voc2007")
    bird, boat, plant = (list(VOC_CLASSES).index(name) for name in ("bird", "boat", "pottedplant"))
    assert data.labels == [(bird, plant), (boat,), (plant,), (bird,)]
    assert data.ignored == [(), (), (), (boat,)]
    assert data.classes[plant] == "potted plant" and data.keys[1] == "000001"
    assert voc2007(tmp_path / "voc2007" / "VOCdevkit" / "VOC2007").labels == data.labels
    part = data.take([3, 0])
    assert part.ignored == [(boat,), ()] and part.labels == [(bird,), (bird, plant)]


def test_voc2007_names_what_is_missing_or_wrong(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"has no ImageSets/Main .*VOCtest_06-Nov-2007\.tar"):
        voc2007(tmp_path)
    multi_label.voc(tmp_path)
    path = tmp_path / "voc2007" / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / "cow_test.txt"
    path.write_text("000000 2\n")
    with pytest.raises(DataError, match=r"cow_test\.txt, line 1: is '000000 2'; expected an image and 1, -1"):
        voc2007(tmp_path / "voc2007")
    path.unlink()
    with pytest.raises(MissingDataError, match=r"lacks cow_test\.txt|cow_test\.txt"):
        voc2007(tmp_path / "voc2007")
    with pytest.raises(MissingDataError, match="train split"):
        voc2007(tmp_path / "voc2007", split="train")


def test_coco_labels_are_the_categories_with_an_annotation(tmp_path: Path) -> None:
    boxes.make(tmp_path)
    data = coco_labels(tmp_path / "coco")
    assert data.classes == ["red", "green", "blue", "yellow"]
    assert data.labels[:2] == [(0,), (1,)] and len(data.labels) == len(data.keys)
    path = tmp_path / "coco" / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"] = [
        one for one in content["annotations"] if one["image_id"] != content["images"][0]["id"]
    ]
    path.write_text(json.dumps(content))
    assert coco_labels(tmp_path / "coco").labels[0] == ()  # stays, as a negative of every class
    content["annotations"][0]["category_id"] = 7
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"instances_val2017\.json"):
        coco_labels(tmp_path / "coco")
    with pytest.raises(MissingDataError, match=r"instances_val2014\.json"):
        coco_labels(tmp_path / "coco", split="val2014")


def test_label_lists_have_names_numbers_or_one_text(tmp_path: Path) -> None:
    image(tmp_path / "a.png", RED)
    path = tmp_path / "list.jsonl"
    path.write_text('{"image": "a.png", "labels": ["cube", "ball"]}\n{"image": "b.png", "labels": []}\n')
    data = label_lists(path)
    assert (
        data.classes == ["ball", "cube"] and data.labels == [(0, 1), ()] and data.keys == ["a.png", "b.png"]
    )
    table = tmp_path / "list.csv"
    table.write_text("image,labels\na.png,cube; ball\nb.png,2\n")
    assert label_lists(table, classes=["cube", "cone", "ball"]).labels == [(0, 2), (2,)]


def test_label_lists_name_the_wrong_line(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text('{"image": "a.png", "labels": ["cube"]}\n')
    with pytest.raises(MissingDataError, match="its only image is not there"):
        label_lists(path)
    image(tmp_path / "a.png", RED)
    with pytest.raises(
        DataError, match=r"list\.jsonl, line 1: has the label 'cube'; expected one of the 1 classes"
    ):
        label_lists(path, classes=["cone"])
    path.write_text('{"image": "a.png", "label": 3}\n')
    with pytest.raises(DataError, match=r'line 1: expected \{"image": path, "labels": names of classes\}'):
        label_lists(path)
