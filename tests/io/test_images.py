"""Images of every format become the same pixels for models and people; hostile files are refused before decoding."""

import ast
import io
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from hypvl.io import images as module
from hypvl.io.images import ImageError, decode_image, image_tensor, jpeg_frame, read_image_file, to_pil
from tests.data.helpers import encode, jpeg


def pixels(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


IMAGE = Image.open(io.BytesIO(jpeg(3, 33, 21)))


def test_jpeg_is_what_pil_makes_of_it():
    data = jpeg(3, 33, 21)
    ours = pixels(decode_image(data)).astype(int)
    assert ours.shape == (21, 33, 3) and decode_image(data).dtype == torch.uint8
    # two builds of libjpeg-turbo may round differently
    assert np.abs(ours - np.asarray(Image.open(io.BytesIO(data)))).max() <= 2


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_are_exact(format):
    assert (pixels(decode_image(encode(IMAGE, format))) == np.asarray(IMAGE)).all()


@pytest.mark.parametrize("format", ["WEBP", "GIF"])
def test_other_formats(format):
    lossless = {"lossless": True} if format == "WEBP" else {}
    error = pixels(decode_image(encode(IMAGE, format, **lossless))).astype(int) - np.asarray(IMAGE)
    assert np.abs(error).mean() < 8  # GIF has 256 colours


def test_grey_jpeg_and_png_become_rgb():
    grey = IMAGE.convert("L")
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
        (b"not an image", r"its bytes are of no known format\)$"),
        (encode(IMAGE, "EPS"), "cannot decode the image"),  # PIL would start another program
        (b"\xff\xd8\xff", "no frame header"),
        (b"\xff\xd8\xff\xe0\x00\x00" * 9, "no frame header"),
        (jpeg(0)[:300], "cannot decode the JPEG"),
        (jpeg(0)[:-200], "cannot decode the JPEG"),
        (encode(IMAGE, "PNG")[:200], "cannot decode the image"),
    ],
)
def test_what_is_no_image_says_so(data, words):
    with pytest.raises(ImageError, match=words):
        decode_image(data)


def test_damaged_files_raise_nothing_else():
    rng = np.random.default_rng(0)
    files = [encode(IMAGE, f) for f in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")]
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


def test_float_images_of_at_most_one_are_shares() -> None:
    ramp = np.array([[0.0, 0.5, 1.0, np.nan, -2.0]], dtype=np.float32)
    assert decode_image(encode(Image.fromarray(ramp), "TIFF"))[0].tolist() == [[0, 128, 255, 0, 0]]
    assert decode_image(encode(Image.fromarray(ramp * 255), "TIFF"))[0].tolist() == [[0, 128, 255, 0, 0]]
    assert decode_image(encode(Image.fromarray(ramp * 65535), "TIFF"))[0].tolist() == [[0, 128, 255, 0, 0]]


def some_images() -> list[Image.Image]:
    """One of each kind that is decoded in a way of its own."""
    clear = IMAGE.convert("RGBA")
    clear.putalpha(IMAGE.convert("L"))
    palette = IMAGE.quantize(8)
    palette.info["transparency"] = 3
    sixteen = Image.fromarray(np.asarray(IMAGE.convert("L")).astype(np.uint16) * 257)
    return [IMAGE, clear, clear.convert("LA"), palette, sixteen, IMAGE.convert("1")]


@pytest.mark.parametrize("number", range(6))
def test_opened_images_are_what_their_files_are(number: int, tmp_path: Path) -> None:
    image = some_images()[number]
    exif = Image.Exif()
    for orientation in (1, 6):
        exif[0x0112] = orientation
        data = encode(image, "PNG", exif=exif.tobytes())
        (tmp_path / "i.png").write_bytes(data)
        from_file = decode_image(data)
        with Image.open(io.BytesIO(data)) as opened:
            assert torch.equal(image_tensor(opened), from_file)
            assert opened.size == image.size  # as it was
        assert torch.equal(read_image_file(tmp_path / "i.png"), from_file)
    assert from_file.shape == (3, 33, 21)
    assert torch.equal(image_tensor(to_pil(from_file)), from_file)


def test_strips_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [decode_image(encode(image, "PNG")) for image in some_images()]
    monkeypatch.setattr(module, "_STRIP", 70)  # two rows
    assert all(
        torch.equal(decode_image(encode(image, "PNG")), expected)
        for image, expected in zip(some_images(), whole, strict=True)
    )


def test_nothing_else_in_the_library_opens_images() -> None:
    package = Path(module.__file__).parents[1]
    calls = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"Image.open", "decode_jpeg", "plt.imread"}
    }
    assert calls == {"io/images.py"}


def hidden_frame(width: int, height: int, decoy: tuple[int, int]) -> bytes:
    """A JPEG whose frame follows FF 00, which leads those astray who take it for a segment: to a decoy."""
    real = bytearray(encode(Image.new("L", (8, 8)), "JPEG"))
    at = real.index(b"\xff\xc0")
    real[at + 5 : at + 9] = struct.pack(">HH", height, width)
    small = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, *decoy, 1) + b"\x01\x11\x00"
    end = 4 + len(real) - 2
    return b"\xff\xd8\xff\x00" + struct.pack(">H", end - 2) + bytes(real[2:]) + small + bytes(20)


def test_a_frame_is_read_where_the_decoder_reads_it() -> None:
    data = hidden_frame(64, 48, decoy=(8, 8))
    assert decode_jpeg(torch.from_numpy(np.frombuffer(data, np.uint8).copy())).shape[1:] == (48, 64)
    assert jpeg_frame(data, max_scans=9)[:3] == (48, 64, 1)
    with pytest.raises(ImageError, match="40000 x 20000 pixels, more than max_pixels=89478485"):
        decode_image(hidden_frame(40_000, 20_000, decoy=(8, 8)))
    plain = jpeg(3, 33, 21)
    for inserted in (
        b"\xff\xe1\x00\x00",
        b"\xff\xe1\x00\x01",
        b"\xff\xd0",
        b"\xff\x01",
        b"\xff\xff",
        b"junk\xff\x00",
    ):
        data = plain[:2] + b"\xff\xfe\x00\x02" + inserted + plain[2:]
        assert jpeg_frame(data, max_scans=9) == (21, 33, 3, 1)
        assert decode_image(data).shape == (3, 21, 33)


@pytest.mark.parametrize("progressive", [False, True])
def test_whatever_the_decoder_makes_of_a_file_was_known_before(progressive: bool) -> None:
    rng = random.Random(progressive)
    files = [encode(IMAGE.resize((16, 9)), "JPEG", progressive=progressive, quality=q) for q in (5, 95)]
    decoded = 0
    for _ in range(1500):
        data = bytearray(rng.choice(files))
        for _ in range(rng.randint(1, 4)):
            at = rng.randint(2, len(data) - 2)
            signs = (0xFF, 0x00, 0xC0, 0xC2, 0xD8, 0xDA, 0xE1, 0xD0, 2, 9)
            change = bytes(rng.choice(signs) for _ in range(rng.randint(1, 4)))
            data[at : at + rng.choice((0, len(change)))] = change
        frame = jpeg_frame(bytes(data), max_scans=100)
        if frame is not None and frame.height * frame.width > 1_000_000:
            continue
        try:
            image = decode_jpeg(
                torch.from_numpy(np.frombuffer(bytes(data), np.uint8).copy()), ImageReadMode.RGB
            )
        except RuntimeError:
            continue
        decoded += 1
        assert frame is not None and image.shape[1:] == (frame.height, frame.width)
    assert decoded > 200


def with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = encode(Image.new("L", (8, 8)), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (count - jpeg_frame(data, max_scans=99).scans) + data[-2:]


def test_scans_without_end_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    assert jpeg_frame(encode(IMAGE, "JPEG"), max_scans=9).scans == 1
    assert jpeg_frame(encode(IMAGE, "JPEG", progressive=True), max_scans=99).scans == 10
    assert jpeg_frame(with_scans(40), max_scans=99).scans == 40
    assert decode_image(with_scans(40)).shape == (3, 8, 8)
    monkeypatch.setattr(module, "decode_jpeg", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="8 x 8 pixels in more than 100 scans, which takes too long"):
        decode_image(with_scans(3000))
    with pytest.raises(ImageError, match="8 x 8 pixels in 40 scans, which takes too long"):
        decode_image(with_scans(40), max_pixels=100)


def test_what_only_looks_like_a_scan_is_none() -> None:
    data = encode(IMAGE, "JPEG", progressive=True)
    looks = b"\xff\xda\x00\x08" * 1000
    comment = b"\xff\xfe" + struct.pack(">H", len(looks) + 2) + looks
    for odd in (data + looks, data[:2] + comment + data[2:]):  # a film behind the image; a preview in it
        assert jpeg_frame(odd, max_scans=99).scans == 10
        assert torch.equal(decode_image(odd), decode_image(data))


@pytest.mark.parametrize("size", [(1, 65_536), (65_536, 1)])
def test_sides_are_bounded(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=f"{size[0]} x {size[1]} pixels, longer than 65535 on a side"):
        decode_image(encode(Image.new("L", size), "PNG"))
    assert decode_image(encode(Image.new("L", (1, 65_535)), "PNG")).shape == (3, 65_535, 1)


def test_formats_that_need_more_memory_may_have_fewer_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    bits = 0x2F | (9399 | 9499 << 14) << 8
    chunk = b"VP8L" + struct.pack("<I", 14) + bits.to_bytes(5, "little") + bytes(9)
    tiny = b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk
    assert len(tiny) == 34
    monkeypatch.setattr(module, "image_tensor", lambda _: pytest.fail("decoded"))
    with pytest.raises(
        ImageError,
        match=r"9400 x 9500 pixels, more than the 59652323 that .* allows for WEBP",
    ):
        decode_image(tiny)


def test_tiles_of_a_tiff_are_bounded() -> None:
    tags = [
        (256, 8),
        (257, 8),
        (258, 8),
        (259, 5),
        (262, 1),
        (322, 60_000),
        (323, 60_000),
        (324, 8),
        (325, 8),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    with pytest.raises(ImageError, match="tiles of 60000 x 60000 pixels"):
        decode_image(data)


def test_files_are_bounded_and_regular(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    for endless in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(OSError, match="not a regular file"):
            read_image_file(endless)
    (tmp_path / "i.jpg").write_bytes(jpeg(1))
    monkeypatch.setattr(module, "MAX_IMAGE_BYTES", 400)
    with pytest.raises(OSError, match="more than 400 bytes"):
        read_image_file(tmp_path / "i.jpg")
    with pytest.raises(ImageError, match=f"a file of {len(jpeg(1))} bytes, more than 400"):
        decode_image(jpeg(1))


MEASURE = """
import io, sys
import numpy as np
from PIL import Image
from hypvl.io.images import decode_image

def peak():
    return 1024 * next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

data = open(sys.argv[1], "rb").read()
small = io.BytesIO()
Image.new("RGB", (99, 99)).save(small, sys.argv[2])
decode_image(small.getvalue())
before = peak()
image = decode_image(data)
print((peak() - before) / (image.shape[1] * image.shape[2]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["JPEG", "progressive JPEG", "PNG", "16-bit PNG", "WEBP", "TIFF", "JPEG2000"]
)
def test_memory_a_pixel_takes_is_what_the_limits_assume(kind: str, tmp_path: Path) -> None:
    format = kind.rpartition(" ")[2]
    pil_image = Image.open(io.BytesIO(jpeg(3, 300, 300))).resize((3000, 3000))
    if kind == "16-bit PNG":
        pil_image = Image.fromarray(np.asarray(pil_image.convert("L")).astype(np.uint16) * 257)
    options = {"progressive": True} if kind == "progressive JPEG" else {}
    (tmp_path / "i").write_bytes(encode(pil_image, format, **options))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "i"), format],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (
        float(done.stdout) <= module._COSTS.get(format, module._USUAL_COST) + 2
    )  # measured on a small image
