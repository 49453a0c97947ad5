"""DataComp's tasks on their miniatures: each by its key, with DataComp's main metric."""

import json
from math import fsum
from typing import Any

import pytest

from hypvl.config import LazyConfig, instantiate
from hypvl.evaluation.protocol import EvaluationContext, EvaluationResult
from hypvl.report.datacomp import datacomp_lines
from hypvl.report.datacomp_tasks import TASKS
from hypvl.report.summary import summarize
from tests.evaluation.fakes import FakeModel, FakeTokenizer
from tests.evaluation.miniatures import datacomp, retrieval
from tests.evaluation.smoke import ROOT, inside
from tests.report.test_summary import content, ok


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, EvaluationResult]:
    folder = tmp_path_factory.mktemp("datacomp")
    datacomp.make(folder / "datasets")
    retrieval.make(folder / "datasets")
    config: Any = LazyConfig.load(ROOT / "configs" / "eval_datacomp.py")
    config.encoding.num_workers = 0
    context = EvaluationContext(tokenizer=FakeTokenizer())
    with inside(folder):
        return {key: instantiate(node)(FakeModel(), context) for key, node in config.evaluate.items()}


def test_all_tasks_are_there_by_their_keys(results: dict[str, EvaluationResult]) -> None:
    assert list(results) == list(TASKS) and len(TASKS) == len(set(TASKS.values())) == 38


def test_main_metrics_are_those_of_datacomp(results: dict[str, EvaluationResult]) -> None:
    main = {key: result.meta["main_metric"] for key, result in results.items()}
    per_class = {"fgvc_aircraft", "vtab/caltech101", "vtab/flowers", "vtab/pets"}
    assert {key for key, name in main.items() if name == "mean_per_class_accuracy"} == per_class
    assert {
        key: name for key, name in main.items() if name not in ("top1_accuracy", "mean_per_class_accuracy")
    } == {
        "wilds/fmow": "worst_group_top1_accuracy",
        "wilds/iwildcam": "macro_f1",
        "dollar_street": "worst_group_top5_accuracy",
        "geode": "worst_group_top1_accuracy",
        "retrieval/flickr_1k_test_image_text_retrieval": "mean_recall",
        "retrieval/mscoco_2014_5k_test_image_text_retrieval": "mean_recall",
        "misc/winogavil": "jaccard",
    }


def test_values_by_hand(results: dict[str, EvaluationResult]) -> None:
    assert results["wilds/fmow"].meta["group_images"] == {"asia": 2, "other": 2}
    assert results["geode"].meta["group_images"] == {"east_asia": 2, "southeast_asia": 2}
    assert results["dollar_street"].meta["group_images"] == {"q1": 2, "q4": 2}
    assert results["wilds/iwildcam"].metrics["macro_f1"] == 100.0
    # Of "red" both images, and of "indigo blue" the wrong one.
    assert results["misc/winogavil"].metrics["jaccard_5"] == 50.0
    found = results["retrieval/flickr_1k_test_image_text_retrieval"].metrics
    both = (found["text_to_image_recall@1"], found["image_to_text_recall@1"])
    assert found["mean_recall"] == pytest.approx(sum(both) / 2)


def test_the_file_has_keys_names_and_main_metrics(results: dict[str, EvaluationResult]) -> None:
    entries = {
        key: ok(0.0) | {"metrics": result.metrics, "meta": result.meta} for key, result in results.items()
    }
    file = content(entries)
    lines = {line["key"]: line for line in map(json.loads, datacomp_lines([file]).splitlines())}
    assert {key: line["dataset"] for key, line in lines.items()} == TASKS
    assert lines["misc/winogavil"]["metrics"]["main_metric"] == 0.5
    assert lines["geode"]["metrics"]["main_metric"] == 1.0
    assert all(0.0 <= line["metrics"]["main_metric"] <= 1.0 for line in lines.values())
    # A row of all tasks, whose average is DataComp's; the part before a "/" is no set of several protocols.
    summary = summarize([file])
    assert summary.columns == list(TASKS) and len(summary.rows) == 1
    mains = [line["metrics"]["main_metric"] for line in lines.values()]
    assert summary.rows[0].average == pytest.approx(100 * fsum(mains) / 38)
