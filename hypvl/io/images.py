"""Images from bytes to uint8 tensors: one way for what models and what people see.

JPEG goes through ``torchvision.io``, every other format through PIL. The rules, whatever the format: RGB with
8 bits; the EXIF orientation is applied; transparency is laid over white; of an animation the first frame.
"""

import io
import re
import struct
import warnings
import zlib
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from hypvl.io.files import read_regular

#: Pixels an image may have before it is refused as a decompression bomb (PIL's own limit, 256 MiB in RGB).
MAX_PIXELS = 89_478_485
#: Pixels on a side: what JPEG and GIF can say at most. Beyond it, resizing needs more memory than the image.
MAX_SIDE = 65_535
#: Bytes of an image file.
MAX_IMAGE_BYTES = 1 << 28
#: Passes over a JPEG: usual ones have 1 to 20; libtiff allows 100 too.
MAX_SCANS = 100
# A JPEG of max_pixels may be passed over this often; smaller ones more often.
_FULL_SCANS = 16
# Bytes of memory that a pixel takes while it is decoded (measured); up to the first, max_pixels is the limit.
_USUAL_COST = 12
_COSTS = {"TIFF": 16, "WEBP": 18, "JPEG2000": 24}
_STRIP = 1 << 20  # pixels converted together
_ORIENTATION = 0x0112
_TILE_WIDTH, _TILE_LENGTH = 322, 323
# What PIL's format plugins raise on damaged files, measured by fuzzing: far more than OSError.
_PIL_ERRORS = (
    OSError, ValueError, TypeError, SyntaxError, EOFError, LookupError, ArithmeticError, AttributeError,
    RuntimeError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
# Named, because PIL has readers that start other programs (EPS).
_PIL_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")

_ROUNDING = 0.5 / 255  # half a step of 8 bits
AnyImage: TypeAlias = Tensor | np.ndarray | Image.Image | bytes | str | Path

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
# A marker that has a length. libjpeg passes over everything else: bytes that are not markers, stuffed zeros (FF 00),
# fill bytes (FF FF), restarts (D0-D7) and 01, which have none.
_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd7])")


class ImageError(ValueError):
    """These bytes are not an image that can be used; the message says why."""


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """The image in the content of a file (JPEG, PNG, WebP, GIF, BMP, TIFF ...): uint8 (3, H, W), RGB, upright.

    More than ``max_pixels`` are refused before anything is decoded; less where decoding a format takes more than 12
    bytes of memory a pixel (WebP two thirds of it, JPEG 2000 half).

    Raises:
        ImageError: when it cannot be decoded or is too large.
    """
    if len(data) > MAX_IMAGE_BYTES:
        raise ImageError(f"a file of {len(data)} bytes, more than {MAX_IMAGE_BYTES}")
    if data[:3] == b"\xff\xd8\xff":
        frame = jpeg_frame(data, max_scans=MAX_SCANS)
        if frame is None:
            raise ImageError("cannot decode the JPEG (no frame header)")
        _check_size(frame.width, frame.height, max_pixels, "JPEG")
        if frame.scans > MAX_SCANS or frame.scans * frame.width * frame.height > _FULL_SCANS * max_pixels:
            raise ImageError(
                f"a JPEG of {frame.width} x {frame.height} pixels in {'more than ' * (frame.scans > MAX_SCANS)}"
                f"{min(frame.scans, MAX_SCANS)} scans, which takes too long"
            )
        if frame.channels != 4:  # CMYK needs PIL, which knows Adobe's inversion
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


def read_image_file(path: Path, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """The image in a file, uint8 (3, H, W).

    Raises:
        ImageError: when it cannot be decoded or is too large.
        OSError: when the file cannot be read, or is none (a device, a pipe).
    """
    return decode_image(read_regular(path, max_bytes=MAX_IMAGE_BYTES), max_pixels=max_pixels)


def image_tensor(image: Image.Image) -> Tensor:
    """The pixels of an opened PIL image, uint8 (3, H, W), by the rules of :func:`decode_image`; it stays as it is."""
    image.load()
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    width, height = image.size
    white = _white_level(image)
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    rows = max(1, _STRIP // max(width, 1))
    for top in range(0, height, rows):  # in strips: no second image of all pixels is made
        bottom = min(height, top + rows)
        pixels[top:bottom] = np.asarray(_to_rgb(image.crop((0, top, width, bottom)), white))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def pixels_of(image: AnyImage) -> Tensor:
    """An image in any form as uint8 (3, H, W), RGB and upright, transparency over white.

    Args:
        image: PIL image, content of an image file, or its path; a uint8 array (H, W), (H, W, 1), (H, W, 3) or
            (H, W, 4); a tensor (3, H, W), uint8 or floats in [0, 1].

    Raises:
        ValueError: Not such an image, or floats outside [0, 1].
        TypeError: Of another type.

    Example:
        >>> pixels_of(np.zeros((2, 5), dtype=np.uint8)).shape
        torch.Size([3, 2, 5])
    """
    if isinstance(image, Tensor):
        if (
            (image.dtype != torch.uint8 and not image.is_floating_point())
            or image.shape[:-2] != (3,)
            or not image.numel()
        ):
            raise ValueError(
                f"image: got {image.dtype} {tuple(image.shape)}; expected (3, H, W), uint8 or floats in [0, 1]."
            )
        plain = image.as_subclass(Tensor)  # not torchvision's own kind, which remembers where it comes from
        return plain if plain.dtype == torch.uint8 else _bytes(plain)
    if isinstance(image, np.ndarray):
        if (
            image.dtype != np.uint8
            or image.ndim not in (2, 3)
            or image.shape[2:] not in ((), (1,), (3,), (4,))
            or not image.size
        ):
            raise ValueError(
                f"image: got an array {image.dtype} {image.shape}; expected uint8 (H, W), (H, W, 1), (H, W, 3) or "
                f"(H, W, 4), or a tensor (3, H, W)."
            )
        return image_tensor(Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image))
    if isinstance(image, Image.Image):
        return image_tensor(image)
    if isinstance(image, str | Path):
        return read_image_file(Path(image))
    if not isinstance(image, bytes):
        raise TypeError(
            f"image: got a {type(image).__name__}; expected a PIL image, an array, a tensor, bytes or a path."
        )
    return decode_image(image)


def to_pil(image: Tensor) -> Image.Image:
    """uint8 (3, H, W) as a PIL image, to be cropped, drawn on or saved."""
    return Image.fromarray(image.movedim(0, -1).contiguous().numpy())


class JpegFrame(NamedTuple):
    """What a JPEG file will become."""

    height: int  # pixels
    width: int
    channels: int  # of the file: 1 grey, 3 colours, 4 CMYK
    scans: int  # passes over the image, 1 where the first holds everything; counting ends one above ``max_scans``


def is_plain_jpeg(data: bytes) -> bool:
    """Whether an image that :func:`decode_image` takes is a JPEG that all readers show alike: RGB or grey, upright."""
    if data[:3] != b"\xff\xd8\xff":
        return False
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        return image.mode in ("RGB", "L") and image.getexif().get(_ORIENTATION, 1) == 1


def jpeg_frame(data: bytes, *, max_scans: int) -> JpegFrame | None:
    """The frame of a JPEG file, found without decoding; None where libjpeg finds none.

    The first frame header counts, wherever the marker reader of libjpeg finds it: also behind bytes that are not
    markers and behind segments that claim an impossible length.
    """
    frame: JpegFrame | None = None
    several = False  # scans: coefficients are held in memory until the last one
    at = 2  # behind the start of the image
    while match := _MARKER.search(data, at):
        marker, at = match[1][0], match.end()
        if marker in (_START_OF_IMAGE, _END_OF_IMAGE):
            break
        if marker in _START_OF_FRAME and frame is None:
            if at + 8 > len(data):
                break
            height, width, channels = struct.unpack_from(">HHB", data, at + 3)
            frame = JpegFrame(height, width, channels, 0)
            several = marker in _PROGRESSIVE
        elif marker == _START_OF_SCAN:
            if frame is None:
                break
            components = data[at + 2] if at + 2 < len(data) else 0
            frame = frame._replace(scans=frame.scans + 1)
            several = several or components < frame.channels
            if not several or frame.scans > max_scans:
                break
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return frame


def _check_size(width: int, height: int, max_pixels: int, format: str) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"an image of {width} x {height} pixels")
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"{width} x {height} pixels, longer than {MAX_SIDE} on a side")
    if width * height > max_pixels:
        raise ImageError(f"{width} x {height} pixels, more than max_pixels={max_pixels}")
    allowed = max_pixels * _USUAL_COST // _COSTS.get(format, _USUAL_COST)
    if width * height > allowed:
        raise ImageError(
            f"{width} x {height} pixels, more than the {allowed} that max_pixels={max_pixels} allows for {format}"
        )


def _decode_pil(data: bytes, max_pixels: int) -> Tensor:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL's bomb warning: the limit is ours; its EXIF complaints
            with Image.open(io.BytesIO(data), formats=_PIL_FORMATS) as image:
                kind = str(image.format)
                _check_size(*image.size, max_pixels, kind)
                if kind == "TIFF":
                    _check_tiles(image, max_pixels)
                return image_tensor(image)
    except ImageError:
        raise
    except UnidentifiedImageError as error:  # its text has the address of the bytes
        raise ImageError(
            "cannot decode the image (UnidentifiedImageError: its bytes are of no known format)"
        ) from error
    except _PIL_ERRORS as error:
        raise ImageError(f"cannot decode the image ({type(error).__name__}: {error})") from error


def _check_tiles(image: Image.Image, max_pixels: int) -> None:
    """A tile of a TIFF is decoded whole, however little of it the image shows."""
    tags = getattr(image, "tag_v2", {})
    width, length = tags.get(_TILE_WIDTH, 1), tags.get(_TILE_LENGTH, 1)
    if not (isinstance(width, int) and isinstance(length, int) and 0 < width * length <= max_pixels):
        raise ImageError(f"tiles of {width} x {length} pixels, more than max_pixels={max_pixels}")


def _white_level(image: Image.Image) -> float | None:
    """The value that is white where pixels are not of 8 bits, else None.

    Integers above 255 are 16-bit ones; floats of at most 1 are shares, as image libraries write them.
    """
    if image.mode.startswith("I;16"):
        return 65535.0
    if image.mode not in ("I", "F"):
        return None
    extrema = image.getextrema()
    largest = extrema[1] if isinstance(extrema[1], int | float) else 0.0
    if largest > 255.0:
        return 65535.0
    return 1.0 if image.mode == "F" and largest <= 1.0 else 255.0


def _to_rgb(image: Image.Image, white: float | None) -> Image.Image:
    if white is not None:  # convert("RGB") would clip at 255: nearly every 16-bit image would come out white
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0)
        image = Image.fromarray((values.clip(0.0, white) * (255.0 / white)).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _bytes(image: Tensor) -> Tensor:
    """Floats in [0, 1] -> uint8."""
    low, high = (float(end) for end in image.aminmax()) if image.numel() else (0.0, 0.0)
    if not -_ROUNDING <= low <= high <= 1 + _ROUNDING:
        raise ValueError(
            f"image: got floats from {low:.4g} to {high:.4g}; expected floats in [0, 1], not normalised (the model "
            f"does that), or uint8."
        )
    return (image * 255).round().clamp(0, 255).to(torch.uint8)
