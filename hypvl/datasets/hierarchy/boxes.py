"""Readers of images with boxes: each box a part of the image with a phrase for it. COCO, JSON lines.

They raise MissingDataError when files, or all images, are not there, and DataError, naming the entry, for what cannot
be used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypvl.allowlist import configurable
from hypvl.datasets.files import image_place, open_table, read_json, require_folder, require_images
from hypvl.datasets.images import Box, Images
from hypvl.datasets.protocol import ImageSource
from hypvl.errors import DataError
from hypvl.io.json_text import by_id, expecting


@dataclass(frozen=True)
class Part:
    """A part of an image."""

    image: int  # its position
    box: Box  # where it is, in fractions of the image
    phrase: str  # what it shows


class BoxedImages:
    """Images, a caption of each, and boxes.

    Args:
        images: Read when asked for.
        captions: One for each image.
        parts: At least one.
        keys: A name for each image.

    Raises:
        DataError: when the numbers do not fit, or corners are not in order within the image.
    """

    def __init__(
        self, images: ImageSource, captions: Sequence[str], parts: Sequence[Part], *, keys: Sequence[str]
    ) -> None:
        if len(captions) != len(images) or len(keys) != len(images) or not parts:
            raise DataError(
                f"boxes: got {len(images)} images, {len(captions)} captions, {len(keys)} keys, {len(parts)} "
                "boxes; expected a caption and a key an image, and at least one box."
            )
        for part in parts:
            left, top, right, bottom = part.box.left, part.box.top, part.box.right, part.box.bottom
            inside = 0 <= left < right <= 1 and 0 <= top < bottom <= 1 and part.box.unit == "fractions"
            if not inside or not 0 <= part.image < len(images):
                raise DataError(
                    f"boxes: {keys[part.image] if 0 <= part.image < len(keys) else part.image} has the box "
                    f"{left, top, right, bottom} in {part.box.unit}; expected left < right and top < bottom in "
                    "fractions of the image."
                )
        self.images = images
        self.captions = list(captions)
        self.parts = list(parts)
        self.keys = list(keys)
        #: The parts cut out, each read with its image; every pixel that a box touches belongs to its part.
        self.crops = Images(images, [part.image for part in parts], boxes=[part.box for part in parts])


@configurable("evaluate")
def coco_boxes(
    root: str | Path, *, split: str = "val2017", per_image: int = 5, min_size: int = 32, crowd: bool = False
) -> BoxedImages:
    """COCO's objects as parts: ``annotations/instances_<split>.json``, ``captions_<split>.json``, ``<split>/``.

    The phrase of a box is the name of its category; of each image the largest boxes are taken, and its first caption.
    Images without a box or caption are left out.

    Args:
        split: ``val2017`` or another one with instances and captions.
        per_image: At most so many boxes of an image.
        min_size: Pixels that the shorter side of a box must have.
        crowd: Whether boxes around crowds count.
    """
    root = Path(root)
    path = root / "annotations" / f"instances_{split}.json"
    instances, captions = read_json(path), read_json(path.with_name(f"captions_{split}.json"))
    require_folder(root / split, f"the images of COCO {split}")
    layout = (
        "COCO's images (id, file_name, width, height), categories (id, name) and annotations (image_id, category_id, "
        "bbox), and its captions"
    )
    with expecting(path, layout):
        categories = by_id(instances["categories"], lambda entry: str(entry["name"]))
        sizes = by_id(
            instances["images"], lambda e: (str(e["file_name"]), float(e["width"]), float(e["height"]))
        )
        texts: dict[Any, str] = {}
        for entry in captions["annotations"]:
            texts.setdefault(entry["image_id"], str(entry["caption"]).strip())
        by_image: dict[Any, list[tuple[float, Box, str]]] = {}  # (area in pixels, box, phrase)
        for entry in instances["annotations"]:
            if (entry.get("iscrowd") and not crowd) or entry["image_id"] not in texts:
                continue
            _, width, height = sizes[entry["image_id"]]
            x, y, w, h = map(float, entry["bbox"])
            if min(w, h) >= max(1.0, min_size):
                edges = (x / width, y / height, (x + w) / width, (y + h) / height)
                left, top, right, bottom = (min(max(value, 0.0), 1.0) for value in edges)
                box = Box(left, top, right, bottom, "fractions")
                by_image.setdefault(entry["image_id"], []).append(
                    (w * h, box, categories[entry["category_id"]])
                )
    retained = [image for image in sizes if image in by_image]
    parts = [
        Part(at, box, phrase)
        for at, image in enumerate(retained)
        for _, box, phrase in sorted(by_image[image], key=lambda entry: -entry[0])[:per_image]
    ]
    names = [sizes[image][0] for image in retained]
    return _from_files(path, root / split, names, captions=[texts[i] for i in retained], parts=parts)


@configurable("evaluate")
def jsonl_boxes(path: str | Path, *, images_root: str | Path | None = None) -> BoxedImages:
    """Boxes of any images: one JSON object a line.

    ``{"image": "a.jpg", "caption": "...", "boxes": [{"box": [left, top, right, bottom], "phrase": "..."}]}``, corners
    in fractions of the image. Lines without boxes are left out.

    Args:
        images_root: Folder that images are named from, and may not leave; None = the folder of the file.
    """
    path = Path(path)
    entries = [fields for _, fields in open_table(path).usable_rows()]
    return boxes_from_entries(path, entries, images_root)


def boxes_from_entries(path: Path, entries: Sequence[Any], root: str | Path | None) -> BoxedImages:
    """Boxes from entries ``{"image", "caption", "boxes": [{"box": [left, top, right, bottom], "phrase"}]}``.

    Args:
        path: The file they stand in.
        entries: One for each image; those without boxes are left out.
        root: As ``images_root`` of :func:`jsonl_boxes`.
    """
    names: list[str] = []
    captions: list[str] = []
    parts: list[Part] = []
    layout = '{"image", "caption", "boxes": [{"box": [left, top, right, bottom], "phrase"}]}'
    for number, entry in enumerate(entries, start=1):
        with expecting(f"{path}, entry {number}", layout):
            name, caption = str(entry["image"]), str(entry["caption"])
            own = []
            for box in entry["boxes"]:
                left, top, right, bottom = map(float, box["box"])
                own.append(Part(len(names), Box(left, top, right, bottom, "fractions"), str(box["phrase"])))
        if own:
            parts += own
            names.append(name)
            captions.append(caption)
    return _from_files(path, root, names, captions=captions, parts=parts)


def _from_files(
    source: Path, root: str | Path | None, names: list[str], *, captions: list[str], parts: list[Part]
) -> BoxedImages:
    if not parts:
        raise DataError(f"{source}: has no box that can be used; expected at least one.")
    paths = [image_place(source, root, name) for name in names]
    require_images(paths, source=source)
    return BoxedImages(Images.from_files(paths), captions, parts, keys=names)
