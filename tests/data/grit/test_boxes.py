"""A raw GRIT sample becomes the members of a processed one."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hypvl.data.grit.boxes import DroppedBoxError, GritSettings, convert_sample, read_box
from hypvl.data.grit.mapper import GritMapper
from hypvl.data.sample import BadSample
from hypvl.errors import DataError
from tests.data.raw_grit import BALL, CAPTION, DOG, image, members

ANY = GritSettings(min_size=1)


def convert(settings: GritSettings = ANY, **changes: Any) -> dict[str, bytes]:
    return dict(convert_sample("k", members(**changes), settings)[0])


def dropped(settings: GritSettings = ANY, **changes: Any) -> dict[str, int]:
    return dict(convert_sample("k", members(**changes), settings)[1])


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_a_sample_in_the_published_layout() -> None:
    written = convert()
    assert list(written) == [
        "child.jpg", "child.txt", "numparents.txt", "parent000.jpg", "parent000.txt", "parent000_box.txt",
        "parent001.jpg", "parent001.txt", "parent001_box.txt", "parent002.jpg", "parent002.txt", "parent002_box.txt",
    ]  # fmt: skip
    assert written["child.jpg"] == image()  # the very bytes
    assert written["child.txt"].decode() == CAPTION
    assert written["numparents.txt"] == b"3"
    phrases = [written[f"parent{i:03d}.txt"].decode() for i in range(3)]
    assert phrases == ["a dog", "a red ball", "a dog in a field of flowers"]
    assert dropped() == {"the same phrase and box again": 1}  # the ball is in both lists


def test_boxes_are_cut_where_they_are() -> None:
    """64 x 48 pixels: the dog at x 16-48, y 12-48; the ball at x 0-32, y 0-24, all in the bright red quarter."""
    written = convert()
    dog, ball = pixels(written["parent000.jpg"]), pixels(written["parent001.jpg"])
    assert dog.shape == (36, 32, 3)
    assert ball.shape == (24, 32, 3)
    assert np.abs(ball[:20, :24].reshape(-1, 3).mean(axis=0) - [250, 0, 0]).max() < 3
    # of the dog's box the left half is red, the lower 24 of 36 rows dark (away from borders: JPEG blurs them)
    assert np.abs(dog[18:, :12].reshape(-1, 3).mean(axis=0) - [125, 0, 0]).max() < 3
    assert np.abs(dog[:8, 20:].reshape(-1, 3).mean(axis=0) - [0, 0, 250]).max() < 3


def test_the_mapper_reads_what_was_written() -> None:
    fields = GritMapper()("k", convert(), np.random.default_rng(0))
    assert fields["image"] == image()
    assert fields["box_text"] in CAPTION
    several = GritMapper("all")("k", convert(), np.random.default_rng(0))
    assert several["box_corners"][:2].tolist() == [DOG[2:6], BALL[2:6]]  # fractions of the image


def test_the_place_is_that_of_the_pixels_cut_out() -> None:
    """64 x 48 pixels; a box from x = 6.4 to 20 and y = 0 to 24.5 has the pixels 6 to 20 and 0 to 25."""
    written = convert(noun_chunks=[[0, 5, 0.1, -0.2, 20 / 64, 24.5 / 48, 0.9]], ref_exps=[])
    assert written["parent000_box.txt"] == b"0.093750 0.000000 0.312500 0.520833"
    assert pixels(written["parent000.jpg"]).shape == (25, 14, 3)


def test_only_the_lists_asked_for_are_read() -> None:
    assert convert(GritSettings("noun_chunks", 1))["numparents.txt"] == b"2"
    only = convert(GritSettings("ref_exps", 1), noun_chunks="not looked at")
    assert only["parent000.txt"] == b"a dog in a field of flowers"
    assert convert(ref_exps=None)["numparents.txt"] == b"2"  # one list is enough


def test_the_turned_image_is_cut_as_training_sees_it() -> None:
    """An image lying on its side (EXIF 6): upright it is 48 wide and 64 high."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = image(exif=exif)
    written = convert(jpg=data, noun_chunks=[[0, 5, 0.0, 0.0, 0.5, 0.25, 0.9]], ref_exps=[])
    assert written["child.jpg"] == data
    assert pixels(written["parent000.jpg"]).shape == (16, 24, 3)


def test_another_format_becomes_a_jpeg() -> None:
    written = convert(jpg=None, png=image(format="PNG"))
    assert written["child.jpg"][:2] == b"\xff\xd8"
    assert np.abs(pixels(written["child.jpg"])[4:20, 4:28].mean(axis=(0, 1)) - [250, 0, 0]).max() < 3


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ([0, 5, 0.1, 0.1, 0.5, 0.5], "not seven numbers"),
        ([0, 5, 0.1, 0.1, 0.5, "0.5", 0.9], "not seven numbers"),
        ([0, 5, 0.1, 0.1, 0.5, float("nan"), 0.9], "not seven numbers"),
        ([0, 5, 0.1, 0.1, 0.5, True, 0.9], "not seven numbers"),
        ("a dog", "not seven numbers"),
        (None, "not seven numbers"),
        ([5, 5, 0.1, 0.1, 0.5, 0.5, 0.9], "phrase outside the caption"),
        ([-3, 5, 0.1, 0.1, 0.5, 0.5, 0.9], "phrase outside the caption"),
        ([0, 45, 0.1, 0.1, 0.5, 0.5, 0.9], "phrase outside the caption"),
        ([0, 4.5, 0.1, 0.1, 0.5, 0.5, 0.9], "phrase outside the caption"),
        ([5, 6, 0.1, 0.1, 0.5, 0.5, 0.9], "empty phrase"),
        ([0, 5, 0.1, 0.1, 0.5, 0.5, 0.4], "score below 0.5"),
        ([0, 5, 0.5, 0.1, 0.5, 0.5, 0.9], "box without an area"),
        ([0, 5, 0.5, 0.1, 0.4, 0.5, 0.9], "box without an area"),
        ([0, 5, 1.1, 0.1, 1.2, 0.5, 0.9], "box without an area"),
        ([0, 5, 0.1, 0.1, 0.29, 0.5, 0.9], "smaller than 20 pixels"),
    ],
)
def test_boxes_left_out(entry: Any, reason: str) -> None:
    settings = GritSettings(min_size=20, min_score=0.5)
    with pytest.raises(DroppedBoxError, match=f"^{reason}$"):
        read_box(entry, CAPTION, 100, 100, settings)
    assert dropped(settings, noun_chunks=[entry], ref_exps=[])[reason] == 1


def test_a_box_has_every_pixel_it_touches_and_ends_with_the_image() -> None:
    assert read_box([0, 5, 0.105, -0.5, 0.991, 1.5, 0.9], CAPTION, 50, 100, ANY) == (
        "a dog",
        (10, 0, 100, 50),
    )
    assert read_box([34, 46, 0, 0, 1, 1, 0], "x" * 34 + " red \n ball ", 8, 8, ANY)[0] == "red ball"


def test_the_same_words_at_another_place_are_another_box() -> None:
    other = [0.0, 5.0, 0.0, 0.0, 0.5, 1.0, 0.9]
    assert convert(noun_chunks=[DOG, other], ref_exps=[DOG])["numparents.txt"] == b"2"


def test_offsets_count_characters_of_the_caption_as_it_came() -> None:
    written = convert(caption="  ein Gebäude 🏠 rot", noun_chunks=[[2, 13, *BALL[2:]]], ref_exps=[])
    assert written["parent000.txt"].decode() == "ein Gebäude"
    assert written["child.txt"].decode() == "ein Gebäude 🏠 rot"


@pytest.mark.parametrize(
    ("width", "height"), [(1280, 960), (641, 480), (480, 640), (None, 480), ("640", 480), (640, 0)]
)
def test_the_original_size_may_differ_in_scale_or_be_unknown(width: Any, height: Any) -> None:
    assert convert(original_width=width, original_height=height)


def test_nothing_is_written_without_a_box() -> None:
    written, reasons = convert_sample("k", members(noun_chunks=[], ref_exps=[]), ANY)
    assert written == []
    assert not reasons


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"json": None}, r"missing json \(it has jpg, txt\)"),
        ({"json": b"{"}, "broken json"),
        ({"jpg": None}, "missing image"),
        ({"jpg": b""}, "cannot decode the image"),
        ({"jpg": image()[:60]}, "cannot decode the JPEG"),
        ({"caption": None}, "missing caption"),
        ({"caption": 5}, "caption is int"),
        ({"caption": " "}, "empty caption"),
        ({"json": b'{"caption": "\\ud800", "noun_chunks": []}'}, "caption is not text"),
        (
            {"noun_chunks": None, "ref_exps": None},
            "json has no noun_chunks or ref_exps; see img2dataset's --save",
        ),
        (
            {"original_width": 480},
            "the image was padded or cropped, .*keep_ratio .480 x 480 before, 64 x 48 here",
        ),
        ({"noun_chunks": {"a": 1}}, "noun_chunks is dict, expected a list"),
        ({"ref_exps": "[]"}, "ref_exps is str, expected a list"),
    ],
)
def test_bad_samples(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadSample, match=f"k: {reason}"):
        convert(**changes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"phrases": "nouns"}, "phrases: got 'nouns'; expected both, noun_chunks or ref_exps"),
        ({"min_size": 0}, "min_size: got 0; expected 1 pixel"),
        ({"min_score": 70}, "min_score: got 70; expected 0 to 1"),
    ],
)
def test_settings_are_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        GritSettings(**values)
