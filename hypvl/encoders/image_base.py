"""The base of the image encoders (pixels are checked and normalised) and fixed positions of patches."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from hypvl.checks import number, one_of, whole_number
from hypvl.data.transforms import Interpolation, ResizeMode, Transform

# How far beyond [0, 1] floats may lie by rounding: half a step of 8 bits.
_ROUNDING = 0.5 / 255
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize_pixels(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """``(images - mean) / std`` per channel, of images in [0, 1] or of bytes divided by 255.

    Args:
        images: (B, 3, H, W), uint8 or a floating dtype; another one is a TypeError.
        mean, std: (3, 1, 1), in units of [0, 1] pixels; deviations are positive.

    Returns:
        (B, 3, H, W) in the dtype of ``mean``, computed in fp32 or better.
    """
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(f"images have dtype {images.dtype}, but uint8 or floats in [0, 1] are expected.")
    working = torch.promote_types(mean.dtype, torch.float32)
    pixels = images.to(working)
    if images.dtype == torch.uint8:
        pixels = pixels / 255
    return ((pixels - mean.to(working)) / std.to(working)).to(mean.dtype)


def check_range(images: Tensor, *, not_finite: Literal["refused", "passed"] = "refused") -> None:
    """ValueError for floats, of any shape, outside [0, 1] by more than half a step of 8 bits, and for NaN.

    With ``"passed"`` pixels that are not finite are not looked at. On a GPU this waits for the device.
    """
    one_of("not_finite", not_finite, Literal["refused", "passed"])
    if images.numel() == 0:
        return
    low, high = (float(end) for end in images.detach().aminmax())
    if not_finite == "passed" and not math.isfinite(high - low):
        check_range(images.detach().masked_fill(~images.isfinite(), 0.0))
        return
    if not -_ROUNDING <= low <= high <= 1 + _ROUNDING:
        raise ValueError(
            f"images are floats from {low:.4g} to {high:.4g}, but uint8, or floats in [0, 1], are expected: the "
            f"encoder subtracts pixel_mean itself, so leave out Normalize; divide bytes by 255 "
            f"(or keep them uint8), and clamp what a resize overshoots."
        )


LARGEST_SIDE = 65_536
#: Of an image encoder: one vector for each image, or all its tokens.
Output: TypeAlias = Literal["features", "tokens"]


def real_device() -> torch.device:
    """A context: the CPU where the default device is "meta", else that device.

    Networks of other libraries compute with numbers while they are built, and are run once to find their width.
    """
    default = torch.get_default_device()
    return torch.device("cpu") if default.type == "meta" else default


class Preprocessing(NamedTuple):
    """How images are made for an encoder: resized and cropped to a square, and normalised (by the encoder itself)."""

    size: int  # height and width in pixels
    mean: tuple[float, ...]  # per channel, of pixels in [0, 1]
    std: tuple[float, ...]
    interpolation: Interpolation


class ImageEncoder(nn.Module, ABC):
    """Base of the image encoders: pixels in, one feature vector per image out.

    Args:
        image_size: Height and width in pixels.
        pixel_mean: Mean per channel, of pixels in [0, 1].
        pixel_std: Standard deviation per channel.
        fixed_size: Whether the network takes no other size than ``image_size``.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    width: int
    interpolation: Interpolation = "bicubic"  # with which images are resized for it
    resize_mode: ResizeMode = "shortest"  # "squash": trained on squeezed images, which evaluators do not crop
    image_transform: Transform | None = None  # of another library, for evaluation; None = hypvl's
    asked_pixels: frozenset[str] = frozenset()  # buffers whose values were given, not defaults
    _looked: bool = False  # whether the range of floats on a device was checked, in training

    def __init__(
        self, image_size: int, *, pixel_mean: Sequence[float], pixel_std: Sequence[float], fixed_size: bool
    ) -> None:
        super().__init__()
        image_size = whole_number("image_size", image_size, least=1, most=LARGEST_SIDE)
        self.image_size = image_size
        self.fixed_size = fixed_size
        for value in pixel_mean:
            number("pixel_mean", value)
        for value in pixel_std:
            number("pixel_std", value, above=0)
        if len(pixel_mean) != 3 or len(pixel_std) != 3:
            raise ValueError(
                f"pixel_mean is {list(pixel_mean)} and pixel_std is {list(pixel_std)}, but three numbers "
                f"each are expected, the deviations positive."
            )
        self.register_buffer("pixel_mean", torch.tensor([float(v) for v in pixel_mean]).view(3, 1, 1))
        self.register_buffer("pixel_std", torch.tensor([float(v) for v in pixel_std]).view(3, 1, 1))

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are made for this encoder."""
        mean, std = (tuple(values.flatten().tolist()) for values in (self.pixel_mean, self.pixel_std))
        return Preprocessing(self.image_size, mean, std, self.interpolation)

    @abstractmethod
    def encode(self, pixels: Tensor) -> Tensor:
        """The network: normalised pixels (B, 3, H, W) -> trunk features (B, width)."""

    def encode_tokens(self, pixels: Tensor) -> Tensor:
        """The network without its read-out: normalised pixels (B, 3, H, W) -> tokens (B, T, width).

        Those before the patches come first, ``prefix_tokens`` of them. ValueError for a network without tokens.
        """
        raise ValueError(f"visual: a {type(self).__name__} has no tokens of patches; {_TOKENS_ADVICE}")

    def read_out(self, tokens: Tensor) -> Tensor:
        """Trunk features of tokens: (B, T, width) -> (B, width), as :meth:`encode` has them."""
        raise ValueError(f"visual: a {type(self).__name__} has no tokens of patches; {_TOKENS_ADVICE}")

    @property
    def prefix_tokens(self) -> int:
        """Tokens before those of the patches: 1 for a class token."""
        return 0

    def forward(self, images: Tensor, output: Output = "features") -> Tensor:
        """Encode images.

        The range of floats is checked on the CPU and in evaluation; in training on another device only the first time,
        because the check waits for the device (hypvl's own loop trains on uint8); never while compiling or tracing.

        Args:
            images: (B, 3, H, W), uint8 or floats in [0, 1]; they are normalised here.
            output: ``"features"``: (B, width); ``"tokens"``: (B, T, width), from which :meth:`read_out` makes them.

        Raises:
            ValueError: When the shape is not one this encoder takes, floats lie outside [0, 1] (NaN only in evaluation:
                in training it makes features that are not finite), or the network has no tokens.
            TypeError: When they are not a tensor, or their dtype is neither uint8 nor floating point.
        """
        if output not in ("features", "tokens"):
            one_of("output", output, Output)  # refuses it
        size = self.image_size
        if not isinstance(images, Tensor):
            raise TypeError(
                f"images are a {type(images).__name__}, but a tensor (B, 3, H, W) of uint8, or of floats in [0, 1], is "
                f"expected: transform(image)[None], with a transform of hypvl.create_model_and_transforms."
            )
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images have shape {tuple(images.shape)}, but (B, 3, H, W) is expected.")
        if self.fixed_size and tuple(images.shape[2:]) != (size, size):
            raise ValueError(
                f"images are {images.shape[2]} x {images.shape[3]}, but this encoder takes {size} x {size}: "
                f"resize them or build it with another image_size."
            )
        if images.is_floating_point() and self._looks(images):
            # A batch of training that is not finite is a skipped step with the names of its samples.
            check_range(images, not_finite="passed" if self.training else "refused")
        pixels = normalize_pixels(images, self.pixel_mean, self.pixel_std)
        return self.encode(pixels) if output == "features" else self.encode_tokens(pixels)

    def _looks(self, images: Tensor) -> bool:
        """Whether to check the range of these floats."""
        if images.is_meta or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return False
        if images.device.type == "cpu" or not self.training:
            return True
        first = not self._looked
        self._looked = True
        return first


_TOKENS_ADVICE = "take a vision transformer (TimmImageEncoder or ConvStemViT), or an objective without them."


def sincos_2d(
    width: int, grid: tuple[int, int], *, prefix_tokens: int = 1, temperature: float = 10000.0
) -> Tensor:
    """Position table of a grid of patches, after ``prefix_tokens`` rows of zeros (the class token).

    The patch in grid row i and column j, as a patch embedding flattens them (row after row), gets
    ``[sin(i w), cos(i w), sin(j w), cos(j w)]`` with ``w_k = temperature^(-k / q)``, k = 0 .. q - 1, and
    q = width / 4: the first half of the channels encodes the row, the second half the column.

    Args:
        width: Channels per token, a multiple of 4.
        grid: Rows and columns of patches, both at least 1.
        prefix_tokens: Tokens before the patches, which have no position.
        temperature: Longest wavelength over 2 pi, in patches; above 1.

    Returns:
        fp32 table of shape (1, prefix_tokens + rows * columns, width).

    Raises:
        ValueError: When ``width`` is not a positive multiple of 4.

    Source: Vaswani et al. 2017, section 3.5, per axis as in MoCo v3 (Chen et al. 2021).
    """
    if width < 4 or width % 4:
        raise ValueError(f"width is {width}, but sine-cosine positions need a positive multiple of 4.")
    rows, columns = grid
    quarter = width // 4
    # Parity: fp32 throughout, and the reciprocal of a power; fp64 rounded once differs by up to 3e-7.
    omega = 1.0 / temperature ** (torch.arange(quarter, dtype=torch.float32) / quarter)  # (q,)
    row = torch.arange(rows, dtype=torch.float32)[:, None] * omega  # (rows, q)
    column = torch.arange(columns, dtype=torch.float32)[:, None] * omega  # (columns, q)
    # Parity: the published code calls the first half "w", yet it encodes the ROW; checkpoints need that.
    first = torch.cat([row.sin(), row.cos()], dim=-1)[:, None].expand(rows, columns, -1)
    second = torch.cat([column.sin(), column.cos()], dim=-1)[None].expand(rows, columns, -1)
    patches = torch.cat([first, second], dim=-1).reshape(rows * columns, width)
    return torch.cat([patches.new_zeros(prefix_tokens, width), patches])[None]
