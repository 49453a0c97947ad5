"""Splits of a data set as one pool of images, and features of chosen ones."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hypvl.checks import one_of
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.datasets.protocol import ClassificationSet
from hypvl.embedding.encode import Encoding, encode_images
from hypvl.embedding.protocol import EvaluableModel, Stage
from hypvl.errors import DataError
from hypvl.evaluation.probes.labelled import Label
from hypvl.evaluation.probes.logistic import check_features


class Pool:
    """Training and validation images one after the other.

    Args:
        parts: The sets, of the same classes.
    """

    def __init__(self, parts: Sequence[ClassificationSet]) -> None:
        self.parts = list(parts)
        self.labels: list[Label] = [label for part in parts for label in part.labels]
        self.keys = [key for part in parts for key in part.keys]
        self._where = [(part, i) for part in parts for i in range(len(part))]

    @property
    def ids(self) -> list[str] | None:
        """What tells each image from all others, where all sets can say."""
        joined: list[str] = []
        for part in self.parts:
            ids = getattr(part, "ids", None)
            if ids is None:
                return None
            joined += ids
        return joined

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, index: int) -> Tensor:
        """uint8 (3, h, w); raises DataError for an image that cannot be read."""
        part, i = self._where[index]
        return part[i][0]


class Images:
    """Chosen images of a pool.

    Args:
        pool: Whose.
        positions: Which; None = all.
    """

    def __init__(self, pool: Pool, positions: Sequence[int] | None = None) -> None:
        self.pool = pool
        self.positions = range(len(pool)) if positions is None else positions

    @property
    def ids(self) -> list[str] | None:
        """What tells each image from all others, where all sets of the pool can say."""
        known = self.pool.ids
        return None if known is None else [known[i] for i in self.positions]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Tensor:
        """uint8 (3, h, w); raises DataError for an image that cannot be read."""
        return self.pool[self.positions[index]]


class PoolFeatures:
    """Features of the images of a pool that could be read.

    Args:
        pool: Whose.
        features: (n, width).
        positions: Of each row, in the pool.
        bad: (position, reason) of those that cannot be read.
    """

    def __init__(
        self, pool: Pool, features: Tensor, positions: list[int], *, bad: list[tuple[int, str]]
    ) -> None:
        self.features = features
        self.positions = positions
        self.bad = bad
        self._labels = pool.labels
        self._rows = {position: row for row, position in enumerate(positions)}

    def of(self, positions: Sequence[int]) -> tuple[Tensor, list[Label]]:
        """Features and labels of those of some positions that could be read.

        Raises:
            DataError: when none of them could.
        """
        readable = [i for i in positions if i in self._rows]
        if not readable:
            raise DataError(
                f"training and validation images: none of the {len(positions)} drawn can be read; repair the files."
            )
        rows = torch.tensor([self._rows[i] for i in readable], device=self.features.device)
        return self.features[rows], [self._labels[i] for i in readable]


def encode_pool(
    model: EvaluableModel,
    pool: Pool,
    positions: Sequence[int] | None,
    *,
    stage: Stage,
    encoding: Encoding,
    label: str,
) -> PoolFeatures:
    """Features of images of a pool, on the model's device.

    Args:
        model: What encodes them.
        pool: Whose images.
        positions: Which; None = all.
        stage: What to keep of the model.
        encoding: Batches, workers, precision.
        label: What the progress bar says.

    Raises:
        UserError: when the features are NaN or infinite.
    """
    one_of("stage", stage, Stage)
    images = Images(pool, positions)
    encoded = encode_images(
        model,
        images,
        transform=ResizeCenterCrop(model.image_size),
        encoding=encoding,
        stage=stage,
        label=label,
    )
    check_features(encoded.embeddings)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return PoolFeatures(
        pool,
        encoded.embeddings.to(device),
        [images.positions[i] for i in encoded.indices.tolist()],
        bad=[(images.positions[i], reason) for i, reason in encoded.bad],
    )
