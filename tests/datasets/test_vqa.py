"""VQA v2's files in small."""

import json
from pathlib import Path
from typing import Any

import pytest

from hypvl.datasets.vqa import vqa_v2
from hypvl.errors import DataError, MissingDataError
from tests.evaluation.fakes import BLUE
from tests.evaluation.miniatures import vqa


def read(root: Path, **settings: Any) -> Any:
    return vqa_v2(root / "vqa", images=root / "coco" / "val2014", **settings)


def test_questions_with_the_answers_of_people(tmp_path: Path) -> None:
    vqa.make(tmp_path)
    data = read(tmp_path)
    assert data.questions[0] == "What color is the ball?" and data.answer_types[2:] == ["yes/no", "number"]
    assert data.answers[0] == ["red"] * 8 + ["green", "red"] and data.answers[3] == ["1"] * 5 + ["2"] * 5
    assert data.image == [0, 1, 2, 0] and data.keys[0] == "COCO_val2014_000000262148.jpg"
    assert data.images[2].float().mean(dim=(1, 2)).round().tolist() == list(BLUE)
    assert data.vocabulary == ["yes", "no", "red", "green", "blue", "1", "2"]  # yellow: 8 questions only
    assert data.notes == {"questions_without_answers": 1}
    assert read(tmp_path, limit=2).question_ids == [data.question_ids[0], data.question_ids[2]]
    assert "yellow" in read(tmp_path, min_count=8).vocabulary


def test_a_list_of_answers(tmp_path: Path) -> None:
    vqa.make(tmp_path)
    (tmp_path / "vqa" / "v2_mscoco_train2014_annotations.json").unlink()
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps(["A dog", "dog", "two"]))
    assert read(tmp_path, answers=answers).vocabulary == ["dog", "2"]
    answers.write_text("{}")
    with pytest.raises(DataError, match="expected a list of answers"):
        read(tmp_path, answers=answers)


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        MissingDataError, match=r"lacks v2_OpenEnded.*, v2_mscoco_val2014.*, v2_mscoco_train2014"
    ):
        read(tmp_path)
    vqa.make(tmp_path)
    with pytest.raises(MissingDataError, match="none of its 3 images is there"):
        vqa_v2(tmp_path / "vqa", images=tmp_path)
    with pytest.raises(DataError, match="gives no answers to choose from"):
        read(tmp_path, min_count=99)
    file = tmp_path / "vqa" / "v2_mscoco_val2014_annotations.json"
    file.write_text('{"annotations": []}')
    with pytest.raises(DataError, match="answers none of the 5 questions"):
        read(tmp_path)
    file.write_text('{"annotation": []}')
    with pytest.raises(DataError, match="annotations"):
        read(tmp_path)
