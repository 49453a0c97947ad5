"""Labelled images in JSON lines."""

import json
from pathlib import Path
from typing import Any

import pytest

from hypvl.datasets.classification.table import LabelledTable
from hypvl.errors import DataError, MissingDataError
from tests.evaluation.fakes import BLUE, RED, broken, image as pil_image


def write(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_names_or_numbers(tmp_path: Path) -> None:
    pil_image(tmp_path / "a.png", RED)
    pil_image(tmp_path / "b.png", BLUE)
    rows = [{"image": "b.png", "label": "sky"}, "", {"image": "a.png", "label": "rose"}]
    data = LabelledTable(write(tmp_path / "set.jsonl", *rows))
    assert data.classes == ["rose", "sky"] and data.labels == [1, 0] and data.keys == ["b.png", "a.png"]
    image, label = data[0]
    assert image.float().mean(dim=(1, 2)).tolist() == list(BLUE) and label == 1 and len(data) == 2
    (tmp_path / "classes.json").write_text('{"classes": ["sky", "rose", "sea"], "prompts": ["the {}"]}')
    numbers = write(tmp_path / "lists" / "n.jsonl", {"file": "b.png", "y": 0}, {"file": "a.png", "y": "rose"})
    data = LabelledTable(
        numbers,
        images_root=tmp_path,
        classes=tmp_path / "classes.json",
        image_column="file",
        label_column="y",
    )
    assert data.labels == [0, 1] and len(data.classes) == 3 and data.prompts == ["the {}"]
    assert LabelledTable(numbers, images_root=tmp_path, classes=["sky", "rose"], image_column="file", label_column="y",
                        prompts=["a {}"]).prompts == ["a {}"]  # fmt: skip
    broken(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: cannot decode"):
        data[1]


@pytest.mark.parametrize(
    ("row", "classes", "message"),
    [
        ("{", None, "none of its first lines is a JSON object"),
        ({"image": "a.png", "label": 1}, None, "line 1: expected .*class name .or give classes for numbers"),
        ({"image": "a.png"}, ["x"], "line 1: expected .*class name or number"),
        ({"image": "a.png", "label": True}, ["x"], "line 1: expected"),
        ({"image": "a.png", "label": 1}, ["x"], r"line 1: has the label 1; expected one of the 1 classes"),
        ({"image": "a.png", "label": "y"}, ["x"], "line 1: has the label 'y'"),
        (
            {"image": "a.png", "label": "x"},
            ["x", "x"],
            "label 'x', the name of several classes; give labels as num",
        ),
        ([], None, "has no rows"),
        ("", None, "has no rows"),
    ],
)
def test_lines_that_cannot_be_used(row: Any, classes: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        LabelledTable(write(tmp_path / "set.jsonl", row), classes=classes)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"set\.jsonl: is not there"):
        LabelledTable(tmp_path / "set.jsonl")
    with pytest.raises(
        MissingDataError,
        match=r"its only image is not there: .*a\.png; put its images \(see images_root\)",
    ):
        LabelledTable(write(tmp_path / "set.jsonl", {"image": "a.png", "label": "x"}))
    (tmp_path / "classes.json").write_text('{"names": []}')
    with pytest.raises(DataError, match=r"classes\.json: expected a list of class names"):
        LabelledTable(tmp_path / "set.jsonl", classes=tmp_path / "classes.json")


def test_the_same_from_a_csv(tmp_path: Path) -> None:
    pil_image(tmp_path / "a.png", RED)
    (tmp_path / "set.csv").write_text('file;y\na.png;"rose"\na.png;0\n')
    data = LabelledTable(tmp_path / "set.csv", classes=["sky", "rose"], image_column="file", label_column="y")
    assert data.labels == [1, 0] and data.keys == ["a.png", "a.png"]
    (tmp_path / "set.csv").write_text("image,label\na.png,\u00b2\n")
    with pytest.raises(DataError, match="line 2: has the label '\u00b2'"):
        LabelledTable(tmp_path / "set.csv", classes=["sky", "rose"])
    (tmp_path / "set.csv").write_text("image,label\n../a.png,sky\n")
    with pytest.raises(DataError, match="is outside images_root"):
        LabelledTable(tmp_path / "set.csv", images_root=tmp_path)
