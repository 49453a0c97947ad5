"""Metrics of class probabilities, by name, with their chance levels and per-item values."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from hypvl.evaluation.labelled_images import Label, classes_of, is_multi_label
from hypvl.metrics import classification, ranking

#: ``mean_per_class_accuracy`` and ``top1_accuracy`` need one label an item, ``roc_auc`` two classes in addition;
#: ``map_11_points`` and ``average_precision`` are for several labels an item. All in percent.
MetricName = Literal[
    "mean_per_class_accuracy", "top1_accuracy", "roc_auc", "map_11_points", "average_precision"
]
METRIC_NAMES: tuple[MetricName, ...] = (
    "mean_per_class_accuracy", "top1_accuracy", "roc_auc", "map_11_points", "average_precision",
)  # fmt: skip
#: A metric as the results call it, or as ELEVATER does.
Metric: TypeAlias = MetricName | Literal["accuracy", "mean_per_class"]
METRICS: dict[str, str] = {
    "accuracy": "top1_accuracy",
    "mean_per_class": "mean_per_class_accuracy",
    **{name: name for name in METRIC_NAMES},
}


@dataclass(frozen=True)
class Measured:
    """Metrics of one set of predictions.

    Attributes:
        metrics: Name -> percent.
        chance: Name -> value of random guesses, for the metrics that have one.
        samples: Per-item values of the metrics that are a mean over items.
        strata: Class of each item, for the metrics that are a mean over classes.
        predicted: Class of each item, or all classes above one half where items have several; None = no prediction.
    """

    metrics: dict[str, float]
    chance: dict[str, float]
    samples: dict[str, list[float]] = field(default_factory=dict)
    strata: dict[str, list[int]] = field(default_factory=dict)
    predicted: list[int | list[int] | None] = field(default_factory=list)


def measure(probabilities: Tensor, labels: Sequence[Label], *, missing: Sequence[int] = ()) -> Measured:
    """Every metric that the labels allow.

    With several labels an item: ``map_11_points`` (ELEVATER's rule) and ``average_precision``; else
    ``mean_per_class_accuracy``, ``top1_accuracy`` and, with two classes that both occur, ``roc_auc`` (of class 1).

    Args:
        probabilities: (N, C), higher = more likely; rows of missing items are ignored.
        labels: Of each item.
        missing: Items without prediction. They count as wrong in every metric: their own classes rank below all items,
            the other classes above.
    """
    filled = probabilities.double().clone()
    everything = set(range(probabilities.shape[1]))
    for i in missing:
        right = set(classes_of(labels[i]))
        filled[i, sorted(everything - right)] = torch.inf
        filled[i, sorted(right)] = -torch.inf
    without = set(missing)
    if is_multi_label(labels):
        return _several(filled, labels, without)
    return _one(filled, [classes_of(label)[0] for label in labels], without)


def _one(scores: Tensor, labels: list[int], without: set[int]) -> Measured:
    best = ranking.rank_keys(scores, 1)[:, 0].tolist()
    predicted = [None if i in without else best[i] for i in range(len(labels))]
    hits = [guess == truth for guess, truth in zip(predicted, labels, strict=True)]
    chance = ranking.accuracy_chance(scores.shape[1])
    names = ("mean_per_class_accuracy", "top1_accuracy")
    measured = Measured(
        {
            names[0]: ranking.mean_per_class_accuracy(predicted, labels),
            names[1]: 100.0 * sum(hits) / len(hits),
        },
        dict.fromkeys(names, chance),
        {name: [100.0 * hit for hit in hits] for name in names},
        {names[0]: labels},
        list(predicted),
    )
    if scores.shape[1] == 2 and 0 < sum(labels) < len(labels):
        measured.metrics["roc_auc"] = classification.roc_auc(scores[:, 1].numpy(), labels)
        measured.chance["roc_auc"] = 50.0
    return measured


def _several(scores: Tensor, labels: Sequence[Label], without: set[int]) -> Measured:
    truth = classification.one_hot([classes_of(label) for label in labels], scores.shape[1])
    rows = (scores > 0.5).tolist()
    predicted: list[int | list[int] | None] = [
        None if i in without else [c for c, chosen in enumerate(row) if chosen] for i, row in enumerate(rows)
    ]
    return Measured(
        {
            "map_11_points": classification.average_precision_11_points(
                scores.numpy(), truth, rule="elevater"
            ),
            "average_precision": classification.average_precision(scores.numpy(), truth),
        },
        {"average_precision": classification.average_precision_chance(truth)},
        predicted=predicted,
    )


def class_probabilities(logits: Tensor, *, multi_label: bool) -> Tensor:
    """(N, C) logits -> probabilities in fp64: of a softmax, or of each class alone."""
    wide = logits.double()
    return torch.sigmoid(wide) if multi_label else torch.softmax(wide, dim=1)
