import json

import numpy as np
import pytest

from hypvl.data.mappers import GenericMapper, RedCapsMapper, segment
from hypvl.data.sample import BadSample


def draw(mapper, members, seed=0):
    return mapper("k", members, np.random.default_rng(seed))


def notes(**fields):
    return {"jpg": b"J", "json": json.dumps(fields).encode()}


@pytest.mark.parametrize(
    ("name", "words"),
    [("itookapicture", "i took a picture"), ("EarthPorn", "earth porn"), ("cats", "cats"), ("ネコ", "ネコ")],
)
def test_segment(name, words):
    assert segment(name) == words


def test_redcaps_prefix_comes_with_its_probability():
    members = notes(caption="a tree", subreddit="itookapicture")
    captions = [draw(RedCapsMapper(0.25), members, seed)["caption"] for seed in range(2000)]
    assert set(captions) == {"a tree", "i took a picture : a tree"}
    share = sum(c != "a tree" for c in captions) / 2000
    assert abs(share - 0.25) < 0.04  # four standard errors
    assert draw(RedCapsMapper(0.0), members)["caption"] == "a tree"
    assert draw(RedCapsMapper(1.0), members) == {"image": b"J", "caption": "i took a picture : a tree"}


@pytest.mark.parametrize("fields", [{}, {"subreddit": None}, {"subreddit": ""}, {"subreddit": 3}])
def test_redcaps_without_subreddit_is_a_plain_caption(fields):
    assert draw(RedCapsMapper(1.0), notes(caption="ein Gebäude", **fields))["caption"] == "ein Gebäude"


@pytest.mark.parametrize("extension", ["jpg", "jpeg", "png", "webp"])
def test_generic_images_and_txt(extension):
    fields = draw(GenericMapper(), {extension: b"I", "txt": "  é tree\n".encode(), "json": b"broken"})
    assert fields == {"image": b"I", "caption": "é tree"}


def test_generic_json():
    assert draw(GenericMapper(), notes(caption="one"))["caption"] == "one"
    both = notes(alt="two") | {"txt": b"not this"}
    assert draw(GenericMapper(caption_key="alt"), both)["caption"] == "two"


def test_a_list_of_captions_gives_one_of_them():
    members = notes(captions=["a", "b", "c"])
    drawn = [draw(GenericMapper(caption_key="captions"), members, seed)["caption"] for seed in range(600)]
    assert {c: drawn.count(c) for c in "abc"} == {c: pytest.approx(200, abs=50) for c in "abc"}


@pytest.mark.parametrize(
    ("mapper", "members", "reason"),
    [
        (RedCapsMapper(), {"jpg": b"J"}, r"missing json \(it has jpg\)"),
        (RedCapsMapper(), {"json": b'{"caption": "a"}'}, r"missing image \(it has json\)"),
        (RedCapsMapper(), {"jpg": b"J", "json": b"{"}, "broken json"),
        (RedCapsMapper(), {"jpg": b"J", "json": b"\xff\xfe"}, "broken json"),
        (RedCapsMapper(), {"jpg": b"J", "json": b"[" * 100_000}, "broken json"),
        (RedCapsMapper(), {"jpg": b"J", "json": b"[1]"}, "json is a list"),
        (RedCapsMapper(), notes(), "missing caption"),
        (RedCapsMapper(), notes(caption=" \n"), "empty caption"),
        (RedCapsMapper(), notes(caption=5), "caption is int"),
        (GenericMapper(), {"jpg": b"J"}, r"missing txt or json \(it has jpg\)"),
        (GenericMapper(), {"jpg": b"J", "txt": b"\xff"}, "not UTF-8"),
        (GenericMapper(), {"jpg": b"J", "txt": b""}, "empty caption"),
        (GenericMapper(), {"txt": b"a"}, r"missing image \(it has txt\)"),
        (GenericMapper(caption_key="x"), notes(caption="a"), "missing x"),
        (GenericMapper(caption_key="x"), notes(x=[]), "x is list"),
    ],
)
def test_bad_samples(mapper, members, reason):
    with pytest.raises(BadSample, match=f"k: .*{reason}"):
        draw(mapper, members)


def test_mappers_show_their_parameters():
    assert repr(RedCapsMapper(0.5)) == "RedCapsMapper(prefix_probability=0.5)"
    with pytest.raises(ValueError, match="prefix_probability: got 2"):
        RedCapsMapper(2)
