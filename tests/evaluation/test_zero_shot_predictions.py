"""Zero-shot classification that writes its probabilities: the same results, and a file."""

import json
import math
from pathlib import Path

import pytest
import torch

from hypvl.datasets.classification.folders import ImageFolderSet
from hypvl.embedding.encode import Encoding
from hypvl.evaluation.prediction_files import PredictionFiles
from hypvl.evaluation.protocol import Evaluator
from hypvl.evaluation.zero_shot import ZeroShotClassification
from hypvl.evaluation.zero_shot_predictions import ZeroShotPredictions
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import FakeModel, FakeTokenizer, broken
from tests.evaluation.probes.test_linear_probe import Listed
from tests.evaluation.test_zero_shot import PLAIN, colors


class TestContract(EvaluatorContract):
    evaluator_class = ZeroShotPredictions

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        colors(folder / "set")
        for i in range(bad):
            broken(folder / "set" / "blue" / f"broken{i}.jpg")
        return ZeroShotPredictions(
            ImageFolderSet(folder / "set"),
            ["{}"],
            encoding=encoding,
            tokenizer=FakeTokenizer(),
            predictions=PredictionFiles(folder / "out", dataset="colors", protocol="zero_shot"),
        )


def test_file_and_result_by_hand(tmp_path: Path) -> None:
    colors(tmp_path / "set")
    broken(tmp_path / "set" / "blue" / "1.png")
    dataset = ImageFolderSet(tmp_path / "set")
    files = PredictionFiles(tmp_path / "out", dataset="colors", protocol="zero_shot", model_name="m")
    result = ZeroShotPredictions(
        dataset, ["{}"], encoding=PLAIN, tokenizer=FakeTokenizer(), predictions=files
    )(FakeModel())
    plain = ZeroShotClassification(dataset, ["{}"], encoding=PLAIN, tokenizer=FakeTokenizer())(FakeModel())
    assert result == plain
    content = json.loads((tmp_path / "out" / "zero_shot" / "colors_seed0.json").read_text())
    (rows,) = content.pop("predictions")
    # One colour has score 1, the others 0: softmax of (100, 0, 0); the broken image says nothing.
    assert rows == [[1.0, 0, 0], [round(1 / 3, 6)] * 3, [0, 1.0, 0], *[[0, 0, 1.0]] * 4]
    assert content["n_shot"] == content["num_trainable_params"] == 0
    assert content["num_params"] == FakeModel().table.numel()


def test_several_labels_keep_the_order_of_images_by_class(tmp_path: Path) -> None:
    data = Listed([(0, [0]), (255, [1]), (51, [0, 1])], classes=("red", "yellow"))
    files = PredictionFiles(tmp_path, dataset="x", protocol="zero_shot")
    ZeroShotPredictions(data, ["{}"], encoding=PLAIN, tokenizer=FakeTokenizer(), predictions=files)(
        FakeModel()
    )
    (rows,) = json.loads((tmp_path / "zero_shot" / "x_seed0.json").read_text())["predictions"]
    for value, row in zip((0, 1, 0.2), rows, strict=True):
        expected = [1 / (1 + math.exp(-value)), 1 / (1 + math.exp(-1.4 * value))]
        assert row == pytest.approx(expected, abs=1e-6)


def test_without_a_folder_it_is_plain_zero_shot(tmp_path: Path) -> None:
    dataset = colors(tmp_path)
    for files in (None, PredictionFiles(None, dataset="x", protocol="y")):
        evaluator = ZeroShotPredictions(
            dataset, ["{}"], encoding=PLAIN, tokenizer=FakeTokenizer(), predictions=files
        )
        assert evaluator.predictions is None
        torch.manual_seed(0)
        assert evaluator(FakeModel()).metrics["top1_accuracy"] == pytest.approx(500 / 6)


def test_scores_that_are_none_of_a_class_cannot_be_written(tmp_path: Path) -> None:
    files = PredictionFiles(tmp_path, dataset="x", protocol="y")
    with pytest.raises(ValueError, match="got 'score_mean' with predictions"):
        ZeroShotPredictions(colors(tmp_path / "set"), ["{}"], ensemble="score_mean", predictions=files)
