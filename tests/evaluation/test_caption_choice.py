import json
from pathlib import Path

import pytest

from hypvl.errors import DataError
from hypvl.evaluation.caption_choice import CaptionChoice, Choice, Choices, demo_choices
from hypvl.evaluation.datasets.images import FileImages
from hypvl.evaluation.features import Encoding
from hypvl.evaluation.protocol import Evaluator
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeModel, FakeTokenizer, broken, picture

COLORS = {"red": RED, "green": GREEN, "blue": BLUE}


def choices(folder: Path, *, bad: int = 0) -> Choices:
    names = ["red", "green", "blue", "red", *("red" for _ in range(bad))]
    paths = [
        broken(folder / f"{i}.png") if i >= 4 else picture(folder / f"{i}.png", COLORS[name])
        for i, name in enumerate(names)
    ]
    asked = [
        Choice(0, "a red thing", "a green thing", "color"),
        Choice(1, "a green thing", "a blue thing", "color"),
        Choice(1, "a green thing", "a red and green thing", "number"),  # the foil scores the same: a tie
        Choice(2, "a blue thing", "a red thing", "color"),
        Choice(3, "a blue thing", "a red thing", "swap"),  # the caption is false of the picture
        *(Choice(i, "a red thing", "a blue thing", "color") for i in range(4, 4 + bad)),
    ]
    return Choices(FileImages(paths), asked, [path.stem for path in paths])


class TestCaptionChoice(EvaluatorContract):
    evaluator_class = CaptionChoice

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        return CaptionChoice(choices(folder, bad=bad), encoding=encoding, tokenizer=FakeTokenizer())


def test_accuracy_by_hand(tmp_path: Path) -> None:
    result = TestCaptionChoice().make(tmp_path)(FakeModel())
    shown = {k: v for k, v in result.metrics.items() if not k.endswith("_chance")}
    assert shown == {"accuracy": 60.0, "accuracy_color": 100.0, "accuracy_number": 0.0, "accuracy_swap": 0.0}
    assert result.items["margin"] == pytest.approx([1.0, 1.0, 0.0, 1.0, -1.0])


def test_unreadable_picture_is_wrong(tmp_path: Path) -> None:
    result = TestCaptionChoice().make(tmp_path, bad=1)(FakeModel())
    assert result.metrics["accuracy_color"] == 75.0
    assert result.items["margin"][-1] is None and result.meta["unreadable"] == 1


def test_no_choices_are_refused() -> None:
    with pytest.raises(ValueError, match="dataset: got no choices"):
        CaptionChoice(Choices(FileImages([]), [], []))


def test_demo_file_is_read_and_a_broken_one_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "scenes" / "a.png", RED)
    scene = {
        "image": "scenes/a.png",
        "caption": "a red circle",
        "negatives": [
            {"type": "attribute", "text": "a blue circle"},
            {"type": "object", "text": "a red star"},
        ],
    }
    path = tmp_path / "hierarchy.json"
    path.write_text(json.dumps({"scenes": [scene]}))
    found = demo_choices(path)
    assert list(found.choices) == [
        Choice(0, "a red circle", "a blue circle", "attribute"),
        Choice(0, "a red circle", "a red star", "object"),
    ]
    assert found.images[0].shape == (3, 7, 9) and found.keys == ["a"]
    path.write_text(json.dumps({"scenes": [{"image": "scenes/a.png"}]}))
    with pytest.raises(DataError, match=r"cannot be read as scenes with negatives \('negatives'\)"):
        demo_choices(path)
