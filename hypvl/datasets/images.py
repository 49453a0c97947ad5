"""Images of evaluation sets by position, read when asked for: from files and TARs, whole or parts, with labels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from torch import Tensor
from torch.utils.data import ConcatDataset

from hypvl.checks import one_of
from hypvl.data.shards import shard_index
from hypvl.data.storage import FileHandles, LocalFile, Source, open_source
from hypvl.data.tar_index import MemberError, ReadAhead, TarIndex, build_index, read_members
from hypvl.datasets.protocol import ClassificationSet, ImageSource
from hypvl.errors import DataError
from hypvl.io.images import ImageError, decode_image, read_image_file
from hypvl.io.tar import Read

_READ_AHEAD = 1 << 20  # bytes read together from a server
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm")


def read_image(path: Path) -> Tensor:
    """An image file as uint8 (3, h, w); raises DataError naming it when it is missing or not an image."""
    try:
        return read_image_file(path)
    except ImageError as error:
        raise DataError(f"{path}: {error}.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error


class ImagesByStem:
    """The images of a folder, without those of folders in it, by their names without extension."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths: dict[str, list[Path]] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower().lstrip(".") in IMAGE_EXTENSIONS and path.name[0] != ".":
                self._paths.setdefault(path.stem, []).append(path)

    def get(self, stem: str) -> Path | None:
        """The image, None when there is none; raises DataError when there are two of this name."""
        paths = self._paths.get(stem, [])
        if len(paths) > 1:
            raise DataError(
                f"{self._folder}: has {' and '.join(path.name for path in paths)} for {stem!r}; expected one image."
            )
        return paths[0] if paths else None


Unit: TypeAlias = Literal["pixels", "fractions"]


@dataclass(frozen=True)
class Box:
    """A rectangle of an image, by its edges measured from the upper left corner."""

    left: float  # in ``unit``, as are the others
    top: float  # above ``bottom``
    right: float  # the first column to the right of the rectangle
    bottom: float  # the first row below it
    unit: Unit  # pixels may reach over the border; fractions are of the image's width and height

    def __post_init__(self) -> None:
        one_of("unit", self.unit, Unit)

    @classmethod
    def from_xywh(cls, x: int, y: int, w: int, h: int) -> "Box":
        """From its upper left corner, its width and its height in pixels."""
        return cls(x, y, x + w, y + h, "pixels")

    @property
    def xywh(self) -> tuple[float, float, float, float]:
        """Upper left corner, width and height, in ``unit``."""
        return self.left, self.top, self.right - self.left, self.bottom - self.top

    def cut(self, image: Tensor) -> Tensor:
        """The pixels of an image (3, H, W) that the box touches, (3, h, w); h or w is 0 where it is outside."""
        height, width = image.shape[1:]
        if self.unit == "fractions":
            top, left = math.floor(self.top * height), math.floor(self.left * width)
            bottom = max(math.ceil(self.bottom * height), top + 1)
            right = max(math.ceil(self.right * width), left + 1)
        else:
            left, top, right, bottom = (
                max(0, round(edge)) for edge in (self.left, self.top, self.right, self.bottom)
            )
        return image[:, top:bottom, left:right]


class Images:
    """Images by position, read when asked for: all, some, or parts of those of a source.

    Args:
        source: Where they are read.
        indices: Which images of the source, in order; None = all.
        boxes: The part to cut out of each; None = the whole image.
    """

    def __init__(
        self,
        source: ImageSource,
        indices: Sequence[int] | None = None,
        *,
        boxes: Sequence[Box | None] | None = None,
    ) -> None:
        self._source = source
        self._indices: Sequence[int] = range(len(source)) if indices is None else list(indices)
        self._boxes = [None] * len(self._indices) if boxes is None else list(boxes)

    @classmethod
    def from_files(cls, paths: Sequence[Path]) -> "Images":
        """The images of some files."""
        return cls(_Files(paths))

    @classmethod
    def from_tars(cls, places: Sequence[Path | str]) -> "Images":
        """The images of some TARs, see :class:`TarMembers`."""
        return cls(TarMembers(places))

    @property
    def ids(self) -> list[str] | None:
        """Where each image is, ``<path>`` or ``<path>::<part of it>``; None where the source does not say."""
        ids: Sequence[str] | None = getattr(self._source, "ids", None)
        if ids is None or any(box is not None and box.unit != "pixels" for box in self._boxes):
            return None
        return [
            ids[i] if box is None else f"{ids[i]}::{','.join(map(str, box.xywh))}"
            for i, box in zip(self._indices, self._boxes, strict=True)
        ]

    def take(self, indices: Sequence[int]) -> "Images":
        """Some of the images, in the order of ``indices``."""
        boxes = [self._boxes[i] for i in indices]
        return Images(self._source, [self._indices[i] for i in indices], boxes=boxes)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Tensor:
        """uint8 (3, h, w); raises DataError naming the image, also when it has no pixels in its box."""
        image = self._source[self._indices[index]]
        box = self._boxes[index]
        if box is None:
            return image
        part = box.cut(image)
        if not part.numel():
            ids: Sequence[str] | None = getattr(self._source, "ids", None)
            name = f"image {index}" if ids is None else ids[self._indices[index]]
            raise DataError(
                f"{name}: has no pixels in its box (x, y, w, h) = {box.xywh}; the image is "
                f"{image.shape[2]} x {image.shape[1]} pixels."
            )
        return part


class LabelledImages:
    """A classification set: images with a label each.

    Args:
        images: Read when asked for.
        labels: The class of each, or for sets with several labels an image a tuple of classes.
        classes: Names in the order of the labels.
        keys: A name for each image; None = its position.
        prompts: Templates, or whole prompts by class name; None = the set has none of its own.
        folders: The class folders in the order of the classes; empty where the images do not lie in such folders.
        groups: A group of each image, such as the region it is from; empty where the set has none.
    """

    def __init__(
        self,
        images: ImageSource,
        labels: Sequence[Any],
        *,
        classes: Sequence[str],
        keys: Sequence[str] | None = None,
        prompts: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        folders: Sequence[str] = (),
        groups: Sequence[str] = (),
    ) -> None:
        self.images = images if isinstance(images, Images) else Images(images)
        self.labels: list[Any] = list(labels)
        self.classes = list(classes)
        self.keys = [str(i) for i in range(len(self.labels))] if keys is None else list(keys)
        self.prompts = prompts
        self.folders = list(folders)
        self.groups = list(groups)

    @property
    def ids(self) -> list[str] | None:
        """Where each image is; None where the images do not say."""
        return self.images.ids

    def take(self, indices: Sequence[int]) -> "LabelledImages":
        """Some of the images with their labels, in the order of ``indices``; the classes stay."""
        return LabelledImages(
            self.images.take(indices),
            [self.labels[i] for i in indices],
            classes=self.classes,
            keys=[self.keys[i] for i in indices],
            prompts=self.prompts,
            folders=self.folders,
            groups=[self.groups[i] for i in indices] if self.groups else (),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        """(uint8 (3, h, w), label); raises DataError naming the image."""
        return self.images[index], self.labels[index]


def images_of(dataset: ClassificationSet) -> Images:
    """The images of a classification set, without their labels."""
    return dataset.images if isinstance(dataset, LabelledImages) else Images(_WithoutLabels(dataset))


def joined(*sets: ClassificationSet) -> LabelledImages:
    """The images of classification sets with the same classes, one set after the other."""
    return LabelledImages(
        _Joined([images_of(part) for part in sets]),
        [label for part in sets for label in part.labels],
        classes=sets[0].classes,
        keys=[key for part in sets for key in part.keys],
        prompts=sets[0].prompts,
    )


class _WithoutLabels:
    def __init__(self, dataset: ClassificationSet) -> None:
        self._dataset = dataset
        self.ids: Sequence[str] | None = getattr(dataset, "ids", None)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Tensor:
        return self._dataset[index][0]


class _Joined(ConcatDataset[Tensor]):
    def __init__(self, parts: Sequence[Images]) -> None:
        super().__init__(cast(Any, parts))  # indexed as datasets are
        ids = [part.ids for part in parts]
        self.ids = None if None in ids else [image for own in ids if own is not None for image in own]


class _Files:
    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)

    @property
    def ids(self) -> list[str]:
        return [str(path) for path in self._paths]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        return read_image(self._paths[index])


@dataclass(frozen=True)
class _Tar:
    source: Source
    read: Read
    index: TarIndex


class TarMembers:
    """The samples of TARs in their order: each has a key and members by extension, which are read from their place.

    Args:
        paths: The TARs: files, or http(s) addresses (read by range requests, downloaded once into the user's
            cache where the server has none).

    Raises:
        DataError: for a file that is not a TAR, or is cut off: a part of a test set is another test set.
    """

    def __init__(self, paths: Sequence[Path | str]) -> None:
        handles = FileHandles()
        self._samples: list[tuple[_Tar, int]] = []
        for path in paths:
            try:
                source = open_source(str(path), handles)
                read: Read = source.read
                if isinstance(source, LocalFile):
                    index = build_index(ReadAhead(read, source.block), source.size(), source.place)
                else:
                    index = shard_index(source)
                    read = ReadAhead(read, _READ_AHEAD)  # samples are asked for in order
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
            if index.damage is not None:
                raise DataError(f"{source.place}: {index.damage}; download it again.")
            tar = _Tar(source, read, index)
            self._samples += [(tar, sample) for sample in range(len(index))]

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def ids(self) -> list[str]:
        """Where each sample is: ``<path of the TAR>::<key in it>``."""
        return [f"{tar.source.place}::{tar.index.key(sample)}" for tar, sample in self._samples]

    def key(self, i: int) -> str:
        """``<name of the TAR>/<key in it>``."""
        tar, sample = self._samples[i]
        return f"{tar.source.name}/{tar.index.key(sample)}"

    def extensions(self, i: int) -> list[str]:
        """Extensions of the members of sample i, in the order of the TAR."""
        tar, sample = self._samples[i]
        return [extension for extension, _, _ in tar.index.members(sample)]

    def read(self, i: int, extension: str) -> bytes:
        """Content of one member; raises DataError when the sample has no such member."""
        tar, sample = self._samples[i]
        try:
            contents = read_members(tar.read, tar.index, sample, {extension})
        except (OSError, MemberError) as error:
            raise DataError(f"{self.key(i)}: cannot be read ({error}).") from error
        if extension in contents:
            return contents[extension]
        raise DataError(f"{self.key(i)}: has no .{extension} member; it has {', '.join(self.extensions(i))}.")

    def __getitem__(self, i: int) -> Tensor:
        """The image of sample i, uint8 (3, h, w); raises DataError naming the sample."""
        extension = next((e for e in self.extensions(i) if e in IMAGE_EXTENSIONS), None)
        if extension is None:
            raise DataError(f"{self.key(i)}: has no image; it has {', '.join(self.extensions(i))}.")
        try:
            return decode_image(self.read(i, extension))
        except ImageError as error:
            raise DataError(f"{self.key(i)}: {error}.") from error
