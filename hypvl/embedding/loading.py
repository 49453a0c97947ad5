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
from hypvl.embedding.store_files import NO_STAMP, Entry, image_digest, stamp
from hypvl.errors import DataError
from hypvl.io.images import to_pil


@dataclass(frozen=True)
class Loaded:
    """One image of a source, or why there is none."""

    index: int
    pixels: Tensor | None  # uint8 (3, size, size); None where it cannot be read
    entry: Entry | None  # for a store; None without one
    reason: str = ""


def load_batches(
    images: ImageSource,
    batches: Sequence[Sequence[int]],
    *,
    transform: Callable[[Tensor], Tensor],
    num_workers: int,
    ids: Sequence[str] | None = None,
    thumbnails: int | None = None,
) -> Iterator[list[Loaded]]:
    """Images at some positions, in batches.

    Args:
        batches: Positions of each batch.
        transform: To the model's size.
        num_workers: Processes that read; 0 = this one.
        ids: By position, for the entries of a store.
        thumbnails: Longer side in pixels of the thumbnails of entries, 0 = no thumbnails; None = no entries.

    Raises:
        DataError: when a worker process has died.
    """
    reader = _Reader(images, transform, ids, thumbnails)
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
        self,
        images: ImageSource,
        transform: Callable[[Tensor], Tensor],
        ids: Sequence[str] | None,
        thumbnails: int | None,
    ) -> None:
        self.images = images
        self.transform = transform
        self.ids = ids
        self.thumbnails = thumbnails

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Loaded:
        name = self.ids[index] if self.ids is not None else ""
        # Before reading: a file that changes meanwhile will be read again.
        file_stamp = stamp(name) if name else NO_STAMP
        try:
            image = self.images[index]
            _check_kind(image)
        except DataError as error:
            entry = None if self.thumbnails is None else Entry(name, "", file_stamp)
            return Loaded(index, None, entry, str(error))
        pixels = self.transform(image)
        if self.thumbnails is None:
            return Loaded(index, pixels, None)
        small = _thumbnail(image, side=self.thumbnails) if self.thumbnails else b""
        return Loaded(index, pixels, Entry(name, image_digest(pixels), file_stamp, small))


def _check_kind(image: object) -> None:
    if not isinstance(image, Tensor):
        kind = f"a {type(image).__name__}"
    elif image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        kind = f"{image.dtype} {tuple(image.shape)}"
    else:
        return
    raise DataError(f"the data set gives {kind}; expected a uint8 tensor (3, h, w)")


def _thumbnail(image: Tensor, *, side: int) -> bytes:
    """An image, uint8 (3, h, w), as a JPEG with a longer side of at most ``side`` pixels."""
    pil_image = to_pil(image)
    pil_image.thumbnail((side, side))
    file = io.BytesIO()
    pil_image.save(file, format="JPEG", quality=80)
    return file.getvalue()
