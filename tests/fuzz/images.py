"""Damaged and lying images, inside shards and as files of evaluation sets."""

import contextlib
import functools
import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image

from hypvl.datasets.images import Images, read_image
from hypvl.errors import DataError
from hypvl.io.images import ImageError, is_plain_jpeg, pixels_of
from tests.data.helpers import encode, jpeg, write_tar
from tests.fuzz.damage import KINDS, damaged
from tests.fuzz.harness import Case, FuzzFailure, Outcome, Sandbox
from tests.fuzz.readers import read_shards

_SIDE = 48
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")


@functools.cache
def whole(format: str) -> bytes:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8))
    return encode(small.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), format)


def png_header(width: int, height: int, *, bits: int = 8, kind: int = 2, data: bytes = b"") -> bytes:
    """A PNG that says it has a size, whatever its data are."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg_of_size(width: int, height: int, *, progressive: bool = False) -> bytes:
    """A small JPEG whose header says another size."""
    data = bytearray(encode(Image.new("RGB", (8, 8), "red"), "JPEG", progressive=progressive))
    at = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def lying() -> Iterator[tuple[str, bytes]]:
    """Images that are no images, or not what they say."""
    zeros = zlib.compress(bytes(20_000_000), 9)
    sizes = ((10_000, 10_000), (100_000, 1000), (1, 100_000_000), (65_535, 65_535), (2**31 - 1, 2**31 - 1), (0, 0),
             (0, 9), (9_000, 9_000), (65_535, 1300), (1, 1), (8, 60_000), (2**32 - 1, 1))  # fmt: skip
    for width, height in sizes:
        yield f"PNG of {width} x {height} without data", png_header(width, height)
        if max(width, height) < 65_536:
            for progressive in (False, True):
                yield (
                    f"JPEG of {width} x {height}{' progressive' * progressive}",
                    jpeg_of_size(width, height, progressive=progressive),
                )
    yield "PNG bomb", png_header(20_000, 20_000, bits=1, kind=0, data=zlib.compress(bytes(20_000 * 2501), 9))
    yield "PNG with too much data", png_header(8, 8, data=zeros)
    yield "PNG with a text bomb", _with_chunk(b"zTXt", b"a\0\0" + zeros)
    yield "PNG with a profile bomb", _with_chunk(b"iCCP", b"a\0\0" + zeros)
    for bits in (0, 3, 16, 255):
        yield f"PNG with {bits} bits", png_header(8, 8, bits=bits)
    for kind in (1, 3, 5, 7, 200):
        yield f"PNG of the kind {kind}", png_header(8, 8, kind=kind, data=zlib.compress(bytes(999)))
    for text in (b"", b"\0", b"\xff\xd8\xff", b"<!DOCTYPE html><html><h1>404", b"<svg/>", b"GIF89a", b"RIFF",
                 b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"BM", b"II*\0", b"P6\n99999 99999\n255\n",
                 b"P6\n-1 -1\n255\n", b"\0\0\0\x0cjP  \r\n\x87\n", b"\x00asm", b"PK\x03\x04", b"\x80\x04K\x01.",
                 b"#define x_width 9999999\n", b"\x89PNG\r\n\x1a\n", b"A" * 1_000_000, bytes(1_000_000)):  # fmt: skip
        yield f"file of {text[:20]!r} ({len(text)})", text
    yield "JPEG in many scans", _many_scans(2000)
    yield "JPEG twice", jpeg(0) + jpeg(1)
    yield "JPEG in a comment of 64 KB", b"\xff\xd8\xff\xfe\xff\xff" + bytes(65_533) + jpeg(0)[2:]
    yield (
        "JPEG with wild EXIF",
        encode(Image.new("RGB", (8, 8)), "JPEG", exif=b"Exif\0\0MM\0*" + b"\xff" * 60_000),
    )
    yield (
        "GIF of many frames",
        encode(
            Image.new("P", (8, 8)),
            "GIF",
            save_all=True,
            append_images=[Image.new("P", (8, 8), i) for i in range(99)],
        ),
    )
    yield "TIFF of wide tiles", _tiff_tiles(1 << 20, 1 << 20)
    yield "WebP of the largest side", encode(Image.new("1", (16_383, 9)), "WEBP")


def _with_chunk(name: bytes, content: bytes) -> bytes:
    data = png_header(8, 8, data=zlib.compress(bytes(8 * 25)))
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return data[:33] + chunk + data[33:]


def _many_scans(count: int) -> bytes:
    data = encode(Image.new("RGB", (8, 8), "red"), "JPEG", progressive=True)
    at = data.index(b"\xff\xda")
    return data[:at] + data[at:-2] * count + data[-2:]


def _tiff_tiles(width: int, length: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, "TIFF", tiffinfo={322: width, 323: length, 324: 8, 325: 4})
    return out.getvalue()


def _check(box: Sandbox, data: bytes, extension: str) -> Outcome:
    """The same image as a file, in a TAR, and in memory: all agree, or all refuse it."""
    path = box.inputs / f"i.{extension}"
    path.write_bytes(data)
    read: torch.Tensor | None = None
    with contextlib.suppress(DataError):
        read = read_image(path)
    if read is not None and (
        read.dtype != torch.uint8 or read.ndim != 3 or read.shape[0] != 3 or not read.numel()
    ):
        raise FuzzFailure(f"an image of {read.dtype} {tuple(read.shape)}")
    for again in (lambda: Images.from_files([path])[0], lambda: pixels_of(data)):
        try:
            same = again()
        except (DataError, ImageError):
            same = None
        if (same is None) != (read is None) or (same is not None and not torch.equal(same, read)):
            raise FuzzFailure("readers differ")
    if read is not None:
        is_plain_jpeg(data)
    shard = write_tar(
        box.inputs / "0.tar", [(f"0.{extension}", data), ("0.txt", b"x"), ("1.jpg", jpeg(1)), ("1.txt", b"y")]
    )
    result = read_shards(shard)
    if extension in ("jpg", "png", "webp") and ("0" in result.good) != (read is not None):
        raise FuzzFailure(f"the shard says {result}, the file {read is not None}")
    if len(result.good) + len(result.bad) != 2 or "1" not in result.good:
        raise FuzzFailure(f"a sample is lost: {result}")
    return Outcome(len(result.good), len(result.bad))


def _damaged(format: str, kind: str, seed: int) -> Callable[[Sandbox], Outcome]:
    def run(box: Sandbox) -> Outcome:
        data, _ = damaged(whole(format), kind, random.Random(f"{format}{kind}{seed}"))
        return _check(box, data, {"JPEG": "jpg", "WEBP": "webp"}.get(format, "png"))

    return run


def _lying(number: int) -> Callable[[Sandbox], Outcome]:
    return lambda box: _check(box, _liars()[number][1], "jpg")


@functools.cache
def _liars() -> list[tuple[str, bytes]]:
    return list(lying())


def image_cases() -> list[Case]:
    names = [name for name, _ in _liars()]
    return [
        *(Case(f"image: {name}", _lying(i)) for i, name in enumerate(names)),
        *(
            Case(f"image: {format} {kind} {seed}", _damaged(format, kind, seed))
            for seed in range(3)
            for format in FORMATS
            for kind in KINDS
        ),
    ]
