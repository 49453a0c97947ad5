"""Readers of images with captions, on miniatures of the real layouts."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hypvl.config.reader import stored_data
from hypvl.data.sample import BadSample
from hypvl.data.table import ImageTextTable
from hypvl.data.tokenizer import get_tokenizer
from hypvl.data.transforms import Squeeze
from hypvl.datasets.retrieval.captioned import CaptionedImages
from hypvl.datasets.retrieval.coco import coco, flickr30k, nocaps
from hypvl.datasets.retrieval.table import table
from hypvl.datasets.text_pool import load_text_pool
from hypvl.errors import DataError, MissingDataError
from tests.evaluation.fakes import BLUE, RED, image as pil_image


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_coco(tmp_path: Path) -> None:
    pil_image(tmp_path / "val2017" / "000000000009.png", RED)
    pil_image(tmp_path / "val2017" / "000000000025.png", BLUE)
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
    pil_image(tmp_path / "flickr30k_images" / "1.png", RED)
    images = [
        {"filename": "0.png", "split": "train", "sentences": [{"raw": "zero"}]},
        {"filename": "1.png", "split": "test", "sentences": [{"raw": " one "}, {"raw": "uno"}]},
        {"filename": "2.png", "split": "test", "sentences": [{"raw": "two"}]},
    ]
    write(tmp_path / "dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})
    data = flickr30k(tmp_path)
    assert data.keys == ["1.png", "2.png"]
    assert data.captions == ["one", "uno", "two"] and data.caption_image == [0, 0, 1]
    with pytest.raises(DataError, match="no image with split 'exam'"):
        flickr30k(tmp_path, split="exam")
    with pytest.raises(MissingDataError, match=r"its only image is not there: .*0\.png"):
        flickr30k(tmp_path, split="train")


@pytest.mark.parametrize("reader", [coco, flickr30k])
def test_missing_files_are_named(reader: Any, tmp_path: Path) -> None:
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
        pil_image(tmp_path / "images" / name, RED)
    lines = [
        '{"image": "b.png", "caption": "été"}', "", '{"image": "a.png", "captions": ["x", "y"]}',
        '{"image": "b.png", "caption": "again"}', '{"image": "c.png", "captions": []}',
    ]  # fmt: skip
    path = write(tmp_path / "lists" / "set.jsonl", "\n".join(lines))
    data = table(path, images_root=tmp_path / "images")
    assert data.keys == ["b.png", "a.png", "c.png"]
    assert data.captions == ["été", "again", "x", "y"] and data.caption_image == [0, 0, 1, 1]
    assert len(data.images) == 3 and data.images[2].shape == (3, 7, 9)
    with pytest.raises(MissingDataError, match="none of its 3 images"):
        table(path)  # paths are relative to the file unless said otherwise


def test_json_lines_with_other_keys(tmp_path: Path) -> None:
    pil_image(tmp_path / "a.png", RED)
    path = write(tmp_path / "set.jsonl", '{"filepath": "a.png", "title": "x", "caption": "unused"}')
    assert table(path, image_column="filepath", caption_column="title").captions == ["x"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n{", "none of its first lines is a JSON object"),
        ('{"image": "a.png", "caption": "x"}\n\n{', "line 3: cannot be used: broken JSON"),
        ('{"image": "a.png", "caption": "x"}\n' + "[" * 100_000, "line 2: .* nested too deeply"),
        ("[1]", "none of its first entries is a JSON object"),
        ('{"image": "a.png"}', "has no column 'captions' or 'caption' .* it has image; set caption_column"),
        (
            '{"image": "a.png", "caption": "x"}\n{"image": "a.png"}',
            r'line 2: expected {"image": path, "caption"',
        ),
        ('{"image": 3, "caption": "x"}', "line 1: expected"),
        ('{"image": "a.png", "captions": ["x", 4]}', "line 1: expected"),
        ('{"image": "a.png", "captions": []}', "has no captions"),
        ("", "has no rows"),
    ],
)
def test_json_lines_that_cannot_be_used(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        table(write(tmp_path / "set.jsonl", text))


def test_captions_and_images_must_fit() -> None:
    with pytest.raises(DataError, match="1 caption_image for 2 captions; expected one each"):
        CaptionedImages([], ["a", "b"], [0], keys=[])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="has 1 in caption_image; expected positions 0"):
        CaptionedImages(["x"], ["a"], [1], keys=["x"])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no captions"):
        CaptionedImages(["x"], [], [], keys=["x"])  # type: ignore[arg-type]


def test_an_image_id_of_two_files_is_refused(tmp_path: Path) -> None:
    pil_image(tmp_path / "val2017" / "a.png", RED)
    images = [{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "a.png"}]
    content = {"images": images, "annotations": [{"image_id": 1, "caption": "red"}]}
    path = write(tmp_path / "annotations" / "captions_val2017.json", content)
    assert coco(tmp_path).captions == ["red"]  # the same entry twice says nothing else
    write(path, {**content, "images": [*images, {"id": 1, "file_name": "b.png"}]})
    with pytest.raises(
        DataError, match=r"the id 1 twice, for 'a\.png' and 'b\.png'\); expected .*, one an id"
    ):
        coco(tmp_path)


ROWS = [("a.png", "a dog, running"), ("b.png", 'a "nice" cat'), ("a.png", "&nbsp;")]


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl", "json", "quoted.csv"])
def test_one_table_for_training_evaluation_and_traversal(kind: str, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        pil_image(tmp_path / name, RED)
    rows = [{"image": image, "caption": caption} for image, caption in ROWS]
    path = tmp_path / f"pairs.{kind}"
    if kind in ("json", "jsonl"):
        text = json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows))
    else:
        out = io.StringIO()
        writer = csv.writer(out, delimiter="\t" if kind == "tsv" else ",")
        writer.writerows([("image", "caption"), *ROWS])
        text = out.getvalue()
    path.write_text(text)
    result = table(path)
    assert result.keys == ["a.png", "b.png"]
    assert result.captions == ["a dog, running", 'a "nice" cat']  # what is blank once cleaned is left out
    training = ImageTextTable(path, image_transform=Squeeze(8), tokenizer=get_tokenizer())
    texts = [training.sample(i, np.random.default_rng(0))["text"].tolist() for i in range(2)]
    assert texts == [get_tokenizer().encode(text) for text in result.captions]
    with pytest.raises(BadSample, match="empty caption"):
        training.sample(2, np.random.default_rng(0))
    assert [entry.text for entry in load_text_pool(path)] == result.captions


def test_a_broken_row_is_an_error_that_names_it(tmp_path: Path) -> None:
    pil_image(tmp_path / "0.png", RED)
    path = write(tmp_path / "pairs.csv", "image,caption\n0.png,a cat\n0.png,a dog, running on grass\n")
    with pytest.raises(
        DataError, match=r"pairs.csv, line 3: cannot be used: another number .*\(3, expected 2"
    ):
        table(path)
    write(path, 'image,caption\n0.png,"a cat\n0.png,b\n0.png,c"\n')
    with pytest.raises(DataError, match=r"line 2: .* opens a field .* or set quoting=none"):
        table(path)
    assert table(path, quoting="none").captions == ['"a cat', "b", 'c"']


def test_images_root_confines(tmp_path: Path) -> None:
    pil_image(tmp_path / "inside" / "a.png", RED)
    pil_image(tmp_path / "b.png", RED)
    (tmp_path / "lists").mkdir()
    for name in ("../b.png", str(tmp_path / "b.png")):
        path = write(tmp_path / "lists" / "t.jsonl", json.dumps({"image": name, "caption": "x"}))
        with pytest.raises(DataError, match="is outside images_root"):
            table(path, images_root=tmp_path / "inside")
        assert table(path).captions == ["x"]  # a table of one's own may name any file


@pytest.mark.parametrize("reader", ["json_list", "jsonl", "table"])
def test_saved_configs_may_have_the_earlier_names(reader: str) -> None:
    saved = {"path": "t.csv", "images": "in", "image_key": "path", "caption_key": "words"}
    current = {"path": "t.csv", "images_root": "in", "image_column": "path", "caption_column": "words"}
    saved["_target_"] = f"hypvl.evaluation.datasets.retrieval.{reader}"
    current["_target_"] = "hypvl.datasets.retrieval.table.table"
    assert stored_data(saved, source="config.yaml") == current


def test_other_kinds_of_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.csv")
    for path in (tmp_path / "t.csv", Path("/dev/zero")):
        with pytest.raises(DataError, match="not a regular file but a"):
            table(path)
    os.mkfifo(tmp_path / "annotations.json")
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="not a regular file but a pipe"):
        nocaps(tmp_path / "annotations.json", images=tmp_path / "images")


def test_utf_16_is_named(tmp_path: Path) -> None:
    (tmp_path / "val2017").mkdir()
    path = tmp_path / "annotations" / "captions_val2017.json"
    path.parent.mkdir()
    path.write_bytes(json.dumps({"images": [], "annotations": []}).encode("utf-16"))
    with pytest.raises(DataError, match="is UTF-16; expected UTF-8: iconv"):
        coco(tmp_path)
