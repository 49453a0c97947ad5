"""Image files that other loaders misread."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from hypvl.io.images import ImageError, decode_image
from tests.data.helpers import encode, jpeg

RED, BLUE = (200, 0, 0), (0, 0, 200)


def pixels(data: bytes) -> np.ndarray:
    """(H, W, 3)"""
    return decode_image(data).permute(1, 2, 0).numpy()


def corners() -> Image.Image:
    """64 x 32, its upper left quarter red, the rest blue."""
    image = Image.new("RGB", (64, 32), BLUE)
    image.paste(RED, (0, 0, 32, 16))
    return image


# EXIF value -> what PIL does to an upright image to store it that way.
STORED = {
    1: (),
    2: (Image.Transpose.FLIP_LEFT_RIGHT,),
    3: (Image.Transpose.ROTATE_180,),
    4: (Image.Transpose.FLIP_TOP_BOTTOM,),
    5: (Image.Transpose.TRANSPOSE,),
    6: (Image.Transpose.ROTATE_90,),
    7: (Image.Transpose.TRANSVERSE,),
    8: (Image.Transpose.ROTATE_270,),
}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_photos_of_phones_are_upright(format: str, orientation: int) -> None:
    """open_clip: photos with an EXIF orientation are embedded lying on their side; all eight must be upright."""
    image = corners()
    for turn in STORED[orientation]:
        image = image.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95}, "PNG": {}, "WEBP": {"lossless": True}}[format]
    result = pixels(encode(image, format, exif=exif.tobytes(), **options)).astype(int)
    assert result.shape == (32, 64, 3)
    for (y, x), color in {(4, 8): RED, (4, 56): BLUE, (28, 8): BLUE, (28, 56): BLUE}.items():
        assert np.abs(result[y, x] - color).max() <= 8


def test_an_impossible_orientation_is_no_orientation() -> None:
    """timm: an EXIF orientation outside 1 to 8 breaks the reader; such an image is shown as it is stored."""
    exif = Image.Exif()
    exif[0x0112] = 77
    for format in ("JPEG", "PNG"):
        result = pixels(encode(corners(), format, exif=exif.tobytes())).astype(int)
        assert result.shape == (32, 64, 3)
        assert np.abs(result[4, 8] - RED).max() <= 8


@pytest.mark.parametrize(
    ("ink", "color"),
    [((0, 255, 255, 0), (255, 0, 0)), ((255, 0, 255, 0), (0, 255, 0)), ((0, 0, 0, 255), (0, 0, 0)),
     ((0, 0, 0, 0), (255, 255, 255))],
)  # fmt: skip
def test_cmyk_from_print_shops_is_not_inverted(ink: tuple[int, ...], color: tuple[int, ...]) -> None:
    """webdataset: CMYK JPEGs come out as negatives, or as four channels; they must be the colours seen in print."""
    result = pixels(encode(Image.new("CMYK", (16, 16), ink), "JPEG", quality=95)).astype(int)
    assert result.shape == (16, 16, 3)
    assert np.abs(result - color).max() <= 6


def test_sixteen_bits_keep_their_shades() -> None:
    """timm: 16-bit PNGs turn white, as values are clipped at 255; 65535 must be 255 and 128 * 257 must be 128."""
    shades = np.array([[0, 128 * 257, 65535]], dtype=np.uint16)
    assert pixels(encode(Image.fromarray(shades), "PNG"))[0].tolist() == [[0] * 3, [128] * 3, [255] * 3]
    assert pixels(encode(Image.fromarray(shades), "TIFF"))[0].tolist() == [[0] * 3, [128] * 3, [255] * 3]


def test_one_bit_and_grey_have_three_equal_channels() -> None:
    """open_clip: images with one channel fail in Normalize; grey and black-and-white ones must become RGB."""
    stripe = Image.new("1", (2, 1))
    stripe.putpixel((1, 0), 1)
    for format in ("PNG", "TIFF", "BMP", "GIF"):
        assert pixels(encode(stripe, format))[0].tolist() == [[0, 0, 0], [255, 255, 255]], format
    for format in ("PNG", "TIFF", "BMP"):
        assert pixels(encode(Image.new("L", (1, 1), 77), format))[0, 0].tolist() == [77] * 3, format


def palette() -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    return image


TRANSPARENT: dict[str, tuple[Callable[[], bytes], list[list[int]]]] = {
    "RGBA": (
        lambda: encode(Image.new("RGBA", (1, 1), (*RED, 0)), "PNG"),
        [[255, 255, 255]],
    ),
    "half": (
        lambda: encode(Image.new("RGBA", (1, 1), (255, 0, 0, 51)), "PNG"),  # a fifth red, the rest white
        [[255, 204, 204]],
    ),
    "grey": (
        lambda: encode(Image.new("LA", (1, 1), (0, 0)), "PNG"),
        [[255, 255, 255]],
    ),
    "palette": (lambda: encode(palette(), "PNG", transparency=0), [[255, 255, 255], [*BLUE]]),
    "palette with shades": (
        lambda: encode(palette(), "PNG", transparency=bytes([255, 0])),
        [[*RED], [255, 255, 255]],
    ),
    "a colour of RGB": (
        lambda: encode(Image.new("RGB", (1, 1), RED), "PNG", transparency=RED),
        [[255, 255, 255]],
    ),
    "GIF": (lambda: encode(palette(), "GIF", transparency=0), [[255, 255, 255], [*BLUE]]),
    "WebP": (lambda: encode(Image.new("RGBA", (1, 1), (*RED, 0)), "WEBP", lossless=True), [[255, 255, 255]]),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_transparency_is_white(kind: str) -> None:
    """open_clip: logos on a transparent ground are embedded as black boxes; the ground must be white."""
    make, expected = TRANSPARENT[kind]
    assert pixels(make())[0].tolist() == expected


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame(format: str) -> None:
    """webdataset: animations give another frame each time, or a stack of them; it must always be the first."""
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, BLUE, BLUE)]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], duration=10, **options)
    result = pixels(data)
    assert result.shape == (8, 8, 3)
    assert (result == RED).all()


def test_the_content_decides_not_the_name() -> None:
    """webdataset: a PNG that is called .jpg kills a decoder that trusts names; what the bytes are must be read."""
    image = Image.new("RGB", (3, 2), RED)
    for format in ("PNG", "BMP", "GIF"):
        assert (pixels(encode(image, format)) == RED).all()  # no name comes in


@pytest.mark.parametrize("keep", [0, 2, 20, 0.5, 0.95])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP"])
def test_a_cut_off_download_is_refused_whole(format: str, keep: float) -> None:
    """img2dataset: half a download trains as an image with a grey lower half; it must be refused, never filled up."""
    data = encode(Image.open(io.BytesIO(jpeg(1, 64, 48))), format)
    with pytest.raises(ImageError):
        decode_image(data[: keep if isinstance(keep, int) else int(keep * len(data))])


def test_jpegs_of_all_kinds_are_the_same_image() -> None:
    """timm: progressive JPEGs and unusual subsampling look different; all must be within coding noise."""
    image = Image.open(io.BytesIO(jpeg(1, 64, 48)))
    for options in ({}, {"progressive": True}, {"subsampling": 0}, {"optimize": True}, {"dpi": (300, 300)}):
        result = pixels(encode(image, "JPEG", quality=95, **options)).astype(int)
        assert np.abs(result - np.asarray(image)).mean() < 2, options
