"""The batches of fine-tuning: images that are decoded and encoded, or features that were encoded once."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from hypvl.checks import one_of
from hypvl.data.transforms import ResizeCenterCrop, Transform
from hypvl.datasets.images import LabelledImages
from hypvl.embedding.encode import Amp, CachedEncoder, Encoding
from hypvl.embedding.loading import load_batches
from hypvl.embedding.protocol import EvaluableModel, Stage, evaluating
from hypvl.evaluation.labelled_images import LabelledFeatures

#: Decoded training images up to this many bytes stay in memory.
MEMORY = 1 << 31


class TrainingBatches(Protocol):
    """Inputs of training steps, and features for predictions."""

    amp: Amp  # autocast of training
    bad_training: dict[int, str]  # position -> reason of the training images that could not be read so far
    bad_test: list[tuple[int, str]]  # (position, reason), known after predictions for the test

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
    """Features of training and test images, encoded once."""

    def __init__(self, train: LabelledFeatures, test: LabelledFeatures, *, encoding: Encoding) -> None:
        self._train = train
        self._test = test
        self.amp = encoding.amp
        self.bad_training = dict(train.bad)
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

    ``positions`` are of all images that any training will ask for; decoded images may take ``memory`` bytes. A trained
    copy's embeddings are not the model's: no store is used.
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
        self._transform: Transform = ResizeCenterCrop(None)  # until the model is known
        self._side = 0
        self._decoded: dict[int, Tensor] | None = None
        self.bad_training: dict[int, str] = {}
        self.bad_test: list[tuple[int, str]] = []

    def width(self, model: EvaluableModel) -> int:
        self._transform = ResizeCenterCrop.of(model)
        size = self._side = model.image_size
        with evaluating(model) as device:
            image = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device)
            return model.encode_image(image, stage=self._stage).shape[1]

    def steps(
        self, batches: Sequence[Sequence[int]], device: torch.device
    ) -> Iterator[tuple[Tensor, list[int]]]:
        if self._decoded is None and 3 * self._side**2 * len(self._positions) <= self._memory:
            at_once = [self._positions[i : i + 64] for i in range(0, len(self._positions), 64)]
            self._decoded = {i: pixels for batch in self._load(at_once) for i, pixels in batch}
        loaded = self._load(batches)
        if (decoded := self._decoded) is not None:
            loaded = ([(i, decoded[i]) for i in batch if i in decoded] for batch in batches)
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
            transform=self._transform,
            stage=self._stage,
            label="test images" if positions is None else "validation images",
        )
        if positions is None:
            self.bad_test = encoded.bad
        readable = encoded.indices.tolist()
        return encoded.embeddings, readable if positions is None else [positions[i] for i in readable]

    def _load(self, batches: Sequence[Sequence[int]]) -> Iterator[list[tuple[int, Tensor]]]:
        for batch in load_batches(
            self._images, batches, transform=self._transform, num_workers=self._encoding.workers
        ):
            good = []
            for image in batch:
                if image.pixels is None:
                    self.bad_training[image.index] = image.reason
                    bad = list(self.bad_training.items())
                    self._encoding.check_unreadable("training images", bad, total=len(self._positions))
                else:
                    good.append((image.index, image.pixels))
            yield good
