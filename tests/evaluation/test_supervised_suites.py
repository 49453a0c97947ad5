"""The suites that learn, on miniatures of their data."""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from hypvl.config import LazyConfig, instantiate
from hypvl.datasets.classification.elevater import ELEVATER_SETS, elevater_entries
from hypvl.errors import MissingDataError
from hypvl.evaluation.prediction_files import LEADERBOARD_NAMES
from tests.evaluation.miniatures import classification, elevater
from tests.evaluation.probes.test_fine_tune import SmallModel

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SHOTS = {
    "zero_shot": 0, "few_shot_5": 5, "few_shot_20": 20, "few_shot_50": 50, "linear_probe": -1, "fine_tune": -1,
}  # fmt: skip
PROTOCOLS = tuple(SHOTS)


class TwoTowers(SmallModel):
    """Images by colour, texts by nothing much."""

    def encode_text(self, tokens: Tensor, stage: str = "embeddings") -> Tensor:
        return self.text(torch.stack([tokens.float().mean(dim=1) / 1e4, torch.ones(len(tokens))], dim=1))

    def class_scores(self, images: Tensor, prompts: list[Tensor]) -> Tensor:
        return images @ torch.stack([p.mean(dim=0) for p in prompts]).T


@cache
def config(name: str) -> DictConfig:
    return LazyConfig.load(CONFIGS / f"eval_{name}.py")


def suite(name: str, root: Path, **settings: object) -> DictConfig:
    cfg = copy.deepcopy(config(name))
    cfg.roots = {"elevater": str(root), "eval": str(root)}
    cfg.encoding.num_workers = 0
    for key, value in settings.items():
        OmegaConf.update(cfg, key.replace("__", "."), value)
    return cfg


def test_elevater_has_every_set_with_every_protocol() -> None:
    cfg = config("elevater")
    assert list(cfg.evaluate) == [f"{s}/{p}" for s in ELEVATER_SETS for p in PROTOCOLS]
    assert set(LEADERBOARD_NAMES) == set(ELEVATER_SETS) and len(set(LEADERBOARD_NAMES.values())) == 20
    for name in ELEVATER_SETS:
        metric = elevater_entries()[name].metric
        assert {cfg.evaluate[f"{name}/{p}"].metric for p in PROTOCOLS} == {metric}
        assert list(cfg.evaluate[f"{name}/few_shot_20"].seeds) == [0, 1, 2]


@pytest.mark.parametrize("name", ["mnist", "hateful-memes", "voc2007classification"])
def test_elevater_protocols_on_a_miniature(name: str, tmp_path: Path) -> None:
    elevater.make_set(tmp_path, name)
    cfg = suite(
        "elevater",
        tmp_path,
        predictions__folder=str(tmp_path / "out"),
        predictions__model_name="x",
        epochs__final=4,
    )
    main = {
        "mnist": "top1_accuracy",
        "hateful-memes": "roc_auc",
        "voc2007classification": "map_11_points",
    }[name]
    model: Any = TwoTowers()
    for protocol in PROTOCOLS:
        result = instantiate(cfg.evaluate[f"{name}/{protocol}"])(model)
        assert result.meta["main_metric"] == main and main in result.metrics
        json.dumps([result.metrics, result.items, result.meta], allow_nan=False)
        files = sorted((tmp_path / "out" / protocol).glob("*.json"))
        contents = [json.loads(file.read_text()) for file in files]
        assert [c["rnd_seeds"] for c in contents] == ([[0], [1], [2]] if "few" in protocol else [[0]])
        assert {content["n_shot"] for content in contents} == {SHOTS[protocol]}
        for content in contents:
            assert (content["model_name"], content["dataset_name"]) == ("x", LEADERBOARD_NAMES[name])
            assert len(content["predictions"][0]) == len(result.items["key"])
            trained = content["num_trainable_params"]
            assert (trained == 0) == (protocol == "zero_shot")
        if protocol == "linear_probe":
            assert result.metrics[main] >= 90.0  # colours, which VOC's labels follow but for one


def test_zero_shot_files_say_what_the_result_says(tmp_path: Path) -> None:
    elevater.make_set(tmp_path, "mnist")
    cfg = suite("elevater", tmp_path, predictions__folder=str(tmp_path / "out"))
    result = instantiate(cfg.evaluate["mnist/zero_shot"])(TwoTowers())
    plain = instantiate(suite("elevater", tmp_path).evaluate["mnist/zero_shot"])(TwoTowers())
    assert plain.metrics == result.metrics and plain.items == result.items
    rows = json.loads((tmp_path / "out" / "zero_shot" / "mnist_seed0.json").read_text())["predictions"][0]
    assert [max(range(len(row)), key=row.__getitem__) for row in rows] == result.items["predicted"]


def test_missing_sets_are_missing_one_by_one(tmp_path: Path) -> None:
    elevater.make_set(tmp_path, "mnist")
    cfg = suite("elevater", tmp_path)
    for protocol in PROTOCOLS:
        instantiate(cfg.evaluate[f"mnist/{protocol}"])
        with pytest.raises(MissingDataError, match="gtsrb"):
            instantiate(cfg.evaluate[f"gtsrb/{protocol}"])


def test_linear_probes_on_a_miniature(tmp_path: Path) -> None:
    classification.MAKERS["food101"](tmp_path)
    classification.MAKERS["dtd"](tmp_path)
    cfg = suite("linprobe_classification", tmp_path, download=False)
    assert len(cfg.evaluate) == 20
    for name in ("food101", "dtd"):
        result = instantiate(cfg.evaluate[name])(TwoTowers())
        assert result.metrics["mean_per_class_accuracy"] == 100.0 and result.meta["stage"] == "trunk"
    few = suite("linprobe_classification", tmp_path, download=False, shots=2, seeds=[0, 1, 2])
    result = instantiate(few.evaluate.dtd)(TwoTowers())
    assert result.meta["shots"] == 2 and len(result.meta["runs"]) == 3
    with pytest.raises(MissingDataError):
        instantiate(cfg.evaluate.mnist)
