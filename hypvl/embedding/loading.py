"""Worker processes that read images, transform them to the model's size, and describe them for a store."""

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
        entry: Id, digest and thumbnail for a store; None without a store.
        reason: Why it cannot be read.
    """

    index: int
    pixels: Tensor | None
    entry: Entry | None
    reason: str = ""


@dataclass(frozen=True)
class EntryRequest:
    """What a store needs of each image.

    Attributes:
        ids: Ids by position; None if the source has none.
        thumbnails: Longer side of thumbnails in pixels; 0 = none.
    """

    ids: Sequence[str] | None
    thumbnails: int


def load_batches(
    images: ImageSource,
    batches: Sequence[Sequence[int]],
    *,
    transform: Callable[[Tensor], Tensor],
    num_workers: int,
    request: EntryRequest | None = None,
) -> Iterator[list[Loaded]]:
    """Images at some positions, in batches.

    Args:
        images: The images by position.
        batches: Positions of each batch.
        transform: To the model's size.
        num_workers: Processes that read; 0 = this one.
        request: What a store needs of each image; None = no store.

    Raises:
        DataError: when a worker process has died.
    """
    reader = _Reader(images, transform, request)
    if num_workers == 0:
        yield from ([reader[index] for index in batch] for batch in batches)
        return
    loader: DataLoader[list[Loaded]] = DataLoader(
        cast(Dataset[list[Loaded]], reader),
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
    """Reads and transforms one image. An unreadable image is a value, not an error, so that it can be counted."""

    def __init__(
        self, images: ImageSource, transform: Callable[[Tensor], Tensor], request: EntryRequest | None
    ) -> None:
        self.images = images
        self.transform = transform
        self.request = request

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Loaded:
        request = self.request
        name = "" if request is None or request.ids is None else request.ids[index]
        # Before reading: a file that changes meanwhile will be read again.
        file_stamp = stamp(name) if name else None
        try:
            image = self.images[index]
        except DataError as error:
            return Loaded(index, None, None if request is None else Entry(name, "", file_stamp), str(error))
        if reason := _wrong_kind(image):
            return Loaded(index, None, None if request is None else Entry(name, "", file_stamp), reason)
        pixels = self.transform(image)
        if request is None:
            return Loaded(index, pixels, None)
        small = thumbnail(image, side=request.thumbnails) if request.thumbnails else b""
        return Loaded(index, pixels, Entry(name, image_digest(pixels), file_stamp, small))


def _wrong_kind(image: object) -> str:
    """Why this is not an image tensor; empty if it is one."""
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
