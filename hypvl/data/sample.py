"""What a sample is, what a bad one is, and what the loader asks of a dataset."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from hypvl.checks import missing_members, number, whole_number
from hypvl.data.augment import InModalAugment
from hypvl.data.tokenizer import is_blank
from hypvl.errors import ConfigError, DataError
from hypvl.io.images import MAX_PIXELS, ImageError, decode_image

#: (image uint8 (3, H, W), generator of this sample) -> uint8 (3, h, w)
ImageTransform = Callable[[Tensor, torch.Generator | None], Tensor]
#: texts -> int64 (B, L), filled at the end with its ``pad_token`` (0 where it has no such attribute)
Tokenize = Callable[[Sequence[str]], Tensor]
#: One sample, ready to be collated: ``key`` (str), ``image`` uint8 (3, h, w), ``text`` int64 (L,), and
#: optional others (``box_image``, ``box_text``, ``negative_text`` (K, L), ``labels`` ...). With ``box_owner`` (m,) all
#: 0, every ``box_*`` has m >= 0 rows of its own: ``box_image`` (m, 3, h, w), ``box_text`` (m, L).
Sample = dict[str, Any]
_BLOCK = 32


class BadSample(Exception):  # noqa: N818 (a bad sample is expected, not an error of the program)
    """This sample (its key is e.g. ``"00012.tar/000345"``) cannot be used: the loader replaces and counts it."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.key}: {self.reason}"


@runtime_checkable
class PairDataset(Protocol):
    """What :func:`hypvl.data.loader.Loader` asks of a dataset: samples by row, with the generator as an argument.

    A dataset may also have ``shard_sizes() -> Sequence[int]`` (rows that lie together, in order; default: one
    shard), ``shuffle_window: int``, ``max_bad_fraction: float`` and ``prepare()`` (work done once, by the
    first rank alone, before any other rank reads: indexes, downloads), or, in place of the first two,
    ``order(seed) -> hypvl.data.order.Order`` and ``order_key: str``, which changes when that order does.
    """

    def __len__(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """Changes when the rows, or what is made of them, change."""
        ...

    def sample(self, row: int, generator: np.random.Generator) -> Sample:
        """The sample of a row, a pure function of both arguments. Raises :class:`BadSample`."""
        ...


def check_dataset(dataset: object) -> None:
    """DataError for a dataset that lacks methods of :class:`PairDataset`, listing them, before the loader needs one.

    A stream (:class:`hypvl.data.stream.StreamDataset`) has other methods, and needs none of these.
    """
    if hasattr(dataset, "read_stream"):
        return
    if missing := missing_members(dataset, PairDataset):
        raise DataError(
            f"dataset: a {type(dataset).__name__} has no {', '.join(missing)}; a dataset for training has "
            f"{', '.join(missing_members(None, PairDataset))} (hypvl.data.sample.PairDataset, hypvl docs data)."
        )


def prepare_dataset(dataset: object) -> None:
    """Call a dataset's ``prepare``, if it has one."""
    getattr(dataset, "prepare", lambda: None)()


def caption_text(key: str, value: Any, name: str, generator: np.random.Generator) -> str:
    """A usable caption: the value, or where it is a list one of those in it that are texts and not blank, at random.

    Raises:
        BadSample: when there is none: absent, no text, or blank, also once it is cleaned as for encoding.
    """
    if isinstance(value, list) and value:
        usable = [text for text in value if isinstance(text, str) and not is_blank(text)]
        chosen = usable if usable else value
        value = chosen[int(generator.integers(len(chosen)))]
    if value is None:
        raise BadSample(key, f"missing {name}")
    if not isinstance(value, str):
        raise BadSample(key, f"{name} is {type(value).__name__}, expected text")
    if is_blank(value):
        raise BadSample(key, f"empty {name}")
    return value


def finish_sample(
    key: str,
    fields: Mapping[str, Any],
    *,
    image_transform: ImageTransform | None,
    tokenizer: Tokenize,
    image_seed: int,
    max_pixels: int = MAX_PIXELS,
    augment: InModalAugment | None = None,
) -> Sample:
    """Decode, crop and tokenise what a mapper returned.

    ``image`` and every ``*_image`` (encoded bytes, or a decoded uint8 (3, H, W)) become uint8 (3, h, w), one after the
    other from one generator, and lists of m of them (m, 3, h, w); ``caption`` becomes ``text`` int64 (L,); ``*_text``
    becomes (L,), or (K, L) from a list of K texts; anything else is kept as it is. With ``augment`` there are
    ``augmented_image`` and ``augmented_text`` too; what they draw comes last, so that the rest of the sample is the
    same with and without.

    Raises:
        BadSample: when an image cannot be decoded.
    """
    generator = torch.Generator().manual_seed(image_seed)
    sample: Sample = {"key": key}
    pil_image: Tensor | None = None
    for name, value in fields.items():
        if name == "image" or name.endswith("_image"):
            if image_transform is None:
                raise ConfigError(
                    f"dataset.image_transform: is None, but a sample has {name!r}; give a transform."
                )
            several = value if isinstance(value, list) else [value]
            images = [_decoded(key, name, image, max_pixels=max_pixels) for image in several]
            crops = [image_transform(image, generator) for image in images]
            if not isinstance(value, list):
                sample[name] = crops[0]
            else:  # of none, it has the shape that others of the batch have
                whole = sample["image"] if "image" in sample else torch.zeros(3, 1, 1, dtype=torch.uint8)
                sample[name] = torch.stack(crops) if crops else whole.new_zeros((0, *whole.shape))
            pil_image = images[0] if name == "image" else pil_image
        elif name == "caption":
            sample["text"] = tokenizer([value])[0]
        elif name.endswith("_text"):
            if isinstance(value, str):
                sample[name] = tokenizer([value])[0]
            else:
                sample[name] = tokenizer(value) if value else torch.zeros((0, 1), dtype=torch.int64)
        else:
            sample[name] = value
    if augment is not None:
        if augment.image is not None:
            if pil_image is None or image_transform is None:
                raise BadSample(key, "missing image, which is to be augmented")
            sample["augmented_image"] = augment.image(image_transform(pil_image, generator), generator)
        if augment.crops:
            if pil_image is None:
                raise BadSample(key, "missing image, which is to be cropped")
            sample["crops"] = [crop(pil_image, generator) for crop in augment.crops]
        if augment.text is not None:
            sample["augmented_text"] = tokenizer([augment.text(fields["caption"], generator)])[0]
    return sample


def _decoded(key: str, name: str, image: bytes | Tensor, *, max_pixels: int) -> Tensor:
    if isinstance(image, Tensor):
        return image
    try:
        return decode_image(image, max_pixels=max_pixels)
    except ImageError as error:
        raise BadSample(key, f"{name}: {error}") from error


class PairReader(ABC):
    """What the data sets of this package have in common, each of them a dataclass with these fields and its own."""

    image_transform: ImageTransform | None  # crops the decoded image; None only where there are no images
    tokenizer: (
        Tokenize | None
    )  # turns captions into token ids; None = the text encoder's own, which training puts here
    shuffle_window: int  # samples permuted together
    max_bad_fraction: float  # share of bad samples at which training stops
    max_pixels: int  # larger images are bad samples
    augment: InModalAugment | None  # adds an augmented image and caption to each sample

    def __post_init__(self) -> None:
        whole_number("shuffle_window", self.shuffle_window, least=1)
        number("max_bad_fraction", self.max_bad_fraction, least=0, most=1)
        whole_number("max_pixels", self.max_pixels, least=1)

    @abstractmethod
    def __len__(self) -> int:
        """Rows."""

    def shard_sizes(self) -> list[int]:
        """Blocks of rows that are permuted as shards are; small ones, as rows of a list cost nothing to reach."""
        full, rest = divmod(len(self), _BLOCK)
        return [_BLOCK] * full + [rest] * (rest > 0)

    def describe(self, *parts: object) -> str:
        """The parts and the augmentation, equal in every process (an address in a repr is left out)."""
        if self.augment is not None:  # without one nothing changes: runs of before resume
            parts = (*parts, self.augment)
        return re.sub(r" at 0x[0-9a-f]+", "", repr(parts))

    def finish(self, key: str, fields: Mapping[str, Any], *, image_seed: int) -> Sample:
        """:func:`finish_sample` with these settings."""
        if self.tokenizer is None:
            raise ConfigError(
                "dataset.tokenizer: is None, the text encoder's own, which training puts there; give one to read the "
                "data without a model."
            )
        return finish_sample(
            key, fields, image_transform=self.image_transform, tokenizer=self.tokenizer, image_seed=image_seed,
            max_pixels=self.max_pixels, augment=self.augment,
        )  # fmt: skip
