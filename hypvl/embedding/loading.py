"""Images on their way to a model: read, transformed and known by digest, in worker processes."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hypvl.data.workers import WorkerIterator
from hypvl.datasets.protocol import ImageSource
from hypvl.embedding.store_files import Entry, image_digest, stamp
from hypvl.errors import DataError
from hypvl.io.images import to_pil


@dataclass(frozen=True)
class Loaded:
    """One image, or why there is none.

    Attributes:
        index: Position in its source.
        pixels: uint8 (3, size, size); None where it cannot be read.
        entry: What a store knows it by; None where nobody asked.
        reason: Why it cannot be read.
    """

    index: int
    pixels: Tensor | None
    entry: Entry | None
    reason: str = ""


@dataclass(frozen=True)
class Keeping:
    """What a store wants to know of each image.

    Attributes:
        ids: By position; None where the source has none.
        thumbnails: Longer side in pixels, 0 = none.
    """

    ids: Sequence[str] | None
    thumbnails: int


def load_batches(
    images: ImageSource,
    batches: Sequence[Sequence[int]],
    *,
    transform: Callable[[Tensor], Tensor],
    num_workers: int,
    keeping: Keeping | None = None,
) -> Iterator[list[Loaded]]:
    """Images at some positions, in batches.

    Args:
        images: Where they are.
        batches: Positions of each batch.
        transform: To the model's size.
        num_workers: Processes that read; 0 = this one.
        keeping: What else to find out; None = nothing.

    Raises:
        DataError: when a process that reads has died.
    """
    loader: DataLoader[list[Loaded]] = DataLoader(
        cast(Dataset[list[Loaded]], _Reader(images, transform, keeping)),
        batch_sampler=[list(batch) for batch in batches],
        num_workers=min(num_workers, sum(map(len, batches))),
        collate_fn=list,
        generator=torch.Generator(),  # the loader seeds its workers from it; the main generator stays as it is
    )
    batches_read = WorkerIterator(loader, setting=f"num_workers={num_workers}")
    try:
        yield from batches_read
    finally:
        batches_read.close()


class _Reader(Dataset[Loaded]):
    """Reads and transforms one image; a failure is a value here, to be counted."""

    def __init__(
        self, images: ImageSource, transform: Callable[[Tensor], Tensor], keeping: Keeping | None
    ) -> None:
        self.images = images
        self.transform = transform
        self.keeping = keeping

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Loaded:
        keeping = self.keeping
        name = "" if keeping is None or keeping.ids is None else keeping.ids[index]
        found = (
            stamp(name) if name else None
        )  # before it is read: a file that changes meanwhile is read again
        try:
            image = self.images[index]
        except DataError as error:
            return Loaded(index, None, None if keeping is None else Entry(name, "", found), str(error))
        if reason := _wrong_kind(image):
            return Loaded(index, None, None if keeping is None else Entry(name, "", found), reason)
        pixels = self.transform(image)
        if keeping is None:
            return Loaded(index, pixels, None)
        small = thumbnail(image, side=keeping.thumbnails) if keeping.thumbnails else b""
        return Loaded(index, pixels, Entry(name, image_digest(pixels), found, small))


def _wrong_kind(image: object) -> str:
    """Why this is no image as data sets give it; empty when it is one."""
    expected = "expected a uint8 tensor (3, h, w)"
    if not isinstance(image, Tensor):
        return f"the data set gives a {type(image).__name__}; {expected}"
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        return f"the data set gives {image.dtype} {tuple(image.shape)}; {expected}"
    return ""


def thumbnail(image: Tensor, *, side: int) -> bytes:
    """An image, uint8 (3, h, w), as a JPEG with a longer side of at most ``side`` pixels."""
    pil_image = to_pil(image)
    pil_image.thumbnail((side, side))
    file = io.BytesIO()
    pil_image.save(file, format="JPEG", quality=80)
    return file.getvalue()
