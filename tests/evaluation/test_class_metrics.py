"""Metrics of class probabilities by hand."""

import math

import pytest
import torch

from hypvl.evaluation.class_metrics import METRIC_NAMES, measure
from hypvl.metrics.ranking import mean_per_class_accuracy


def test_metrics_of_one_label_an_item() -> None:
    rows = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    result = measure(rows, [0, 1, 1, 2])
    assert result.metrics == pytest.approx(
        {
            "mean_per_class_accuracy": 250 / 3,
            "mean_per_class_accuracy_chance": 100 / 3,
            "top1_accuracy": 75.0,
            "top1_accuracy_chance": 100 / 3,
        }
    )
    assert result.items["predicted"] == [0, 1, 0, 2]
    assert result.metrics["mean_per_class_accuracy"] == pytest.approx(
        mean_per_class_accuracy(result.items["predicted"], [0, 1, 1, 2])  # type: ignore[arg-type]
    )
    names = ("mean_per_class_accuracy", "top1_accuracy")
    assert result.samples == {name: [100.0, 100.0, 0.0, 100.0] for name in names}
    assert result.strata == {"mean_per_class_accuracy": [0, 1, 1, 2]}


def test_two_classes_have_an_area_under_the_curve() -> None:
    rows = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.6, 0.4]])
    result = measure(rows, [0, 0, 1, 1])
    # 3 of 4 pairs in order
    assert (result.metrics["roc_auc"], result.metrics["roc_auc_chance"]) == (75.0, 50.0)
    assert "roc_auc" not in measure(rows, [1, 1, 1, 1]).metrics


def test_metrics_of_several_labels_an_item() -> None:
    rows = torch.tensor([[0.9, 0.2], [0.8, 0.9], [0.1, 0.4]])
    result = measure(rows, [[0], [1], []])
    assert (result.metrics["map_11_points"], result.metrics["average_precision"]) == (100.0, 100.0)
    assert result.items["predicted"] == [[0], [0, 1], []] and not result.samples
    worse = measure(rows.flip(0), [[0], [1], []])
    assert worse.metrics["average_precision"] == pytest.approx(100 * (1 / 3 + 1) / 2)


@pytest.mark.parametrize("labels", [[0, 1, 1, 0], [[0], [1], [1], [0]]])
def test_a_missing_prediction_is_wrong_for_every_metric(labels: list) -> None:
    rows = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.9, 0.1]])
    full, lacking = measure(rows, labels), measure(rows, labels, missing=[2])
    assert lacking.items["predicted"][2] is None
    names = {name for name in full.metrics if not name.endswith("_chance")}
    assert names and names <= set(METRIC_NAMES)
    for name in names:
        assert full.metrics[name] == 100.0 and lacking.metrics[name] < 100.0, name


def test_rows_of_missing_items_do_not_matter() -> None:
    rows = torch.tensor([[0.9, 0.1], [math.nan, math.nan]])
    assert measure(rows, [0, 1], missing=[1]).metrics["top1_accuracy"] == 50.0
