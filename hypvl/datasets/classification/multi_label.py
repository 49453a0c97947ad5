"""Readers of images with several labels each: PASCAL VOC 2007, COCO's objects, and lists of image and labels.

They raise MissingDataError when files, or all images, are not there, and DataError naming the line or entry that cannot
be used.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from hypvl.allowlist import configurable
from hypvl.checks import natural_number, one_of
from hypvl.datasets.files import (
    image_place,
    open_table,
    read_json,
    read_lines,
    require_files,
    require_folder,
    require_images,
)
from hypvl.datasets.images import Images, LabelledImages
from hypvl.errors import DataError, MissingDataError
from hypvl.io.json_text import by_id, expecting

VocSplit: TypeAlias = Literal["train", "val", "trainval", "test"]

#: VOC's classes as its files call them, and as prompts say them.
VOC_CLASSES: Mapping[str, str] = {
    "aeroplane": "aeroplane", "bicycle": "bicycle", "bird": "bird", "boat": "boat", "bottle": "bottle", "bus": "bus",
    "car": "car", "cat": "cat", "chair": "chair", "cow": "cow", "diningtable": "dining table", "dog": "dog",
    "horse": "horse", "motorbike": "motorbike", "person": "person", "pottedplant": "potted plant", "sheep": "sheep",
    "sofa": "sofa", "train": "train", "tvmonitor": "tv monitor",
}  # fmt: skip


class MultiLabelImages(LabelledImages):
    """A classification set whose images have several labels, and classes that do not count for some images.

    Args: as :class:`~hypvl.datasets.images.LabelledImages`, labels being tuples of classes, and
        ignored: For each image the classes for which it is neither positive nor negative; None = none of any.
    """

    def __init__(
        self,
        images: Images,
        labels: Sequence[tuple[int, ...]],
        *,
        classes: Sequence[str],
        keys: Sequence[str],
        ignored: Sequence[tuple[int, ...]] | None = None,
    ) -> None:
        super().__init__(images, labels, classes=classes, keys=keys)
        self.ignored: list[tuple[int, ...]] = [()] * len(labels) if ignored is None else list(ignored)
        if len(self.ignored) != len(self.labels):
            raise DataError(
                f"ignored: got {len(self.ignored)} for {len(self.labels)} images; expected one each."
            )

    def take(self, indices: Sequence[int]) -> "MultiLabelImages":
        """Some of the images with their labels, in the order of ``indices``; the classes stay."""
        return MultiLabelImages(
            self.images.take(indices),
            [self.labels[i] for i in indices],
            classes=self.classes,
            keys=[self.keys[i] for i in indices],
            ignored=[self.ignored[i] for i in indices],
        )


@configurable("evaluate")
def voc2007(root: str | Path, *, split: VocSplit = "test") -> MultiLabelImages:
    """PASCAL VOC 2007, image classification: ``VOC2007/ImageSets/Main/<class>_<split>.txt``, ``VOC2007/JPEGImages/``.

    A line is ``000001 -1``: image and 1 (there is an object), -1 (there is none) or 0 (there are only difficult ones:
    the image does not count for this class).

    Args:
        root: Folder that holds ``VOCdevkit/VOC2007`` or ``VOC2007``, or that folder itself.

    Source: Everingham et al. 2010, "The PASCAL Visual Object Classes (VOC) Challenge".
    """
    one_of("split", split, VocSplit)
    places = [Path(root, part) for part in ("VOCdevkit/VOC2007", "VOC2007", "")]
    folder = next((place for place in places if (place / "ImageSets" / "Main").is_dir()), None)
    if folder is None:
        raise MissingDataError(
            f"{places[0]}: has no ImageSets/Main (looked in {Path.cwd()}); unpack VOCtest_06-Nov-2007.tar and "
            f"VOCtrainval_06-Nov-2007.tar (host.robots.ox.ac.uk/pascal/VOC/voc2007) into {root}."
        )
    lists = {name: folder / "ImageSets" / "Main" / f"{name}_{split}.txt" for name in VOC_CLASSES}
    require_files(list(lists.values()), f"unpack the archive of VOC 2007's {split} split there")
    positive: dict[str, list[int]] = {}
    difficult: dict[str, list[int]] = {}
    for label, path in enumerate(lists.values()):
        for number, line in enumerate(read_lines(path), start=1):
            name, value = (*line.split(), "", "")[:2]
            if value not in ("1", "-1", "0"):
                raise DataError(f"{path}, line {number}: is {line[:60]!r}; expected an image and 1, -1 or 0.")
            positive.setdefault(name, [])
            if value != "-1":
                (positive if value == "1" else difficult).setdefault(name, []).append(label)
    names = sorted(positive)
    paths = [folder / "JPEGImages" / f"{name}.jpg" for name in names]
    require_images(paths, source=folder / "ImageSets" / "Main", what="VOC 2007's JPEGImages")
    return MultiLabelImages(
        Images.from_files(paths),
        [tuple(positive[name]) for name in names],
        classes=list(VOC_CLASSES.values()),
        keys=names,
        ignored=[tuple(difficult.get(name, ())) for name in names],
    )


@configurable("evaluate")
def coco_labels(root: str | Path, *, split: str = "val2017") -> MultiLabelImages:
    """COCO's 80 categories as labels: ``root/annotations/instances_<split>.json`` and the images in ``root/<split>/``.

    An image has the label of each category with an annotation, crowds included; images without any stay, as
    negatives of every class.

    Args:
        split: ``val2017``, or another one with instances, such as ``val2014``.
    """
    path = Path(root) / "annotations" / f"instances_{split}.json"
    require_files([path], "put COCO's annotations there (images.cocodataset.org/annotations)")
    content = read_json(path)
    folder = Path(root) / split
    require_folder(folder, f"the images of COCO {split}")
    with expecting(path, "COCO's images (id, file_name), categories (id, name) and annotations"):
        categories = by_id(content["categories"], lambda entry: str(entry["name"]))
        files = by_id(content["images"], lambda entry: str(entry["file_name"]))
        class_of = {identity: label for label, identity in enumerate(categories)}
        labels: dict[Any, set[int]] = {identity: set() for identity in files}
        for entry in content["annotations"]:
            labels[entry["image_id"]].add(class_of[entry["category_id"]])
    paths = [image_place(path, folder, name) for name in files.values()]
    require_images(paths, source=path)
    return MultiLabelImages(
        Images.from_files(paths),
        [tuple(sorted(own)) for own in labels.values()],
        classes=list(categories.values()),
        keys=list(files.values()),
    )


@configurable("evaluate")
def label_lists(
    path: str | Path,
    *,
    images_root: str | Path | None = None,
    classes: Sequence[str] | None = None,
    image_column: str = "image",
    label_column: str = "labels",
    separator: str = ";",
) -> MultiLabelImages:
    """Images with the names, or numbers, of their classes: ``{"image": path, "labels": ["cube", "sphere"]}`` a line.

    Args:
        path: ``.jsonl``, a JSON list, or a CSV or TSV, where labels are one text.
        images_root: What the paths are relative to, and may not leave; None = the file's folder.
        classes: Names in the order of the numbers; None = labels are names, and the classes those that occur, sorted.
        image_column: Column, or key, of the path.
        label_column: Column, or key, of the labels.
        separator: Between the labels in one text.
    """
    path = Path(path)
    rows: list[tuple[str, str, list[int | str]]] = []
    for place, fields in open_table(path).usable_rows():
        name, value = fields.get(image_column), fields.get(label_column)
        if isinstance(value, str):
            value = [part.strip() for part in value.split(separator) if part.strip()]
        valid = isinstance(value, list) and all(
            isinstance(part, str | int) and not isinstance(part, bool) for part in value
        )
        if not isinstance(name, str) or not valid or value is None:
            raise DataError(
                f'{path}, {place}: expected {{"{image_column}": path, "{label_column}": names of classes}}; got '
                f"{str(fields)[:80]}."
            )
        rows.append((place, name, value))
    names = sorted({str(part) for _, _, own in rows for part in own}) if classes is None else list(classes)
    number = {name: i for i, name in enumerate(names)}
    labels = [
        tuple(sorted({_class(part, number, f"{path}, {place}") for part in own})) for place, _, own in rows
    ]
    paths = [image_place(path, images_root, name) for _, name, _ in rows]
    require_images(paths, source=path, what="its images (see images_root)")
    return MultiLabelImages(
        Images.from_files(paths), labels, classes=names, keys=[name for _, name, _ in rows]
    )


def _class(label: int | str, number: Mapping[str, int], where: str) -> int:
    place = number.get(str(label))
    if place is None:
        place = natural_number(str(label))
    if place is None or place >= len(number):
        raise DataError(
            f"{where}: has the label {label!r}; expected one of the {len(number)} classes, by name or 0 ... "
            f"{len(number) - 1}."
        )
    return place
