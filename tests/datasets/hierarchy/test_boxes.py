"""Images with boxes from every form that is read, and what is cut out of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hypvl.datasets.demo import demo_boxes
from hypvl.datasets.hierarchy.boxes import BoxedImages, Part, coco_boxes, jsonl_boxes
from hypvl.datasets.images import Box, Images
from hypvl.errors import DataError, MissingDataError
from tests.evaluation.fakes import RED, broken, image
from tests.evaluation.miniatures.boxes import make

ENTRY = {
    "image": "a.png",
    "caption": "a red thing",
    "boxes": [{"box": [0.0, 0.5, 0.5, 1.0], "phrase": "thing"}],
}


def test_crops_are_the_pixels_of_the_box(tmp_path: Path) -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    images = Images.from_files([tmp_path / "a.png"])
    boxes = [
        Part(0, Box(0.5, 0.25, 1.0, 0.75, "fractions"), "x"),
        Part(0, Box(0.4, 0.4, 0.41, 0.41, "fractions"), "y"),
        Part(0, Box(0, 0, 1, 1, "fractions"), "z"),
    ]
    crops = BoxedImages(images, ["caption"], boxes, keys=["a"]).crops
    assert crops[0].permute(1, 2, 0).tolist() == pixels[1:3, 3:6].tolist()
    assert crops[1].permute(1, 2, 0).tolist() == pixels[1:2, 2:3].tolist()
    assert crops[2].shape == (3, 4, 6) and len(crops) == 3


def test_a_crop_of_a_broken_image_is_a_data_error(tmp_path: Path) -> None:
    images = Images.from_files([broken(tmp_path / "a.png")])
    with pytest.raises(DataError, match=r"a\.png"):
        BoxedImages(images, ["c"], [Part(0, Box(0, 0, 1, 1, "fractions"), "p")], keys=["a"]).crops[0]


def test_coco(tmp_path: Path) -> None:
    make(tmp_path)
    result = coco_boxes(tmp_path / "coco")
    assert len(result.images) == 5 and len(result.parts) == 10
    assert result.captions[0] == "A red door." and result.keys[0] == "000000391895.jpg"
    # The larger of the two comes first; corners in fractions of 90 x 70 pixels.
    box = result.parts[0].box
    assert (box.left, box.top, box.right, box.bottom) == pytest.approx((2 / 9, 1 / 7, 6 / 9, 6 / 7))
    assert [part.phrase for part in result.parts[:4]] == ["red", "red", "green", "green"]
    assert len(coco_boxes(tmp_path / "coco", per_image=1).parts) == 5
    assert len(coco_boxes(tmp_path / "coco", crowd=True).parts) == 11
    with pytest.raises(DataError, match="has no box that can be used"):
        coco_boxes(tmp_path / "coco", min_size=41)
    (tmp_path / "coco/annotations/instances_val2017.json").write_text('{"images": [], "categories": []}')
    with pytest.raises(DataError, match=r"instances_val2017\.json: lacks 'annotations'; expected COCO"):
        coco_boxes(tmp_path / "coco")


def test_json_lines_and_the_demo_have_one_layout(tmp_path: Path) -> None:
    image(tmp_path / "a.png", RED)
    path = tmp_path / "boxes.jsonl"
    path.write_text(json.dumps(ENTRY) + "\n\n" + json.dumps({**ENTRY, "image": "b.png", "boxes": []}))
    result = jsonl_boxes(path)
    assert result.parts == [Part(0, Box(0.0, 0.5, 0.5, 1.0, "fractions"), "thing")] and result.captions == [
        "a red thing"
    ]
    image(tmp_path / "demo/eval/a.png", RED)
    two = {**ENTRY, "boxes": ENTRY["boxes"] * 2}  # type: ignore[operator]
    (tmp_path / "demo/eval/hierarchy.json").write_text(json.dumps({"scenes": [ENTRY, two]}))
    assert len(demo_boxes(tmp_path / "demo").parts) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": [{"box": [0, 0, 1], "phrase": "x"}]}, "entry 1: cannot be used .*expected 4, got 3"),
        ({"boxes": [{"box": [0, 0, 1, 1]}]}, "entry 1: lacks 'phrase'"),
        ({"boxes": [{"box": [0, 0, 30, 40], "phrase": "x"}]}, "a.png has the box .*fractions of the image"),
        ({"boxes": [{"box": [0.5, 0, 0.5, 1], "phrase": "x"}]}, "expected left < right"),
        ({"boxes": []}, "has no box that can be used"),
        ({"image": "absent.png"}, "its only image is not there"),
    ],
)
def test_wrong_entries_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    image(tmp_path / "a.png", RED)
    path = tmp_path / "boxes.jsonl"
    path.write_text(json.dumps({**ENTRY, **change}))
    with pytest.raises(DataError, match=message):
        jsonl_boxes(path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"instances_val2017\.json"):
        coco_boxes(tmp_path)
    with pytest.raises(MissingDataError, match=r"hierarchy\.json: is not there .*; make it"):
        demo_boxes(tmp_path)
    with pytest.raises(MissingDataError, match=r"boxes\.jsonl"):
        jsonl_boxes(tmp_path / "boxes.jsonl")
