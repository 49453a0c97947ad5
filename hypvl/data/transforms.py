"""Images cropped and resized as uint8 tensors; floats and normalisation happen on the device."""

import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from hypvl.allowlist import configurable
from hypvl.checks import number, one_of, whole_number
from hypvl.errors import ConfigError

Interpolation: TypeAlias = Literal["bicubic", "bilinear"]
#: How an image becomes a square: by its shorter side and the centre, or squeezed.
ResizeMode: TypeAlias = Literal["shortest", "squash"]
#: uint8 (3, H, W), with a generator where it draws -> uint8 (3, S, S).
Transform: TypeAlias = Callable[..., Tensor]
_MODES = {"bicubic": InterpolationMode.BICUBIC, "bilinear": InterpolationMode.BILINEAR}
# Bytes a channel may take between the two passes of resizing, which begins with the width.
_LARGEST_STEP = 1 << 27
# Beyond this length : width ResizeCenterCrop cuts the far ends before resizing: 1 x 5000 would become 224 x 1,120,000.
_LONGEST = 8


class FittedTransform:
    """What the transforms have in common: size and interpolation, given or those of the image encoder.

    Where they are None, :func:`hypvl.training.data_fit.take_from_model` and :meth:`of` put those of a model there.
    """

    size: int | None
    interpolation: Interpolation | None
    is_random: ClassVar[bool] = False  # made for training

    def __post_init__(self) -> None:
        one_of("interpolation", self.interpolation, Interpolation | None)
        if self.size is not None:
            self.size = whole_number("size", self.size, least=1, most=65_536)

    @classmethod
    def of(cls, model: Any) -> Transform:
        """This transform for a model: its ``image_size``, and its ``interpolation`` where it says one.

        In evaluation a model may know better: one of another library brings its own transform (``image_transform``);
        one whose ``resize_mode`` is "squash" was trained on squeezed images, which are not cropped.
        """
        own: Transform | None = None if cls.is_random else getattr(model, "image_transform", None)
        if own is not None:
            return own
        squash = not cls.is_random and getattr(model, "resize_mode", None) == "squash"
        kind: Any = Squeeze if squash else cls
        made: Transform = kind(size=model.image_size, interpolation=getattr(model, "interpolation", None))
        return made

    def described(self, **others: object) -> str:
        """The repr, which names a transform in stores and fingerprints: bicubic interpolation goes without saying."""
        said = {"size": self.size, **others}
        if self.interpolation not in (None, "bicubic"):
            said["interpolation"] = self.interpolation
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in said.items())})"

    def side(self) -> int:
        """``size``; ConfigError where it is None."""
        if self.size is None:
            raise ConfigError(
                f"{type(self).__name__}: size is None, the size of the image encoder, which training puts there; "
                "give a number to use it without a model."
            )
        return self.size

    def resize(self, image: Tensor, height: int, width: int) -> Tensor:
        """uint8 (3, H, W) -> uint8 (3, height, width), with antialiasing."""
        mode = _MODES[self.interpolation or "bicubic"]
        if image.shape[-2] * width > _LARGEST_STEP:  # 1 x 89,000,000 would become 224 x 89,000,000 on the way
            image = F.resize(image, [height, image.shape[-1]], interpolation=mode, antialias=True)
        return F.resize(image, [height, width], interpolation=mode, antialias=True)


@configurable("dataset", "evaluate")
@dataclass(eq=False, repr=False)
class RandomResizedCrop(FittedTransform):
    """A random part of the image, resized to a square: area and aspect ratio are drawn from the generator.

    As torchvision's transform of that name (ten tries, then the largest centred crop of allowed ratio), but
    every draw comes from the given generator.

    Args:
        size: Side of the result in pixels; None = as the image encoder takes it.
        interpolation: "bicubic" or "bilinear"; None = as the image encoder was trained, else bicubic.
        scale: Smallest and largest share of the image's area.
        ratio: Smallest and largest width / height of the crop; drawn evenly in its logarithm.
        augment: Changes the result, as :class:`hypvl.data.augment.Photometric` does; None = leaves it.
    """

    size: int | None
    _: KW_ONLY
    scale: Sequence[float] = (0.5, 1.0)
    ratio: Sequence[float] = (3 / 4, 4 / 3)
    interpolation: Interpolation | None = None
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    is_random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.scale = _ascending("scale", self.scale)
        self.ratio = _ascending("ratio", self.ratio)

    def crop(self, height: int, width: int, generator: torch.Generator) -> tuple[int, int, int, int]:
        """The part to cut out of an image: (top, left, height, width) in pixels."""
        draws = torch.rand((10, 4), generator=generator, dtype=torch.float64).tolist()
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for share, shape, down, right in draws:
            area = height * width * (self.scale[0] + share * (self.scale[1] - self.scale[0]))
            ratio = math.exp(low + shape * (high - low))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(down * (height - h + 1)), int(right * (width - w + 1)), h, w
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        h = min(height, max(1, round(width / ratio)))
        w = min(width, max(1, round(height * ratio)))
        return (height - h) // 2, (width - w) // 2, h, w

    def __call__(self, image: Tensor, generator: torch.Generator | None) -> Tensor:
        """uint8 (3, H, W) -> uint8 (3, size, size)."""
        if generator is None:
            raise ValueError("RandomResizedCrop: got no generator; it needs the sample's own.")
        top, left, h, w = self.crop(image.shape[-2], image.shape[-1], generator)
        size = self.side()
        cropped = self.resize(image[:, top : top + h, left : left + w], size, size)
        return cropped if self.augment is None else self.augment(cropped, generator)

    def __repr__(self) -> str:
        added = {} if self.augment is None else {"augment": self.augment}
        return self.described(scale=self.scale, ratio=self.ratio, **added)


@configurable("dataset", "evaluate")
@dataclass(eq=False, repr=False)
class ResizeCenterCrop(FittedTransform):
    """Shorter side to ``size`` pixels, then the central square (zero-shot classification).

    Arguments: ``size`` and ``interpolation`` as for :class:`RandomResizedCrop`.
    """

    size: int | None
    _: KW_ONLY
    interpolation: Interpolation | None = None

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """uint8 (3, H, W) -> uint8 (3, size, size); nothing is random."""
        size = self.side()
        image = without_far_ends(image)
        height, width = image.shape[-2:]
        short = min(height, width)
        # torchvision's rounding: the longer side is cut to whole pixels
        image = self.resize(image, size * height // short, size * width // short)
        return _center(image, size, size).contiguous()

    def __repr__(self) -> str:
        return self.described()


@configurable("dataset", "evaluate")
@dataclass(eq=False, repr=False)
class Squeeze(FittedTransform):
    """The whole image squeezed into a square of ``size`` pixels, whatever its shape (retrieval).

    Arguments: ``size`` and ``interpolation`` as for :class:`RandomResizedCrop`.
    """

    size: int | None
    _: KW_ONLY
    interpolation: Interpolation | None = None

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """uint8 (3, H, W) -> uint8 (3, size, size); nothing is random."""
        return self.resize(image, self.side(), self.side())

    def __repr__(self) -> str:
        return self.described()


def without_far_ends(image: Tensor) -> Tensor:
    """An image before its centre is cropped: of one more than 8 times as long as wide, the middle (3, H, W)."""
    short = min(image.shape[-2:])
    return _center(image, _LONGEST * short, _LONGEST * short)


def _ascending(name: str, pair: Sequence[float]) -> tuple[float, float]:
    """Two numbers, 0 < low <= high."""
    numbers = tuple(number(name, value, above=0) for value in pair)
    if len(numbers) != 2 or numbers[0] > numbers[1]:
        raise ValueError(f"{name}: got {list(pair)}; expected two numbers, 0 < low <= high.")
    return numbers[0], numbers[1]


def _center(image: Tensor, height: int, width: int) -> Tensor:
    """The central part, at most (height, width); torchvision's rounding."""
    h, w = min(height, image.shape[-2]), min(width, image.shape[-1])
    top, left = round((image.shape[-2] - h) / 2), round((image.shape[-1] - w) / 2)
    return image[:, top : top + h, left : left + w]
