"""Where fine-tuning takes its batches from: images of a pool, or features that are there already."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from hypvl.checks import one_of
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.embedding.encode import Encoding, encode_images
from hypvl.embedding.loading import load_batches
from hypvl.embedding.protocol import EvaluableModel, Stage, evaluating
from hypvl.errors import DataError
from hypvl.evaluation.probes.image_pool import Images, Pool, PoolFeatures

#: Decoded training images up to this many bytes stay in memory.
MEMORY = 1 << 31
_HALF: dict[object, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TrainingBatches(Protocol):
    """Inputs of training steps, and features for predictions.

    Attributes:
        bad_training: Positions in the pool that cannot be read, as far as it has been seen.
        bad_test: (position, reason) of test images that cannot be read, after predictions for the test.
    """

    bad_training: set[int]
    bad_test: list[tuple[int, str]]

    def width(self, model: EvaluableModel) -> int:
        """Of the features."""

    def steps(
        self, batches: Sequence[Sequence[int]], device: torch.device
    ) -> Iterator[tuple[Tensor, list[int]]]:
        """For each batch of positions the inputs of those that can be read, and their positions."""

    def features(self, encoder: EvaluableModel | None, inputs: Tensor) -> Tensor:
        """Inputs of a step -> (B, width), with a gradient where there is an encoder."""

    def frozen(
        self, encoder: EvaluableModel | None, positions: Sequence[int] | None
    ) -> tuple[Tensor, list[int]]:
        """Features of images of the pool, or of the test (None), and the positions of those that can be read."""


class FeatureBatches:
    """Features encoded once.

    Args:
        train: Of the pool.
        test: Of the test images.
    """

    def __init__(self, train: PoolFeatures, test: PoolFeatures) -> None:
        self._train = train
        self._test = test
        self._row = {position: row for row, position in enumerate(train.positions)}
        self.bad_training = {position for position, _ in train.bad}
        self.bad_test = test.bad

    def width(self, model: EvaluableModel) -> int:
        return self._train.features.shape[1]

    def steps(
        self, batches: Sequence[Sequence[int]], device: torch.device
    ) -> Iterator[tuple[Tensor, list[int]]]:
        for batch in batches:
            found = [i for i in batch if i in self._row]
            yield self._train.features[[self._row[i] for i in found]], found

    def features(self, encoder: EvaluableModel | None, inputs: Tensor) -> Tensor:
        return inputs

    def frozen(
        self, encoder: EvaluableModel | None, positions: Sequence[int] | None
    ) -> tuple[Tensor, list[int]]:
        if positions is None:
            return self._test.features, self._test.positions
        found = [i for i in positions if i in self._row]
        return self._train.of(found)[0], found


class ImageBatches:
    """Images, decoded once where they all fit into memory and else again in each epoch.

    Args:
        pool: To train on.
        test: To be predicted.
        positions: All of the pool that any training will ask for.
        stage: What the head stands on.
        encoding: Workers and precision.
        memory: Bytes that decoded images may take.
    """

    def __init__(
        self,
        pool: Pool,
        test: Pool,
        positions: Sequence[int],
        *,
        stage: Stage,
        encoding: Encoding,
        memory: int = MEMORY,
    ) -> None:
        one_of("stage", stage, Stage)
        self._pool = pool
        self._test = test
        self._positions = list(positions)
        self._stage = stage
        self._encoding = encoding
        self._memory = memory
        self._size = 0
        self._kept: dict[int, Tensor] | None = None
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
        if self._kept is None and 3 * self._size**2 * len(self._positions) <= self._memory:
            at_once = [self._positions[i : i + 64] for i in range(0, len(self._positions), 64)]
            self._kept = {i: pixels for batch in self._load(at_once) for i, pixels in batch}
        kept = self._kept
        loaded = self._load(batches) if kept is None else _picked(kept, batches)
        for batch in loaded:
            if batch:
                yield torch.stack([pixels for _, pixels in batch]).to(device), [i for i, _ in batch]

    def features(self, encoder: EvaluableModel | None, inputs: Tensor) -> Tensor:
        assert encoder is not None
        dtype = _HALF.get(self._encoding.amp)
        with torch.autocast(inputs.device.type, dtype=dtype, enabled=dtype is not None):
            return encoder.encode_image(inputs, stage=self._stage)

    def frozen(
        self, encoder: EvaluableModel | None, positions: Sequence[int] | None
    ) -> tuple[Tensor, list[int]]:
        assert encoder is not None
        images = Images(self._test if positions is None else self._pool, positions)
        encoded = encode_images(
            encoder,
            images,
            transform=ResizeCenterCrop(self._size),
            encoding=self._encoding,
            stage=self._stage,
            label="test images" if positions is None else "validation images",
        )
        if positions is None:
            self.bad_test = encoded.bad
        return encoded.embeddings, [images.positions[i] for i in encoded.indices.tolist()]

    def _load(self, batches: Sequence[Sequence[int]]) -> Iterator[list[tuple[int, Tensor]]]:
        transform = ResizeCenterCrop(self._size)
        for batch in load_batches(
            self._pool, batches, transform=transform, num_workers=self._encoding.workers
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


def _picked(kept: dict[int, Tensor], batches: Sequence[Sequence[int]]) -> Iterator[list[tuple[int, Tensor]]]:
    for batch in batches:
        yield [(i, kept[i]) for i in batch if i in kept]
