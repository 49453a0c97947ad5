"""The evaluations of a suite as entries, on one process and on two."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from hypvl import distributed
from hypvl.cli.suites import measure_entry
from hypvl.evaluation.protocol import EvaluationContext
from tests.cli.test_evaluate import colors
from tests.evaluation.fakes import FakeModel, FakeTokenizer
from tests.ranks import run_ranks


def suite(folder: Path, *, root: Path | None = None) -> Any:
    node = colors(folder)
    node["dataset"]["_target_"] = "hypvl.datasets.classification.folders.ImageFolderSet"
    node["encoding"] = {"_target_": "hypvl.embedding.encode.Encoding", "num_workers": 0}
    if root is not None:
        node["dataset"]["root"] = str(root)
    return OmegaConf.create({"evaluate": {"colors": node}})


def measured(config: Any) -> dict[str, Any]:
    return measure_entry(
        "colors", config, FakeModel(), EvaluationContext(tokenizer=FakeTokenizer()), progress=False
    )


def test_an_entry_has_what_a_results_file_holds(tmp_path: Path) -> None:
    entry = measured(suite(tmp_path))
    assert entry["status"] == "ok" and entry["metrics"]["top1_accuracy"] == 100.0
    assert {"status", "metrics", "intervals", "items", "meta", "seconds"} == set(entry)


def _on_a_rank(folder: str) -> dict[str, Any]:
    """The data lie on the machine of rank 0 only."""
    other = None if distributed.rank() == 0 else Path(folder) / "nowhere"
    return measured(suite(Path(folder), root=other))


@pytest.mark.slow
def test_data_that_one_rank_lacks_are_missing_on_all(tmp_path: Path) -> None:
    """No rank starts to encode and waits for the others."""
    suite(tmp_path)  # draws the images
    first, second = run_ranks(2, _on_a_rank, str(tmp_path))
    assert first == second and first["status"] == "missing" and "nowhere" in first["reason"]
