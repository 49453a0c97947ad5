import json
from pathlib import Path

import pytest

from hypvl.datasets.composition.choices import Group
from hypvl.datasets.composition.winoground import winoground
from hypvl.embedding.encode import Encoding
from hypvl.errors import DataError, MissingDataError
from hypvl.evaluation.winoground_score import CaptionGroups
from tests.evaluation.fakes import BLUE, RED, FakeModel, FakeTokenizer, image
from tests.evaluation.miniatures.winoground import example, make


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make(tmp_path)
    return tmp_path / "winoground"


def test_lines_are_groups_with_their_tags(root: Path) -> None:
    data = winoground(root)
    assert list(data.groups) == [
        Group((0, 1), ("a red dog", "a green dog"), ("Object", "main_preds_1"), "0"),
        Group((2, 3), ("it is red", "it was red"), ("Relation", "main_preds_1"), "1"),
        Group(
            (4, 5),
            ("blue as red", "green as the sea"),
            ("Both", "Symbolic", "Pragmatics", "main_preds_2"),
            "2",
        ),
    ]
    assert data.images[3][:, 0, 0].tolist() == list(BLUE)


def test_scores_by_hand(root: Path) -> None:
    encoding = Encoding(num_workers=0)
    metrics = CaptionGroups(winoground(root), encoding=encoding, tokenizer=FakeTokenizer())(
        FakeModel()
    ).metrics
    # Group 1: both captions are "red" to the model, a tie for both images; its captions score image 0 alike.
    assert metrics["group_score"] == metrics["text_score"] == pytest.approx(200 / 3)
    assert metrics["group_score_Relation"] == 0.0 and metrics["group_score_Pragmatics"] == 100.0
    assert metrics["image_score_main_preds_1"] == 50.0


def test_file_may_lie_in_the_root_and_tags_may_be_absent(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.jpg", RED)
    line = {"image_0": "a.jpg", "image_1": "b", "caption_0": "x", "caption_1": "y"}
    (tmp_path / "examples.jsonl").write_text("\n" + json.dumps(line))
    data = winoground(tmp_path)
    assert list(data.groups) == [Group((0, 1), ("x", "y"), (), "1")]
    with pytest.raises(DataError, match=r"images/b\.png"):
        data.images[1]


def test_missing_files_are_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(
        MissingDataError, match=r"examples\.jsonl: is not there, .*facebook/winoground, after accepting"
    ):
        winoground(tmp_path / "nowhere")
    (root / "data" / "images").rename(root / "data" / "elsewhere")
    with pytest.raises(MissingDataError, match=r"none of its 6 images is there.*images\.zip, unpacked"):
        winoground(root)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"examples\.jsonl: none of its first lines is a JSON object"),
        ("", "has no rows"),
        (json.dumps({"image_0": "a", "image_1": "b"}), "line 1: has no text 'caption_0'"),
        (json.dumps([1]), "none of its first entries is a JSON object"),
        (
            json.dumps(example(0, "a", "b", collapsed_tag=["x"])),
            r"line 1: has collapsed_tag \['x'\]; expected a text",
        ),
    ],
)
def test_broken_entries_are_named(root: Path, line: str, message: str) -> None:
    (root / "data" / "examples.jsonl").write_text(line)
    with pytest.raises(DataError, match=message):
        winoground(root)
