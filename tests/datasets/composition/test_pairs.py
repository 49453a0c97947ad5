import json
from pathlib import Path
from typing import Any

import pytest

from hypvl.datasets.composition.choices import Group
from hypvl.datasets.composition.pairs import LAYOUTS, caption_pairs
from hypvl.embedding.encode import Encoding
from hypvl.errors import DataError, MissingDataError
from hypvl.evaluation.winoground_score import CaptionGroups
from tests.evaluation.fakes import GREEN, RED, FakeModel, FakeTokenizer, image
from tests.evaluation.miniatures import compositionality


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_caption_is_that_of_its_image(name: Any, tmp_path: Path) -> None:
    getattr(compositionality, name)(tmp_path)
    data = caption_pairs(name, tmp_path / name)
    encoding = Encoding(num_workers=0)
    metrics = CaptionGroups(data, encoding=encoding, tokenizer=FakeTokenizer())(FakeModel()).metrics
    assert len(data.groups) == 2 and metrics["group_score"] == 100.0


def test_colorswap_by_hand(tmp_path: Path) -> None:
    compositionality.colorswap(tmp_path)
    data = caption_pairs("colorswap", tmp_path / "colorswap")
    first = Group((0, 1), ("a red apple and a pear", "an apple and a green pear"), ("one",), "0")
    assert data.groups[0] == first and data.groups[1].images == (1, 2)


def test_images_elsewhere_without_extension_or_by_address(tmp_path: Path) -> None:
    image(tmp_path / "other" / "a.png", RED)
    image(tmp_path / "other" / "VG_100K_2" / "b.jpg", GREEN)
    entry = {
        "image_1": "a",
        "caption_1": "red",
        "image_2": "https://example.com/VG_100K_2/b.jpg",
        "caption_2": "green",
    }
    (tmp_path / "test.jsonl").write_text(json.dumps(entry) + "\n")
    data = caption_pairs("colorswap", tmp_path, images=tmp_path / "other")
    assert data.groups[0].key == "0" and data.groups[0].kinds == ()
    assert data.images[1][1, 0, 0] > 200  # green


def test_what_is_missing_or_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name: got 'swap'; expected 'colorswap'"):
        caption_pairs("swap", tmp_path)  # type: ignore[arg-type]
    with pytest.raises(MissingDataError, match=r"has no test\.json or test\.jsonl .*stanfordnlp/colorswap"):
        caption_pairs("colorswap", tmp_path)
    (tmp_path / "test.json").write_text('[{"image_1": "a.png", "image_2": "b.png", "caption_1": "red"}]')
    with pytest.raises(DataError, match=r"test\.json, entry 0: has no text 'caption_2'"):
        caption_pairs("colorswap", tmp_path)
    entry = {"image_1": "../a.png", "image_2": "b.png", "caption_1": "red", "caption_2": "green"}
    (tmp_path / "test.json").write_text(json.dumps([entry]))
    with pytest.raises(DataError, match=r"\.\./a\.png"):
        caption_pairs("colorswap", tmp_path)
    (tmp_path / "test.json").write_text(json.dumps([entry | {"image_1": "a.png"}]))
    with pytest.raises(MissingDataError, match="none of its 2 images is there"):
        caption_pairs("colorswap", tmp_path)
