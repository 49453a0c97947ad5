"""Images by position: chosen, joined, cut to a box, with labels."""

import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from hypvl.datasets.images import Box, Images, LabelledImages, images_of, joined
from hypvl.errors import DataError
from tests.evaluation.fakes import BLUE, RED, broken, image as pil_image


def numbered(path: Path) -> Path:
    """An image of 4 x 3 pixels whose red says the column and whose green says the row."""
    image = Image.new("RGB", (4, 3))
    for x in range(4):
        for y in range(3):
            image.putpixel((x, y), (x, y, 0))
    image.save(path)
    return path


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


def color(image: Tensor) -> tuple[float, ...]:
    return tuple(image.float().mean(dim=(1, 2)).tolist())


class Own:
    """A classification set of another class, which does not say where its images are."""

    classes, prompts, keys, labels = ("red", "blue"), None, ("r", "b"), (0, 1)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.tensor((RED, BLUE)[index], dtype=torch.uint8)[:, None, None].expand(3, 4, 4), index


def test_chosen_images_keep_their_places_and_boxes(tmp_path: Path) -> None:
    path = numbered(tmp_path / "a.png")
    parts = Images(Images.from_files([path]), [0, 0], boxes=[Box.from_xywh(1, 0, 2, 3), None])
    assert parts.ids == [f"{path}::1,0,2,3", str(path)]
    chosen = pickle.loads(pickle.dumps(parts.take([1, 0, 0]).take([2])))
    assert len(chosen) == 1 and chosen.ids == [f"{path}::1,0,2,3"] and chosen[0][0, 0].tolist() == [1, 2]
    assert Images(Images.from_files([path]), boxes=[Box(0, 0, 1, 0.5, "fractions")]).ids is None


def test_labels_go_with_their_images(tmp_path: Path) -> None:
    paths = [pil_image(tmp_path / f"{name}.png", shade) for name, shade in (("r", RED), ("b", BLUE))]
    data = LabelledImages(Images.from_files(paths), [0, 1], classes=["red", "blue"])
    assert data.keys == ["0", "1"] and data.folders == [] and data.ids == [str(path) for path in paths]
    part = data.take([1])
    assert (part.keys, part.labels, part.classes) == (["1"], [1], ["red", "blue"])
    assert part[0][1] == 1 and color(part[0][0]) == BLUE


def test_sets_are_joined_with_ids_where_all_have_them(tmp_path: Path) -> None:
    path = pil_image(tmp_path / "b.png", BLUE)
    files = LabelledImages(Images.from_files([path]), [1], classes=Own.classes)
    both = joined(files, Own())
    assert (both.labels, both.keys, both.ids) == ([1, 0, 1], ["0", "r", "b"], None)
    assert [color(both[i][0]) for i in range(3)] == [BLUE, RED, BLUE]
    assert joined(files, files).ids == [str(path)] * 2
    assert images_of(files) is files.images and color(images_of(Own())[1]) == BLUE
