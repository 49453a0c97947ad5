import io
import math
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as v1
from torchvision.transforms import InterpolationMode, v2

from hypvl.data.transforms import ImageError, RandomResizedCrop, ResizeCenterCrop, Squeeze, decode_image
from tests.data.helpers import encode, jpeg


def pixels(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


PICTURE = Image.open(io.BytesIO(jpeg(3, 33, 21)))


def test_jpeg_is_what_pil_makes_of_it():
    data = jpeg(3, 33, 21)
    ours = pixels(decode_image(data)).astype(int)
    assert ours.shape == (21, 33, 3) and decode_image(data).dtype == torch.uint8
    # two builds of libjpeg-turbo may round differently
    assert np.abs(ours - np.asarray(Image.open(io.BytesIO(data)))).max() <= 2


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_are_exact(format):
    assert (pixels(decode_image(encode(PICTURE, format))) == np.asarray(PICTURE)).all()


@pytest.mark.parametrize("format", ["WEBP", "GIF"])
def test_other_formats(format):
    lossless = {"lossless": True} if format == "WEBP" else {}
    error = pixels(decode_image(encode(PICTURE, format, **lossless))).astype(int) - np.asarray(PICTURE)
    assert np.abs(error).mean() < 8  # GIF has 256 colours


def test_grey_jpeg_and_png_become_rgb():
    grey = PICTURE.convert("L")
    for format in ("JPEG", "PNG"):
        image = pixels(decode_image(encode(grey, format))).astype(int)
        assert (image[..., 0] == image[..., 1]).all() and (image[..., 1] == image[..., 2]).all()
        assert np.abs(image[..., 0] - np.asarray(grey)).max() < 40


def test_cmyk_jpeg():
    image = pixels(decode_image(encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)))
    assert np.abs(image.astype(int) - [255, 0, 0]).max() <= 6


def test_sixteen_bits_are_scaled_not_clipped():
    ramp = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    image = decode_image(encode(Image.fromarray(ramp), "PNG"))
    assert image[0].tolist() == [[0, 1, 128, 255]]
    dark = decode_image(encode(Image.fromarray(np.full((1, 2), 200, dtype=np.uint16)), "PNG"))
    assert dark[0].tolist() == [[1, 1]]  # 200 / 257


def test_transparency_lies_over_white():
    half = Image.new("RGBA", (1, 1), (255, 0, 0, 128))
    clear = Image.new("RGBA", (1, 1), (10, 20, 30, 0))
    assert pixels(decode_image(encode(half, "PNG")))[0, 0].tolist() == [255, 127, 127]
    assert pixels(decode_image(encode(clear, "PNG")))[0, 0].tolist() == [255, 255, 255]
    palette = Image.new("P", (2, 1))
    palette.putpalette([200, 0, 0, 0, 0, 200])
    palette.putpixel((1, 0), 1)
    image = pixels(decode_image(encode(palette, "PNG", transparency=0)))
    assert image[0].tolist() == [[255, 255, 255], [0, 0, 200]]
    assert pixels(decode_image(encode(Image.new("LA", (1, 1), (7, 255)), "PNG")))[0, 0].tolist() == [7, 7, 7]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(format):
    sideways = Image.new("RGB", (32, 16), "black")
    sideways.paste("white", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    image = pixels(decode_image(encode(sideways, format, exif=exif.tobytes())))
    assert image.shape == (32, 16, 3)
    assert image[:12].min() > 200 and image[20:].max() < 60


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cannot decode the image"),
        (b"not an image", "cannot decode the image"),
        (encode(PICTURE, "EPS"), "cannot decode the image"),  # PIL would start another program
        (b"\xff\xd8\xff", "no frame header"),
        (b"\xff\xd8\xff\xe0\x00\x00" * 9, "no frame header"),
        (jpeg(0)[:300], "cannot decode the JPEG"),
        (jpeg(0)[:-200], "cannot decode the JPEG"),
        (encode(PICTURE, "PNG")[:200], "cannot decode the image"),
    ],
)
def test_what_is_no_image_says_so(data, words):
    with pytest.raises(ImageError, match=words):
        decode_image(data)


def test_damaged_files_raise_nothing_else():
    rng = np.random.default_rng(0)
    files = [encode(PICTURE, f) for f in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")]
    for _ in range(40):
        for file in files:
            data = bytearray(file)
            for at in rng.integers(4, len(data), size=5):
                data[at] = int(rng.integers(256))
            try:
                image = decode_image(bytes(data), max_pixels=10_000)
            except ImageError:
                continue
            assert image.dtype == torch.uint8 and image.shape[0] == 3


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_bombs_are_refused_before_decoding(format):
    data = encode(Image.new("L", (2000, 1000)), format)
    with pytest.raises(ImageError, match="2000 x 1000 pixels, more than max_pixels=1999999"):
        decode_image(data, max_pixels=1_999_999)
    assert decode_image(data, max_pixels=2_000_000).shape == (3, 1000, 2000)
    huge = bytearray(encode(Image.new("L", (8, 8)), "PNG"))
    huge[16:24] = (2**30).to_bytes(4, "big") * 2
    with pytest.raises(ImageError):
        decode_image(bytes(huge))


def test_crop_areas_and_ratios_are_distributed_as_asked():
    crop = RandomResizedCrop(8, scale=(0.5, 1.0), ratio=(0.75, 4 / 3))
    boxes = np.array([crop.crop(3000, 4000, seeded(s)) for s in range(1500)], dtype=float)
    top, left, h, w = boxes.T
    area, ratio = h * w / 12e6, w / h
    assert (top >= 0).all() and (left >= 0).all() and (top + h <= 3000).all() and (left + w <= 4000).all()
    assert 0.4999 < area.min() < 0.51 and area.max() < 1.0001
    assert 0.7495 < ratio.min() < 0.78 and 1.3 < ratio.max() < 1.334
    with torch.random.fork_rng():
        torch.manual_seed(0)
        canvas = torch.empty(3, 3000, 4000, device="meta")
        theirs = np.array(
            [v1.RandomResizedCrop.get_params(canvas, [0.5, 1.0], [0.75, 4 / 3]) for _ in range(1500)],
            dtype=float,
        )
    for ours, other in ((area, theirs[:, 2] * theirs[:, 3] / 12e6), (ratio, theirs[:, 3] / theirs[:, 2])):
        spread = 4 * math.sqrt((ours.var() + other.var()) / 1500)  # four standard errors
        assert ours.mean() == pytest.approx(other.mean(), abs=spread)
    assert (top[h < 3000] / (3000 - h[h < 3000])).mean() == pytest.approx(0.5, abs=0.03)


def test_crop_fallback_is_the_largest_centred_one():
    crop = RandomResizedCrop(8, scale=(1.0, 1.0))
    assert crop.crop(5000, 1, seeded()) == (2499, 0, 1, 1)
    assert crop.crop(100, 1000, seeded()) == (0, 433, 100, 133)
    assert crop.crop(1000, 100, seeded()) == (433, 0, 133, 100)
    assert crop.crop(1, 1, seeded()) == (0, 0, 1, 1)


def test_crop_pixels_are_pils_resize_of_that_part():
    image = decode_image(encode(PICTURE, "PNG"))
    transform = RandomResizedCrop(16)
    top, left, h, w = transform.crop(21, 33, seeded(4))
    expected = PICTURE.resize((16, 16), Image.Resampling.BICUBIC, box=(left, top, left + w, top + h))
    # PIL rounds between its two passes and sees pixels beyond the box's edge
    assert np.abs(pixels(transform(image, seeded(4))).astype(int) - np.asarray(expected)).mean() < 1.5


def test_crops_draw_from_their_generator_only():
    image, transform = decode_image(jpeg(1)), RandomResizedCrop(16)
    state = torch.random.get_rng_state()
    first = transform(image, seeded(1))
    assert torch.equal(first, transform(image, seeded(1)))
    assert not torch.equal(first, transform(image, seeded(2)))
    assert torch.equal(state, torch.random.get_rng_state())
    with pytest.raises(ValueError, match="got no generator"):
        transform(image, None)


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (17, 17), (9, 31), (301, 97)])
def test_resize_center_crop_is_torchvisions(shape):
    image = decode_image(encode(Image.open(io.BytesIO(jpeg(5, *shape))), "PNG"))
    resize = v2.Resize(16, interpolation=InterpolationMode.BICUBIC, antialias=True)
    assert torch.equal(ResizeCenterCrop(16)(image), v2.CenterCrop(16)(resize(image)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (2, 3), (1, 9), (5000, 3)])
def test_degenerate_shapes_work(shape):
    image = torch.full((3, *shape), 77, dtype=torch.uint8)
    for transform in (RandomResizedCrop(24), ResizeCenterCrop(24), Squeeze(24)):
        out = transform(image, seeded())
        assert out.shape == (3, 24, 24) and out.dtype == torch.uint8
        assert (out == 77).all()


def test_squeeze_takes_the_whole_image():
    image = torch.zeros(3, 10, 40, dtype=torch.uint8)
    image[:, :, 20:] = 200
    out = Squeeze(8)(image)[0].float().mean(dim=0)
    assert (out[:3] < 12).all() and (out[5:] > 188).all()


@pytest.mark.parametrize("transform", [RandomResizedCrop(224), ResizeCenterCrop(224), Squeeze(160)])
def test_transforms_travel_and_show_their_parameters(transform):
    assert repr(pickle.loads(pickle.dumps(transform))) == repr(transform)
    assert f"size={transform.size}" in repr(transform) and " at 0x" not in repr(transform)


def test_parameters_from_a_config_are_lists():
    transform = RandomResizedCrop(size=8, scale=[0.2, 1.0], ratio=[1, 1])
    _, _, h, w = transform.crop(100, 100, seeded())
    assert h == w
    assert transform.scale == (0.2, 1.0) and math.isclose(transform.ratio[0], 1.0)


@pytest.mark.parametrize(
    "make", [lambda: RandomResizedCrop(0), lambda: RandomResizedCrop(8, scale=(1, 0.5)), lambda: Squeeze(0)]
)
def test_wrong_parameters(make):
    with pytest.raises(ValueError, match="expected"):
        make()
