"""Files of class probabilities."""

import json
from pathlib import Path

import pytest
import torch

from hypvl.errors import DataError
from hypvl.evaluation.prediction_files import PredictionFiles
from tests.evaluation.modules import FakeModule

MODEL = FakeModule()
ROWS = torch.tensor([[0.12345678, 0.87654322], [float("nan"), 0.0]])


def write(files: PredictionFiles) -> Path | None:
    return files.write(MODEL, ROWS, stage="trunk", missing=[1], shots=5, seed=2, trainable=10)


def test_fields_and_path_of_a_file(tmp_path: Path) -> None:
    path = write(PredictionFiles(tmp_path, dataset="cifar10", protocol="few_shot_5", model_name="m"))
    assert path == tmp_path / "few_shot_5" / "cifar-10_seed2.json"
    assert json.loads(path.read_text()) == {
        "model_name": "m",
        "dataset_name": "cifar-10",
        "num_trainable_params": 10,
        "num_params": MODEL.table.numel(),
        "num_visual_params": 0,  # its images go through no parameter
        "num_backbone_params": 0,
        "n_shot": 5,
        "rnd_seeds": [2],
        "predictions": [[[0.123457, 0.876543], [0.5, 0.5]]],
    }


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    assert write(PredictionFiles(None, dataset="x", protocol="y")) is None


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write(PredictionFiles(tmp_path / "file", dataset="x", protocol="y"))
