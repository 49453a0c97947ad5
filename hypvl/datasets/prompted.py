"""Labelled images as training data: each with a caption that a template makes of the name of its class."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import PurePath

import numpy as np
from loguru import logger

from hypvl.allowlist import configurable
from hypvl.data.augment import InModalAugment
from hypvl.data.sample import BadSample, ImageTransform, PairReader, Sample, Tokenize
from hypvl.datasets.classification.prompts import class_prompts, generic_templates
from hypvl.datasets.protocol import ClassificationSet
from hypvl.errors import DataError
from hypvl.io.images import MAX_PIXELS


@configurable("dataset")
@dataclasses.dataclass(eq=False, repr=False)
class PromptedImages(PairReader):
    """The images of a classification set, with ``labels`` and a caption: one of the prompts of the class, drawn anew.

    For UniCL, where all images and captions of a class belong together, and for class logits. Images of several labels
    are refused.

    Args:
        images: The set, such as :class:`~hypvl.datasets.classification.folders.ImageFolderSet` or
            :func:`~hypvl.datasets.classification.by_name.classification_set` with ``split="train"``.
        prompts: Templates with ``{}`` for the name, or whole prompts by class name; None = those of the set, and where
            it has none :func:`~hypvl.datasets.classification.prompts.generic_templates`.

    The others: :class:`hypvl.data.sample.PairReader`.

    Raises:
        ValueError: when a class has no prompt, a template has no place for the name, or images have several labels.

    Source: ITRA's classification sets as training data; UniCL (arXiv 2204.03610), section 3.
    """

    images: ClassificationSet
    _: dataclasses.KW_ONLY
    image_transform: ImageTransform
    tokenizer: Tokenize | None = None
    prompts: Sequence[str] | Mapping[str, Sequence[str]] | None = None
    shuffle_window: int = 65_536
    max_bad_fraction: float = 0.1
    max_pixels: int = MAX_PIXELS
    augment: InModalAugment | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        own = self.images.prompts if self.prompts is None else self.prompts
        self.classes = list(self.images.classes)
        self._prompts = class_prompts(generic_templates() if own is None else own, self.classes)
        labels = list(self.images.labels)
        wrong = next((label for label in labels if not _is_class(label, len(self.classes))), None)
        if wrong is not None:
            raise ValueError(
                f"images: got the label {wrong!r} in a set of {len(self.classes)} classes; expected one of 0 to "
                f"{len(self.classes) - 1} for each image."
            )
        self._labels = labels

    def prepare(self) -> None:
        """Say what there is."""
        logger.info("{} images of {} classes with captions of prompts", len(self), len(self.classes))

    def __len__(self) -> int:
        return len(self._labels)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the names of the images, their labels, and what is made of them."""
        rows = hashlib.sha256()
        for key, label in zip(self.images.keys, self._labels, strict=True):
            rows.update(f"{PurePath(key).as_posix()}\t{label}\n".encode())
        settings = (self._prompts, self.image_transform, self.max_pixels)
        return hashlib.sha256((rows.hexdigest() + self.describe(*settings)).encode()).hexdigest()

    def sample(self, row: int, generator: np.random.Generator) -> Sample:
        """The sample of an image, in [0, len). Raises BadSample when it cannot be read."""
        image_seed = int(generator.integers(2**63))
        key = str(self.images.keys[row])
        try:
            image, label = self.images[row]
        except DataError as error:
            raise BadSample(key, str(error).rstrip(".")) from error
        if image.shape[1] * image.shape[2] > self.max_pixels:
            raise BadSample(
                key, f"image: has {image.shape[1] * image.shape[2]} pixels, more than {self.max_pixels}"
            )
        prompts = self._prompts[label]
        caption = prompts[int(generator.integers(len(prompts)))]
        return self.finish(
            key, {"image": image, "caption": caption, "labels": int(label)}, image_seed=image_seed
        )

    def __repr__(self) -> str:
        return f"PromptedImages({len(self)} images of {len(self.classes)} classes)"


def _is_class(label: object, classes: int) -> bool:
    return isinstance(label, int | np.integer) and 0 <= int(label) < classes
