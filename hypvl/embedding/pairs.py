"""Images, each with one caption of its own: what gaps, orders and audits are measured on."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypvl.data.tokenizer import get_tokenizer
from hypvl.data.transforms import Squeeze
from hypvl.datasets.protocol import ImageSource, RetrievalSet
from hypvl.embedding.encode import Encoding, encode_images, encode_texts
from hypvl.errors import DataError
from hypvl.evaluation.protocol import EvaluableModel, Tokenizer
from hypvl.evaluation.traversal import check_embeddings


@dataclass(frozen=True)
class Matched:
    """Embeddings of images and their captions, row by row, on the CPU.

    Attributes:
        images: (N, D).
        texts: (N, D).
        keys: What the images are called, N strings.
        captions: N texts.
        meta: Counts for a result: ``images``, ``pairs``, ``unreadable``, ``unreadable_first``.
    """

    images: Tensor
    texts: Tensor
    keys: list[str]
    captions: list[str]
    meta: dict[str, Any]


def encode_matched(
    model: EvaluableModel,
    dataset: RetrievalSet,
    *,
    encoding: Encoding,
    tokenizer: Tokenizer | None,
    limit: int | None = None,
    least: int = 2,
    what: str,
) -> Matched:
    """Pair every image that can be read and has captions with its first one, and encode both.

    Args:
        model: What encodes them.
        dataset: Images and captions.
        encoding: Batches, workers, precision.
        tokenizer: In place of hypvl's own, with the model's context length.
        limit: At most so many images, evenly spread over those with captions; None = all.
        least: How many pairs there must be.
        what: Who asks, for messages.

    Raises:
        DataError: when fewer than ``least`` pairs are left.
        UserError: when embeddings hold NaN.
    """
    first: dict[int, str] = {}
    for caption, image in zip(dataset.captions, dataset.caption_image, strict=True):
        first.setdefault(image, caption)
    positions = sorted(first)
    if limit is not None and limit < len(positions):
        positions = [positions[i * len(positions) // limit] for i in range(limit)]
    encoded = encode_images(
        model,
        Chosen(dataset.images, positions),
        transform=Squeeze(model.image_size),
        encoding=encoding,
        label="images",
    )
    kept = [positions[row] for row in encoded.indices.tolist()]
    if len(kept) < least:
        raise DataError(
            f"{what}: {len(kept)} readable images with a caption; expected at least {least} to compare."
        )
    captions = [first[image] for image in kept]
    texts = encode_texts(
        model,
        captions,
        tokenizer=get_tokenizer(model.context_length) if tokenizer is None else tokenizer,
        encoding=encoding,
        label="captions",
    )
    check_embeddings(encoded.embeddings, texts)
    return Matched(
        encoded.embeddings,
        texts,
        [dataset.keys[image] for image in kept],
        captions,
        {
            "images": len(dataset.images),
            "pairs": len(kept),
            "unreadable": len(encoded.bad),
            "unreadable_first": [reason for _, reason in encoded.bad[:10]],
        },
    )


class Chosen:
    """Some images of a source.

    Args:
        images: The source.
        positions: Which, in order.
    """

    def __init__(self, images: ImageSource, positions: list[int]) -> None:
        self.images = images
        self.positions = positions

    @property
    def ids(self) -> list[str] | None:
        """Where each image is; None where the source does not say."""
        ids = getattr(self.images, "ids", None)
        return None if ids is None else [ids[i] for i in self.positions]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> torch.Tensor:
        """uint8 (3, h, w); raises DataError for an image that cannot be read."""
        return self.images[self.positions[index]]
