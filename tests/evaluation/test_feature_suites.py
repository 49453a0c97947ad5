"""The suites that need image features alone, on miniatures of their data sets."""

from pathlib import Path
from typing import Any

import pytest

from hypvl.config import LazyConfig, instantiate
from hypvl.errors import MissingDataError
from tests.evaluation.miniatures import classification
from tests.evaluation.probes.test_clustering import Seer

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SUITES = ("knn", "clustering")


def suite(name: str, root: Path) -> Any:
    config = LazyConfig.load(str(CONFIGS / f"eval_{name}.py"))
    config.roots.eval = str(root / "eval")
    config.download = False
    config.encoding.num_workers = 0
    return config


@pytest.mark.parametrize("name", SUITES)
def test_each_entry_is_missing_by_itself(name: str, tmp_path: Path) -> None:
    config = suite(name, tmp_path)
    assert len(config.evaluate) == 20
    for entry in config.evaluate:
        with pytest.raises(MissingDataError):
            instantiate(config.evaluate[entry])


@pytest.mark.parametrize("name", SUITES)
def test_runs_on_miniatures(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "eval"
    folder.mkdir()
    for entry in ("cifar10", "dtd", "pets"):
        classification.MAKERS[entry](folder)
    config = suite(name, tmp_path)
    for entry in ("cifar10", "dtd", "pets"):
        result = instantiate(config.evaluate[entry])(Seer())
        assert result.meta["unreadable"] == 0 and result.meta["images"] == len(result.items["key"]) > 1
        # The colours of the classes tell them apart.
        assert result.metrics["top1_accuracy" if name == "knn" else "hungarian_accuracy"] == 100.0
