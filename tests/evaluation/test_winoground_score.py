import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.datasets.composition.choices import Group, Groups
from hypvl.datasets.images import Images
from hypvl.embedding.encode import Encoding
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.evaluation.winoground_score import CaptionGroups
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeModel, FakeTokenizer, broken, image


def groups(folder: Path, *, bad: int = 0) -> Groups:
    colors = (RED, GREEN, BLUE)
    paths = [image(folder / f"{i}.png", color) for i, color in enumerate(colors)]
    paths += [broken(folder / f"{3 + i}.png") for i in range(bad)]
    asked = [
        Group((0, 1), ("red", "green"), ("Object", "1"), "a"),  # all right
        Group((0, 1), ("red", "red and green"), ("Relation", "1"), "b"),  # image 0 scores both alike
        Group((2, 0), ("red", "blue"), ("Object", "2"), "c"),  # all wrong
        Group((1, 2), ("green", "blue"), (), "d"),
        *(Group((0, 3 + i), ("red", "green"), ("Object",), f"bad{i}") for i in range(bad)),
    ]
    return Groups(Images.from_files(paths), asked, {"source": "by hand"})


class TestCaptionGroups(EvaluatorContract):
    evaluator_class = CaptionGroups

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        return CaptionGroups(groups(folder, bad=bad), encoding=encoding, tokenizer=FakeTokenizer())


def measured(folder: Path, model: Any, *, bad: int = 0) -> EvaluationResult:
    encoding = Encoding(num_workers=0, max_bad_fraction=0.5)
    return CaptionGroups(groups(folder, bad=bad), encoding=encoding, tokenizer=FakeTokenizer())(model)


def test_scores_by_hand(tmp_path: Path) -> None:
    result = measured(tmp_path, FakeModel())
    # Group b: image 0 gives both captions 1, a tie; caption 1 gives both images 1, a tie.
    shown = {name: value for name, value in result.metrics.items() if not name.endswith("_chance")}
    assert shown == {
        **{f"{name}_score": 50.0 for name in ("text", "image", "group")},
        **{f"{name}_score_Object": 50.0 for name in ("text", "image", "group")},
        **{f"{name}_score_Relation": 0.0 for name in ("text", "image", "group")},
        **{f"{name}_score_1": 50.0 for name in ("text", "image", "group")},
        **{f"{name}_score_2": 0.0 for name in ("text", "image", "group")},
    }
    assert result.items["text_margin"] == result.items["image_margin"] == pytest.approx([1.0, 0.0, -1.0, 1.0])
    assert result.items["group"] == [True, False, False, True]
    assert result.meta["source"] == "by hand"


def test_every_score_has_its_chance(tmp_path: Path) -> None:
    metrics = measured(tmp_path, FakeModel()).metrics
    assert (metrics["text_score_chance"], metrics["image_score_Object_chance"]) == (25.0, 25.0)
    assert metrics["group_score_chance"] == pytest.approx(100 / 6)
    assert all(f"{name}_chance" in metrics for name in metrics if not name.endswith("_chance"))


def test_every_score_has_samples(tmp_path: Path) -> None:
    result = measured(tmp_path, FakeModel())
    assert set(result.samples) == {name for name in result.metrics if not name.endswith("_chance")}
    assert result.samples["group_score"] == [100.0, 0.0, 0.0, 100.0]
    assert result.samples["group_score_Object"] == [100.0, 0.0]


class OneWay(FakeModel):
    """Scores as the fake model for images, and the other way round for captions."""

    def scores(self, query: Tensor, key: Tensor, *, query_modality: str, key_modality: str) -> Tensor:
        result = super().scores(query, key, query_modality=query_modality, key_modality=key_modality)
        return result if query_modality == "image" else -result


def test_the_query_of_the_text_score_is_the_image(tmp_path: Path) -> None:
    metrics = measured(tmp_path, OneWay()).metrics
    # Captions reversed: the group that was all wrong is right, those that were right are wrong.
    assert (metrics["text_score"], metrics["image_score"], metrics["group_score"]) == (50.0, 25.0, 0.0)


def test_a_model_with_constant_scores_gets_0(tmp_path: Path) -> None:
    model = FakeModel()
    with torch.no_grad():
        model.table.zero_()
    metrics = measured(tmp_path, model).metrics
    assert {metrics[f"{name}_score"] for name in ("text", "image", "group")} == {0.0}


def test_a_group_with_an_unreadable_image_is_a_miss(tmp_path: Path) -> None:
    result = measured(tmp_path, FakeModel(), bad=1)
    assert result.metrics["group_score"] == 40.0
    assert result.metrics["text_score_Object"] == pytest.approx(100 / 3)
    assert result.items["text_margin"][-1] is None and result.items["group"][-1] is False
    assert all(math.isfinite(value) for value in result.metrics.values())


def test_another_score_may_be_the_main_one(tmp_path: Path) -> None:
    evaluator = CaptionGroups(
        groups(tmp_path),
        main_metric="image_score",
        encoding=Encoding(num_workers=0),
        tokenizer=FakeTokenizer(),
    )
    assert evaluator(FakeModel()).meta["main_metric"] == "image_score"
    with pytest.raises(ValueError, match="main_metric: got 'image'; expected 'text_score', 'image_score'"):
        CaptionGroups(groups(tmp_path), main_metric="image")


def test_no_groups_are_an_error() -> None:
    with pytest.raises(ValueError, match="dataset: got no groups"):
        CaptionGroups(Groups(Images.from_files([]), []))
