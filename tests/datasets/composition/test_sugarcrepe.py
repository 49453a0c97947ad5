import json
from pathlib import Path
from typing import Any

import pytest

from hypvl.datasets.composition.choices import Choice
from hypvl.datasets.composition.sugarcrepe import KINDS, sugarcrepe
from hypvl.embedding.encode import Encoding
from hypvl.errors import DataError, MissingDataError
from hypvl.evaluation.foil_accuracy import CaptionChoice
from tests.evaluation.fakes import FakeModel, FakeTokenizer, broken
from tests.evaluation.miniatures.sugarcrepe import make


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make(tmp_path)
    return tmp_path


def read(root: Path, **settings: Any) -> Any:
    return sugarcrepe(root / "sugarcrepe", images=root / "coco" / "val2017", **settings)


def test_entries_are_choices_by_kind(root: Path) -> None:
    data = read(root)
    assert data.choices[0] == Choice(0, "A red door.", ("A red door and a dog.",), "add_obj")
    assert len(data.choices) == 8 and data.keys == [
        "000000085329.jpg",
        "000000297343.jpg",
        "000000412531.jpg",
    ]
    assert tuple(dict.fromkeys(choice.kind for choice in data.choices)) == KINDS


def test_published_averages_by_hand(root: Path) -> None:
    encoding = Encoding(num_workers=0)
    metrics = CaptionChoice(
        read(root), main_metric="macro_accuracy", encoding=encoding, tokenizer=FakeTokenizer()
    )(FakeModel()).metrics
    right = {"add_obj": 50.0, "add_att": 100.0, "replace_obj": 100.0, "replace_att": 100.0, "replace_rel": 0.0,
             "swap_obj": 100.0, "swap_att": 0.0}  # fmt: skip
    assert {kind: metrics[f"accuracy_{kind}"] for kind in KINDS} == right
    assert (metrics["accuracy_add"], metrics["accuracy_swap"]) == (75.0, 50.0)
    assert metrics["accuracy_replace"] == pytest.approx(200 / 3)
    assert metrics["macro_accuracy"] == pytest.approx(450 / 7)
    assert metrics["accuracy"] == pytest.approx(100 * 5 / 8)


def test_some_kinds_have_their_own_averages_only(root: Path) -> None:
    data = read(root, kinds=["swap_obj", "add_att"])
    assert data.means == {
        "accuracy_add": ["add_att"],
        "accuracy_swap": ["swap_obj"],
        "macro_accuracy": ["swap_obj", "add_att"],
    }
    with pytest.raises(DataError, match=r"kinds: got \['swap'\]; expected some of add_obj, "):
        read(root, kinds=["swap"])


def test_missing_files_are_named(root: Path) -> None:
    with pytest.raises(MissingDataError, match=r"none of its 3 images is there.*put COCO's val2017"):
        sugarcrepe(root / "sugarcrepe", images=root / "coco" / "val2014")
    (root / "sugarcrepe" / "data" / "swap_att.json").unlink()
    with pytest.raises(
        MissingDataError, match=r"data: lacks swap_att\.json .*sugar-crepe\), or leave these out"
    ):
        read(root)


def test_broken_entries_are_named(root: Path) -> None:
    path = root / "sugarcrepe" / "data" / "add_att.json"
    path.write_text(json.dumps({"17": {"filename": "a.jpg", "caption": "x"}}))
    with pytest.raises(DataError, match=r"add_att\.json, entry 17: has no text 'negative_caption'"):
        read(root)
    path.write_text("[]")
    with pytest.raises(DataError, match=r"add_att\.json: expected an object of at least one entry; got \[\]"):
        read(root)
    path.write_text("{")
    with pytest.raises(DataError, match=r"add_att\.json: is not valid JSON"):
        read(root)


def test_a_broken_image_makes_its_choices_wrong(root: Path) -> None:
    broken(root / "coco" / "val2017" / "000000412531.jpg")
    encoding = Encoding(num_workers=0, max_bad_fraction=0.5)
    result = CaptionChoice(read(root), encoding=encoding, tokenizer=FakeTokenizer())(FakeModel())
    assert result.meta["unreadable"] == 1
    assert result.metrics["accuracy_replace_obj"] == result.metrics["accuracy_replace_att"] == 0.0
