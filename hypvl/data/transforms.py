"""Images from bytes to cropped uint8 tensors; floats and normalisation happen on the device.

JPEG goes through ``torchvision.io``, every other format through PIL. The rules, whatever the format: RGB with
8 bits; the EXIF orientation is applied; transparency is laid over white; of an animation the first frame.
"""

import io
import math
import struct
import warnings
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

#: Pixels an image may have before it is refused as a decompression bomb (PIL's own limit, 256 MiB in RGB).
MAX_PIXELS = 89_478_485
# What PIL's format plugins raise on damaged files, measured by fuzzing: far more than OSError.
_PIL_ERRORS = (
    OSError, ValueError, TypeError, SyntaxError, EOFError, LookupError, ArithmeticError, AttributeError,
    RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
# Named, because PIL has readers that start other programs (EPS).
_PIL_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class ImageError(ValueError):
    """These bytes are not an image that can be used; the message says why."""


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decode an image file.

    Args:
        data: Content of the file (JPEG, PNG, WebP, GIF, BMP, TIFF ...).
        max_pixels: More than this is refused before anything is decoded.

    Returns:
        uint8 (3, H, W), RGB, upright.

    Raises:
        ImageError: when it cannot be decoded or is too large.
    """
    if data[:3] == b"\xff\xd8\xff":
        height, width, channels = _jpeg_shape(data)
        _check_size(width, height, max_pixels)
        if channels != 4:  # CMYK needs PIL, which knows Adobe's inversion
            try:
                return decode_jpeg(
                    torch.from_numpy(np.frombuffer(bytearray(data), dtype=np.uint8)),
                    mode=ImageReadMode.RGB,
                    apply_exif_orientation=True,
                )
            except RuntimeError as error:
                reason = str(error).splitlines()[0] if str(error) else "unknown error"
                raise ImageError(f"cannot decode the JPEG ({reason})") from error
    return _decode_pil(data, max_pixels)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"an image of {width} x {height} pixels")
    if width * height > max_pixels:
        raise ImageError(f"{width} x {height} pixels, more than max_pixels={max_pixels}")


def _jpeg_shape(data: bytes) -> tuple[int, int, int]:
    """(height, width, channels) from the frame header, without decoding."""
    at = 2
    while at + 9 < len(data):
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _START_OF_FRAME:
            height, width, channels = struct.unpack_from(">HHB", data, at + 5)
            return height, width, channels
        elif 0xD0 <= marker <= 0xD7 or marker == 0x01:  # markers without a length
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise ImageError("cannot decode the JPEG (no frame header)")


def _decode_pil(data: bytes, max_pixels: int) -> Tensor:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL's bomb warning: the limit is ours; its EXIF complaints
            with Image.open(io.BytesIO(data), formats=_PIL_FORMATS) as image:
                _check_size(*image.size, max_pixels)
                rgb = _to_rgb(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except _PIL_ERRORS as error:
        raise ImageError(f"cannot decode the image ({type(error).__name__}: {error})") from error
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        # convert("RGB") would clip 16 bits at 255: nearly every picture would come out white
        values = np.asarray(image, dtype=np.float64)
        sixteen = image.mode.startswith("I;16") or values.max(initial=0.0) > 255.0
        top = 65535.0 if sixteen else 255.0
        image = Image.fromarray((values.clip(0.0, top) * (255.0 / top)).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _resize(image: Tensor, height: int, width: int) -> Tensor:
    return F.resize(image, [height, width], interpolation=InterpolationMode.BICUBIC, antialias=True)


class RandomResizedCrop:
    """A random part of the image, resized to a square: area and aspect ratio are drawn from the generator.

    As torchvision's transform of that name (ten tries, then the largest centred crop of allowed ratio), but
    every draw comes from the generator handed in.

    Args:
        size: Side of the result in pixels.
        scale: Smallest and largest share of the image's area.
        ratio: Smallest and largest width / height of the crop; drawn evenly in its logarithm.
    """

    def __init__(
        self, size: int, *, scale: Sequence[float] = (0.5, 1.0), ratio: Sequence[float] = (3 / 4, 4 / 3)
    ) -> None:
        if size < 1 or not 0 < scale[0] <= scale[1] or not 0 < ratio[0] <= ratio[1]:
            raise ValueError(
                f"RandomResizedCrop: got size={size}, scale={tuple(scale)}, ratio={tuple(ratio)}; expected "
                "size >= 1 and ranges 0 < low <= high."
            )
        self.size = int(size)
        self.scale = (float(scale[0]), float(scale[1]))
        self.ratio = (float(ratio[0]), float(ratio[1]))

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
            raise ValueError(
                "RandomResizedCrop: got no generator; a random transform needs the sample's own."
            )
        top, left, h, w = self.crop(image.shape[-2], image.shape[-1], generator)
        return _resize(image[:, top : top + h, left : left + w], self.size, self.size)

    def __repr__(self) -> str:
        return f"RandomResizedCrop(size={self.size}, scale={self.scale}, ratio={self.ratio})"


class ResizeCenterCrop:
    """Shorter side to ``size``, then the central square (zero-shot classification).

    Args:
        size: Side of the result in pixels.
    """

    # Beyond this length : width the far ends are cut before resizing: 1 x 5000 would become 224 x 1,120,000.
    _LONGEST = 8

    def __init__(self, size: int) -> None:
        self.size = _positive("ResizeCenterCrop", size)

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """uint8 (3, H, W) -> uint8 (3, size, size); nothing is random."""
        short = min(image.shape[-2:])
        image = _center(image, self._LONGEST * short, self._LONGEST * short)
        height, width = image.shape[-2:]
        # torchvision's rounding: the longer side is cut to whole pixels
        image = _resize(image, self.size * height // short, self.size * width // short)
        return _center(image, self.size, self.size).contiguous()

    def __repr__(self) -> str:
        return f"ResizeCenterCrop(size={self.size})"


class Squeeze:
    """The whole image squeezed into a square, whatever its shape (retrieval).

    Args:
        size: Side of the result in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = _positive("Squeeze", size)

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """uint8 (3, H, W) -> uint8 (3, size, size); nothing is random."""
        return _resize(image, self.size, self.size)

    def __repr__(self) -> str:
        return f"Squeeze(size={self.size})"


def _positive(name: str, size: int) -> int:
    if size < 1:
        raise ValueError(f"{name}: got size={size}; expected at least 1 pixel.")
    return int(size)


def _center(image: Tensor, height: int, width: int) -> Tensor:
    """The central part, at most (height, width); torchvision's rounding."""
    h, w = min(height, image.shape[-2]), min(width, image.shape[-1])
    top, left = round((image.shape[-2] - h) / 2), round((image.shape[-1] - w) / 2)
    return image[:, top : top + h, left : left + w]
