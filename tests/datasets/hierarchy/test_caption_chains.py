"""Chains of captions from every form that is read."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from hypvl.datasets.demo import demo_chains
from hypvl.datasets.hierarchy.caption_chains import CaptionChains, hierarcaps
from hypvl.datasets.images import Images
from hypvl.errors import DataError, MissingDataError
from tests.evaluation.fakes import RED, image
from tests.evaluation.miniatures.hierarcaps import ROWS, make

CHAIN = ["animal", "dog", "brown dog", "a brown dog in the snow"]


def test_the_miniature(tmp_path: Path) -> None:
    make(tmp_path)
    result = hierarcaps(tmp_path / "hierarcaps")
    assert result.chains == [list(captions) for _, _, captions in ROWS]
    assert result.keys[0] == "000000391895.jpg" and result.levels == 4
    assert result.images[0].shape == (3, 7, 9)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("test.json", {"image": "7.jpg", "captions": CHAIN}),
        ("hierarcaps.jsonl", {"file_name": "7.jpg", "captions": CHAIN}),
        ("test.json", {"cocoid": 7, "caption": " => ".join(CHAIN)}),
        ("hierarcaps.csv", {"image_id": "7", **{f"caption_{i}": text for i, text in enumerate(CHAIN, 1)}}),
        ("test.csv", {"image": "7.jpg", **{f"level{i}": CHAIN[i] for i in (3, 1, 0, 2)}}),
    ],
)
def test_every_layout_gives_the_same_chain(tmp_path: Path, name: str, row: dict[str, Any]) -> None:
    image(tmp_path / "images" / "7.jpg", RED)
    image(tmp_path / "images" / "COCO_val2014_000000000007.jpg", RED)
    path = tmp_path / name
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, row)
            writer.writeheader()
            writer.writerow(row)
    else:
        path.write_text(json.dumps([row] if path.suffix == ".json" else row))
    result = hierarcaps(tmp_path)
    assert result.chains == [CHAIN]
    assert result.keys == ["7.jpg" if "7.jpg" in row.values() else "COCO_val2014_000000000007.jpg"]


def test_specific_first_is_turned_round(tmp_path: Path) -> None:
    image(tmp_path / "x" / "7.jpg", RED)
    (tmp_path / "mine.jsonl").write_text(json.dumps({"image": "7.jpg", "captions": CHAIN[::-1]}))
    result = hierarcaps(
        tmp_path, annotations="mine.jsonl", images_root=tmp_path / "x", order="specific first"
    )
    assert result.chains == [CHAIN]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"captions": CHAIN}, "row 1: names no image"),
        ({"image": "7.jpg"}, "row 1: its captions are '\\[\\]'"),
        ({"image": "7.jpg", "captions": "a dog"}, "row 1: its captions are"),
        ({"image": "7.jpg", "captions": [1, 2]}, "row 1: its captions are"),
        (7, "expected a list of rows"),
    ],
)
def test_wrong_rows_are_named(tmp_path: Path, row: Any, message: str) -> None:
    image(tmp_path / "images" / "7.jpg", RED)
    (tmp_path / "test.json").write_text(json.dumps([row]))
    with pytest.raises(DataError, match=message):
        hierarcaps(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"holds no hierarcaps_test\.csv .*TAU-VAILab/hierarcaps"):
        hierarcaps(tmp_path)
    (tmp_path / "test.json").write_text(json.dumps([{"cocoid": 7, "captions": CHAIN}]))
    with pytest.raises(MissingDataError, match=r"its only image is not there: .*000000000007\.jpg"):
        hierarcaps(tmp_path)
    with pytest.raises(MissingDataError, match=r"hierarchy\.json: is not there .*; make it"):
        demo_chains(tmp_path)


def test_chains_of_different_lengths_are_refused() -> None:
    images = Images.from_files([Path("a"), Path("b")])
    with pytest.raises(DataError, match=r"2 chains of \[2, 4\] captions"):
        CaptionChains(images, [CHAIN, CHAIN[:2]], keys=["a", "b"])


def test_a_broken_line_of_a_csv_is_no_other_chain(tmp_path: Path) -> None:
    image(tmp_path / "images" / "7.jpg", RED)
    lines = ["image,caption_1,caption_2", "7.jpg,animal,a dog, running"]
    (tmp_path / "test.csv").write_text("\n".join(lines))
    with pytest.raises(
        DataError, match=r"test\.csv, line 2: cannot be used: another number .*\(4, expected 3"
    ):
        hierarcaps(tmp_path)
    (tmp_path / "test.csv").write_text("\n".join([lines[0], '7.jpg,animal,"a dog, running"']))
    assert hierarcaps(tmp_path).chains == [["animal", "a dog, running"]]
