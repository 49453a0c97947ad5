from pathlib import Path

import pytest
import torch
from PIL import Image

from hypvl.datasets.composition.choices import Choice, ImageCollector
from hypvl.datasets.files import integer_of, require_images, text_of
from hypvl.datasets.images import Box, Images
from hypvl.errors import DataError, MissingDataError
from tests.evaluation.fakes import RED, broken, image as pil_image


def numbered(path: Path) -> Path:
    """An image of 4 x 3 pixels whose red says the column and whose green says the row."""
    image = Image.new("RGB", (4, 3))
    for x in range(4):
        for y in range(3):
            image.putpixel((x, y), (x, y, 0))
    image.save(path)
    return path


@pytest.mark.parametrize("foils, kinds", [((), ()), ("text", ()), (("a", "b"), ("x",))])
def test_a_choice_needs_foils_and_a_kind_for_each_or_none(
    foils: tuple[str, ...], kinds: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match="expected a tuple of at least one text"):
        Choice(0, "caption", foils, "kind", kinds)


@pytest.mark.parametrize(
    ("box", "columns", "rows"),
    [
        (None, [0, 1, 2, 3], [0, 1, 2]),
        (Box.from_xywh(1, 0, 2, 3), [1, 2], [0, 1, 2]),
        (Box.from_xywh(3, 2, 1, 1), [3], [2]),
        (Box.from_xywh(2, 1, 50, 50), [2, 3], [1, 2]),  # over the border
        (Box.from_xywh(-2, -1, 3, 2), [0], [0]),
    ],
)
def test_crops_are_cut_by_their_box(
    tmp_path: Path, box: Box | None, columns: list[int], rows: list[int]
) -> None:
    part = Images(Images.from_files([numbered(tmp_path / "a.png")]), boxes=[box])[0]
    assert part.dtype == torch.uint8
    assert part[0, 0].tolist() == columns and part[1, :, 0].tolist() == rows


@pytest.mark.parametrize(
    "box",
    [
        Box.from_xywh(4, 0, 2, 2),
        Box.from_xywh(0, 0, 0, 3),
        Box.from_xywh(0, -5, 2, 2),
        Box.from_xywh(1, 1, -3, 2),
    ],
)
def test_an_empty_crop_is_a_broken_image(tmp_path: Path, box: Box) -> None:
    with pytest.raises(DataError, match=r"has no pixels in its box .*; the image is 4 x 3 pixels"):
        Images(Images.from_files([numbered(tmp_path / "a.png")]), boxes=[box])[0]


def test_a_file_that_is_not_an_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"b\.png"):
        Images(Images.from_files([broken(tmp_path / "b.png")]), boxes=[Box.from_xywh(0, 0, 1, 1)])[0]


def test_each_image_is_collected_once(tmp_path: Path) -> None:
    collector, path = ImageCollector(), pil_image(tmp_path / "a.png", RED)
    found = [
        collector.add(path, key="a"),
        collector.add(path, key="a box", box=Box.from_xywh(0, 0, 2, 2)),
        collector.add(path, key="a"),
        collector.add(path, key="a box", box=Box.from_xywh(0, 0, 2, 2)),
    ]
    assert found == [0, 1, 0, 1] and collector.keys == ["a", "a box"]
    assert [tuple(image.shape) for image in collector.images] == [(3, 7, 9), (3, 2, 2)]
    assert collector.images.ids == [str(path), f"{path}::0,0,2,2"]


def test_fields_are_checked_where_they_are_read() -> None:
    assert text_of({"a": "b"}, "a", "f.json, entry 1") == "b"
    assert integer_of({"x": 12.0}, "x", "f.json, entry 1") == 12
    with pytest.raises(DataError, match=r"f\.json, entry 1: has no text 'a'; got \{'a': 3\}"):
        text_of({"a": 3}, "a", "f.json, entry 1")
    for wrong in ({"x": 1.5}, {"x": "3"}, {"x": True}, {}):
        with pytest.raises(DataError, match="has no whole number 'x'"):
            integer_of(wrong, "x", "f.json, entry 1")


def test_images_are_missing_when_not_one_is_there(tmp_path: Path) -> None:
    here, gone = pil_image(tmp_path / "a.png", RED), tmp_path / "b.png"
    require_images([gone, here], source=tmp_path / "s.json", what="images of S")
    require_images([], source=tmp_path / "s.json", what="images of S")
    with pytest.raises(
        MissingDataError, match=r"s\.json: none of its 1 images is there, .* put images of S there"
    ):
        require_images([gone], source=tmp_path / "s.json", what="images of S")
