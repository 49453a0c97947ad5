"""Readers of pictures with captions, on miniatures of the real layouts."""

import json
from pathlib import Path
from typing import Any

import pytest

from hypvl.errors import DataError
from hypvl.evaluation.protocol import MissingDataError
from hypvl.evaluation.datasets.retrieval import CaptionedImages, coco, flickr30k, jsonl
from tests.evaluation.fakes import BLUE, RED, picture


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_coco(tmp_path: Path) -> None:
    picture(tmp_path / "val2017" / "000000000009.png", RED)
    picture(tmp_path / "val2017" / "000000000025.png", BLUE)
    content = {
        "images": [{"id": 25, "file_name": "000000000025.png"}, {"id": 9, "file_name": "000000000009.png"}],
        "annotations": [
            {"id": 1, "image_id": 9, "caption": "one\n"}, {"id": 2, "image_id": 25, "caption": "two"},
            {"id": 3, "image_id": 9, "caption": "three"},
        ],
    }  # fmt: skip
    write(tmp_path / "annotations" / "captions_val2017.json", content)
    data = coco(tmp_path)
    assert data.keys == ["000000000025.png", "000000000009.png"]
    assert data.captions == ["two", "one", "three"] and data.caption_image == [0, 1, 1]
    assert data.images[0].float().mean(dim=(1, 2)).tolist() == list(BLUE)
    assert coco(tmp_path, captions_per_image=1).captions == ["two", "one"]
    content["annotations"].append({"id": 4, "image_id": 7, "caption": "lost"})
    write(tmp_path / "annotations" / "captions_val2017.json", content)
    with pytest.raises(DataError, match="image_id 7, which is not among its images"):
        coco(tmp_path)


def test_flickr30k(tmp_path: Path) -> None:
    picture(tmp_path / "flickr30k_images" / "1.png", RED)
    images = [
        {"filename": "0.png", "split": "train", "sentences": [{"raw": "zero"}]},
        {"filename": "1.png", "split": "test", "sentences": [{"raw": " one "}, {"raw": "uno"}]},
        {"filename": "2.png", "split": "test", "sentences": [{"raw": "two"}]},
    ]
    write(tmp_path / "dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})
    data = flickr30k(tmp_path)
    assert data.keys == ["1.png", "2.png"]
    assert data.captions == ["one", "uno", "two"] and data.caption_image == [0, 0, 1]
    with pytest.raises(DataError, match="no picture with split 'exam'"):
        flickr30k(tmp_path, split="exam")
    with pytest.raises(MissingDataError, match=r"none of its 1 pictures is there, such as .*0\.png"):
        flickr30k(tmp_path, split="train")


@pytest.mark.parametrize("reader", [coco, flickr30k])
def test_what_is_missing_is_named(reader: Any, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"\.json: is not there"):
        reader(tmp_path)
    write(tmp_path / "annotations" / "captions_val2017.json", {"images": []})
    write(tmp_path / "dataset_flickr30k.json", {})
    with pytest.raises(MissingDataError, match=r"(val2017|flickr30k_images): is not there"):
        reader(tmp_path)
    (tmp_path / "val2017").mkdir()
    (tmp_path / "flickr30k_images").mkdir()
    with pytest.raises(DataError, match=r"lacks '(annotations|images)'; expected"):
        reader(tmp_path)


def test_json_lines(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / "pictures" / name, RED)
    lines = [
        '{"image": "b.png", "caption": "été"}', "", '{"image": "a.png", "captions": ["x", "y"]}',
        '{"image": "b.png", "caption": "again"}', '{"image": "c.png", "captions": []}',
    ]  # fmt: skip
    path = write(tmp_path / "lists" / "set.jsonl", "\n".join(lines))
    data = jsonl(path, images_root=tmp_path / "pictures")
    assert data.keys == ["b.png", "a.png", "c.png"]
    assert data.captions == ["été", "again", "x", "y"] and data.caption_image == [0, 0, 1, 1]
    assert len(data.images) == 3 and data.images[2].shape == (3, 7, 9)
    with pytest.raises(MissingDataError, match="none of its 3 pictures"):
        jsonl(path)  # paths are relative to the file unless said otherwise


def test_json_lines_with_other_keys(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", RED)
    path = write(tmp_path / "set.jsonl", '{"filepath": "a.png", "title": "x", "caption": "unused"}')
    assert jsonl(path, image_key="filepath", caption_key="title").captions == ["x"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n{", "line 2: is not valid JSON"),
        ("[1]", r'line 1: expected {"image": path, "caption"'),
        ('{"image": "a.png"}', "line 1: expected"),
        ('{"image": 3, "caption": "x"}', "line 1: expected"),
        ('{"image": "a.png", "captions": ["x", 4]}', "line 1: expected"),
        ('{"image": "a.png", "captions": []}', "has no captions"),
        ("", "has no captions"),
    ],
)
def test_json_lines_that_cannot_be_used(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        jsonl(write(tmp_path / "set.jsonl", text))


def test_captions_and_pictures_must_fit() -> None:
    with pytest.raises(DataError, match="2 captions with 1 pictures"):
        CaptionedImages([], ["a", "b"], [0], keys=[])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="not among the 1 pictures"):
        CaptionedImages(["x"], ["a"], [1], keys=["x"])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no captions"):
        CaptionedImages(["x"], [], [], keys=["x"])  # type: ignore[arg-type]
