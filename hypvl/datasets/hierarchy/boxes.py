"""Readers of images with boxes: each box a part of the image with a phrase for it. COCO, the demo, JSON lines."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.datasets.files import image_place, open_table, read_json, require_folder
from hypvl.datasets.images import FileImages
from hypvl.datasets.protocol import ImageSource
from hypvl.errors import DataError, MissingDataError
from hypvl.io.json_text import by_id


@dataclass(frozen=True)
class Box:
    """A part of an image.

    Attributes:
        image: Position of the image.
        corners: (left, top, right, bottom) in fractions of the image, left < right, top < bottom.
        phrase: What the part shows.
    """

    image: int
    corners: tuple[float, float, float, float]
    phrase: str


class BoxedImages:
    """Images, a caption of each, and boxes.

    Args:
        images: Read when asked for.
        captions: One for each image.
        boxes: Parts, at least one.
        keys: A name for each image.

    Raises:
        DataError: when the numbers do not fit, or corners are not in order within the image.
    """

    def __init__(
        self, images: ImageSource, captions: Sequence[str], boxes: Sequence[Box], *, keys: Sequence[str]
    ) -> None:
        if len(captions) != len(images) or len(keys) != len(images) or not boxes:
            raise DataError(
                f"boxes: got {len(images)} images, {len(captions)} captions, {len(keys)} keys, {len(boxes)} "
                "boxes; expected a caption and a key an image, and at least one box."
            )
        for box in boxes:
            left, top, right, bottom = box.corners
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1 and 0 <= box.image < len(images)):
                raise DataError(
                    f"boxes: {keys[box.image] if 0 <= box.image < len(keys) else box.image} has the box {box.corners}; "
                    "expected left < right and top < bottom in fractions of the image."
                )
        self.images = images
        self.captions = list(captions)
        self.boxes = list(boxes)
        self.keys = list(keys)
        self.crops = Crops(images, self.boxes)


class Crops:
    """The boxes cut out, each read with its image when asked for; every pixel a box touches belongs to it."""

    def __init__(self, images: ImageSource, boxes: Sequence[Box]) -> None:
        self.images = images
        self.boxes = boxes

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: int) -> Tensor:
        """uint8 (3, h, w), h, w >= 1; raises DataError for an image that cannot be read."""
        box = self.boxes[index]
        pil_image = self.images[box.image]
        height, width = pil_image.shape[1:]
        left, top, right, bottom = box.corners
        return pil_image[
            :,
            math.floor(top * height) : max(math.ceil(bottom * height), math.floor(top * height) + 1),
            math.floor(left * width) : max(math.ceil(right * width), math.floor(left * width) + 1),
        ]


@configurable("evaluate")
def coco_boxes(
    root: str | Path, *, split: str = "val2017", per_image: int = 5, min_size: int = 32, crowd: bool = False
) -> BoxedImages:
    """COCO's objects as parts: ``annotations/instances_<split>.json``, ``captions_<split>.json``, ``<split>/``.

    The phrase of a box is the name of its category; of each image the largest boxes are taken, and its first caption.
    Images without a box or caption are left out.

    Args:
        root: Folder of COCO.
        split: ``val2017`` or another one with instances and captions.
        per_image: At most so many boxes of an image.
        min_size: Pixels that the shorter side of a box must have.
        crowd: Whether boxes around crowds count.

    Raises:
        MissingDataError: naming the file or folder that is not there.
        DataError: for a file that is built differently.
    """
    root = Path(root)
    path = root / "annotations" / f"instances_{split}.json"
    instances, captions = read_json(path), read_json(path.with_name(f"captions_{split}.json"))
    require_folder(root / split, f"the images of COCO {split}")
    try:
        categories = by_id(instances["categories"], lambda entry: str(entry["name"]))
        sizes = by_id(
            instances["images"], lambda e: (str(e["file_name"]), float(e["width"]), float(e["height"]))
        )
        texts: dict[Any, str] = {}
        for entry in captions["annotations"]:
            texts.setdefault(entry["image_id"], str(entry["caption"]).strip())
        found: dict[Any, list[tuple[float, tuple[float, float, float, float], str]]] = {}
        for entry in instances["annotations"]:
            if (entry.get("iscrowd") and not crowd) or entry["image_id"] not in texts:
                continue
            _, width, height = sizes[entry["image_id"]]
            x, y, w, h = map(float, entry["bbox"])
            if min(w, h) >= max(1.0, min_size):
                corners = (x / width, y / height, (x + w) / width, (y + h) / height)
                inside = tuple(min(max(value, 0.0), 1.0) for value in corners)
                phrase = categories[entry["category_id"]]
                found.setdefault(entry["image_id"], []).append((w * h, inside, phrase))  # type: ignore[arg-type]  # four
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); expected COCO's images (id, file_name, width, "
            "height), categories (id, name) and annotations (image_id, category_id, bbox), and its captions."
        ) from error
    kept = [image for image in sizes if image in found]
    boxes = [
        Box(at, corners, phrase)
        for at, image in enumerate(kept)
        for _, corners, phrase in sorted(found[image], key=lambda entry: -entry[0])[:per_image]
    ]
    names = [sizes[image][0] for image in kept]
    return _from_files(
        path,
        [image_place(path, root / split, name) for name in names],
        [texts[i] for i in kept],
        boxes,
        names,
    )


@configurable("evaluate")
def jsonl_boxes(path: str | Path, *, images_root: str | Path | None = None) -> BoxedImages:
    """Boxes of any images: one JSON object a line.

    ``{"image": "a.jpg", "caption": "...", "boxes": [{"box": [left, top, right, bottom], "phrase": "..."}]}``, corners
    in fractions of the image. Lines without boxes are left out.

    Args:
        path: The file.
        images_root: Folder that images are named from, and may not leave; None = the folder of the file.

    Raises:
        MissingDataError: when the file or all images are not there.
        DataError: naming the line that cannot be used.
    """
    path = Path(path)
    entries = [fields for _, fields in open_table(path).usable_rows()]
    return _from_entries(path, entries, images_root)


def _from_entries(path: Path, entries: Sequence[Any], root: str | Path | None) -> BoxedImages:
    names: list[str] = []
    captions: list[str] = []
    boxes: list[Box] = []
    for number, entry in enumerate(entries, start=1):
        try:
            parts = [(tuple(map(float, box["box"])), str(box["phrase"])) for box in entry["boxes"]]
            name, caption = str(entry["image"]), str(entry["caption"])
            if any(len(corners) != 4 for corners, _ in parts):
                raise ValueError("a box without four corners")
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f'{path}, entry {number}: cannot be used ({type(error).__name__}: {error}); expected {{"image", '
                '"caption", "boxes": [{"box": [left, top, right, bottom], "phrase"}]}.'
            ) from error
        if parts:
            boxes += [Box(len(names), corners, phrase) for corners, phrase in parts]  # type: ignore[arg-type]  # four
            names.append(name)
            captions.append(caption)
    return _from_files(path, [image_place(path, root, name) for name in names], captions, boxes, names)


def _from_files(
    source: Path, paths: list[Path], captions: list[str], boxes: list[Box], keys: list[str]
) -> BoxedImages:
    if not boxes:
        raise DataError(f"{source}: has no box that can be used; expected at least one.")
    if not any(path.is_file() for path in paths):
        raise MissingDataError(
            f"{source}: none of its {len(paths)} images is there, such as {paths[0]}; put them there."
        )
    return BoxedImages(FileImages(paths), captions, boxes, keys=keys)
