"""Images, each with one caption of its own: what gaps, orders and audits are measured on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hypvl.data.transforms import Squeeze
from hypvl.datasets.images import Images
from hypvl.datasets.protocol import RetrievalSet
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import check_embeddings
from hypvl.errors import DataError


@dataclass(frozen=True)
class EncodedPairs:
    """Embeddings of N images and their captions, row by row, on the CPU."""

    images: Tensor  # (N, D)
    texts: Tensor  # (N, D)
    keys: list[str]  # what the images are called
    captions: list[str]
    meta: dict[str, Any]  # for a result: how many ``images`` the data set has, and ``pairs``


def first_captions(dataset: RetrievalSet) -> dict[int, str]:
    """Position of each image that has captions, ascending -> its first caption."""
    first: dict[int, str] = {}
    for caption, image in zip(dataset.captions, dataset.caption_image, strict=True):
        first.setdefault(image, caption)
    return dict(sorted(first.items()))


def evenly(items: Sequence[int], limit: int | None) -> list[int]:
    """At most ``limit`` of the items, evenly spread over them; None = all."""
    count = len(items) if limit is None else min(limit, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def encode_pairs(
    encoder: CachedEncoder, dataset: RetrievalSet, *, limit: int | None = None, what: str
) -> EncodedPairs:
    """Pair every image that can be read and has captions with its first one, and encode both.

    Args:
        limit: At most so many images, evenly spread over those with captions; None = all.
        what: The measurement, for messages.

    Raises:
        DataError: when fewer than two pairs are left.
        UserError: when embeddings hold NaN.
    """
    first = first_captions(dataset)
    positions = evenly(list(first), limit)
    transform = Squeeze.of(encoder.model)
    encoded = encoder.encode_images(Images(dataset.images, positions), transform=transform)
    readable = [positions[row] for row in encoded.indices.tolist()]
    if len(readable) < 2:
        raise DataError(
            f"{what}: {len(readable)} readable images with a caption; expected at least 2 to compare."
        )
    captions = [first[image] for image in readable]
    texts = encoder.encode_texts(captions, label="captions")
    check_embeddings(encoded.embeddings, texts)
    return EncodedPairs(
        encoded.embeddings,
        texts,
        [dataset.keys[image] for image in readable],
        captions,
        {"images": len(dataset.images), "pairs": len(readable)},
    )
