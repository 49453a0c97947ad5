"""Every suite of configs/ finds a miniature of each of its data sets, and every reader of data sets has a test."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from hypvl.config import LazyConfig, instantiate
from hypvl.errors import MissingDataError
from tests.evaluation.smoke import ROOT, inside, make_miniatures, suites


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("miniatures")
    make_miniatures(folder)
    return folder


def data_sets(node: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(evaluation, config) of each call of a reader in a resolved part of a config."""
    if isinstance(node, dict):
        if str(node.get("_target_", "")).startswith("hypvl.datasets."):
            yield name, node
        else:
            for key, value in node.items():
                yield from data_sets(value, name or key)


def load(suite: str) -> DictConfig:
    config = LazyConfig.load(ROOT / "configs" / f"eval_{suite}.py")
    if "download" in config:
        config.download = False
    return config


@pytest.mark.parametrize("suite", suites())
def test_every_data_set_of_a_suite_has_a_miniature(suite: str, place: Path) -> None:
    config: Any = OmegaConf.to_container(load(suite), resolve=True)
    unique = {json.dumps(node, sort_keys=True): (name, node) for name, node in data_sets(config["evaluate"])}
    missing = []
    with inside(place):
        for name, node in unique.values():
            try:
                instantiate(OmegaConf.create(node))
            except MissingDataError as error:
                missing.append(f"{name}: {error}")
    assert not missing, (
        f"configs/eval_{suite}.py: {len(missing)} data sets have no miniature; write make(root) in a file of "
        "tests/evaluation/miniatures/, which puts a few items below root / <folder of the set>:\n"
        + "\n".join(missing)
    )


def test_every_reader_that_configs_may_name_has_a_test() -> None:
    targets = json.loads((ROOT / "hypvl" / "config" / "targets.json").read_text())["evaluate"]
    tests = "".join(path.read_text() for path in (ROOT / "tests" / "datasets").rglob("test_*.py"))
    readers = [name for name in targets if name.startswith("hypvl.datasets.")]
    untested = [name for name in readers if f"{name.rpartition('.')[2]}" not in tests]
    assert readers and not untested, f"no test in tests/datasets/ names {', '.join(untested)}; write one each"
