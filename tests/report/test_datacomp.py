"""DataComp's eval_results.jsonl."""

import json

import pytest

from hypvl.errors import DataError
from hypvl.report.datacomp import datacomp_lines
from tests.report.test_summary import MISSING, content, ok


def test_percentages_become_shares_and_the_main_metric_is_named() -> None:
    entry = ok(80.0) | {
        "metrics": {"top1_accuracy": 80.0, "top1_accuracy_chance": 10.0, "text_radius": 1.5},
        "meta": {"main_metric": "top1_accuracy"},
    }
    lines = datacomp_lines([content({"imagenet1k": entry, "dtd": MISSING, "mine": ok(50.0)})]).splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "key": "imagenet1k",
            "dataset": "ImageNet 1k",
            "metrics": {"top1_accuracy": 0.8, "text_radius": 1.5, "main_metric": 0.8},
        },
        {
            "key": "mine",
            "dataset": "mine",
            "metrics": {"other": 1.0, "top1_accuracy": 0.5, "main_metric": 0.5},
        },
    ]


def test_one_checkpoint_and_at_least_one_result() -> None:
    two = [content({"a": ok(1.0)}, sha="1"), content({"a": ok(1.0)}, sha="2")]
    with pytest.raises(DataError, match="--datacomp: got results of 2 checkpoints"):
        datacomp_lines(two)
    with pytest.raises(DataError, match="--datacomp: no evaluation has a result"):
        datacomp_lines([content({"a": MISSING})])
    with pytest.raises(DataError, match="a: has no recall; expected one of other, top1"):
        datacomp_lines([content({"a": ok(1.0)})], metric="recall")
