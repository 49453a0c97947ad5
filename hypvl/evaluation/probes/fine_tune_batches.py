"""The batches of fine-tuning: images that are decoded and encoded, or features that were encoded once."""

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from hypvl.checks import one_of
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.datasets.images import LabelledImages
from hypvl.embedding.encode import CachedEncoder, Encoding
from hypvl.embedding.loading import load_batches
from hypvl.embedding.protocol import EvaluableModel, Stage, evaluating
from hypvl.errors import DataError
from hypvl.evaluation.labelled_images import LabelledFeatures

#: Decoded training images up to this many bytes stay in memory.
MEMORY = 1 << 31


class TrainingBatches(Protocol):
    """Inputs of training steps, and features for predictions.

    Attributes:
        amp: Autocast of training.
        bad_training: Positions of the training images that could not be read so far.
        bad_test: (position, reason) of the test images that cannot be read, known after predictions for the test.
    """

    amp: Literal["bf16", "fp16", False]
    bad_training: set[int]
    bad_test: list[tuple[int, str]]

    def width(self, model: EvaluableModel) -> int:
        """Width of the features."""

    def steps(
        self, batches: Sequence[Sequence[int]], device: torch.device
    ) -> Iterator[tuple[Tensor, list[int]]]:
        """For each batch of positions, the inputs of the readable ones and their positions."""

    def features(self, encoder: EvaluableModel | None, inputs: Tensor) -> Tensor:
        """Inputs of a step -> (B, width), with gradients to the encoder where there is one."""

    def frozen(
        self, encoder: EvaluableModel | None, positions: Sequence[int] | None
    ) -> tuple[Tensor, list[int]]:
        """Features and positions of the readable ones of some training images, or of all test images (None)."""


class FeatureBatches:
    """Features encoded once.

    Args:
        train: Of the training images.
        test: Of the test images.
        encoding: Its ``amp`` is that of training.
    """

    def __init__(self, train: LabelledFeatures, test: LabelledFeatures, *, encoding: Encoding) -> None:
        self._train = train
        self._test = test
        self.amp = encoding.amp
        self.bad_training = {position for position, _ in train.bad}
        self.bad_test = test.bad

    def width(self, model: EvaluableModel) -> int:
        return self._train.features.shape[1]

    def steps(
        self, batches: Sequence[Sequence[int]], device: torch.device
    ) -> Iterator[tuple[Tensor, list[int]]]:
        for batch in batches:
            readable = self._train.readable(batch)
            yield self._train.rows(readable), readable

    def features(self, encoder: EvaluableModel | None, inputs: Tensor) -> Tensor:
        return inputs

    def frozen(
        self, encoder: EvaluableModel | None, positions: Sequence[int] | None
    ) -> tuple[Tensor, list[int]]:
        if positions is None:
            return self._test.features, self._test.positions
        return self._train.of(positions)[0], self._train.readable(positions)


class ImageBatches:
    """Images, decoded once where they all fit into memory and else again in each epoch.

    Args:
        images: To train on.
        test: To predict.
        positions: Of all images that any training will ask for.
        stage: Input of the head.
        encoding: Workers and precision. A trained copy's embeddings are not the model's: no store is used.
        memory: Bytes that decoded images may take.
    """

    def __init__(
        self,
        images: LabelledImages,
        test: LabelledImages,
        positions: Sequence[int],
        *,
        stage: Stage,
        encoding: Encoding,
        memory: int = MEMORY,
    ) -> None:
        one_of("stage", stage, Stage)
        self._images = images.images
        self._test = test.images
        self._positions = list(positions)
        self._stage = stage
        self._encoding = encoding
        self.amp = encoding.amp
        self._memory = memory
        self._size = 0
        self._decoded: dict[int, Tensor] | None = None
        self.bad_training: set[int] = set()
        self.bad_test: list[tuple[int, str]] = []

    def width(self, model: EvaluableModel) -> int:
        self._size = model.image_size
        with evaluating(model) as device:
            image = torch.zeros(1, 3, self._size, self._size, dtype=torch.uint8, device=device)
            return model.encode_image(image, stage=self._stage).shape[1]

    def steps(
        self, batches: Sequence[Sequence[int]], device: torch.device
    ) -> Iterator[tuple[Tensor, list[int]]]:
        if self._decoded is None and 3 * self._size**2 * len(self._positions) <= self._memory:
            at_once = [self._positions[i : i + 64] for i in range(0, len(self._positions), 64)]
            self._decoded = {i: pixels for batch in self._load(at_once) for i, pixels in batch}
        decoded = self._decoded
        loaded = self._load(batches) if decoded is None else _picked(decoded, batches)
        for batch in loaded:
            if batch:
                yield torch.stack([pixels for _, pixels in batch]).to(device), [i for i, _ in batch]

    def features(self, encoder: EvaluableModel | None, inputs: Tensor) -> Tensor:
        assert encoder is not None
        with self._encoding.autocast(inputs.device):
            return encoder.encode_image(inputs, stage=self._stage)

    def frozen(
        self, encoder: EvaluableModel | None, positions: Sequence[int] | None
    ) -> tuple[Tensor, list[int]]:
        assert encoder is not None
        images = self._test if positions is None else self._images.take(positions)
        encoded = CachedEncoder(encoder, encoding=self._encoding).encode_images(
            images,
            transform=ResizeCenterCrop(self._size),
            stage=self._stage,
            label="test images" if positions is None else "validation images",
        )
        if positions is None:
            self.bad_test = encoded.bad
        readable = encoded.indices.tolist()
        return encoded.embeddings, readable if positions is None else [positions[i] for i in readable]

    def _load(self, batches: Sequence[Sequence[int]]) -> Iterator[list[tuple[int, Tensor]]]:
        transform = ResizeCenterCrop(self._size)
        for batch in load_batches(
            self._images, batches, transform=transform, num_workers=self._encoding.workers
        ):
            good = []
            for image in batch:
                if image.pixels is None:
                    self.bad_training.add(image.index)
                    self._check_bad(image.reason)
                else:
                    good.append((image.index, image.pixels))
            yield good

    def _check_bad(self, reason: str) -> None:
        limit = self._encoding.max_bad_fraction
        if len(self.bad_training) > limit * len(self._positions):
            raise DataError(
                f"training images: at least {len(self.bad_training)} of {len(self._positions)} images cannot be "
                f"read, more than max_bad_fraction={limit:g}; repair the files or raise encoding.max_bad_fraction. "
                f"The first: {reason}"
            )


def _picked(
    decoded: dict[int, Tensor], batches: Sequence[Sequence[int]]
) -> Iterator[list[tuple[int, Tensor]]]:
    for batch in batches:
        yield [(i, decoded[i]) for i in batch if i in decoded]
