"""Metrics of class probabilities, by name, with their chance levels and per-item values."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, cast, get_args

import torch
from torch import Tensor

from hypvl.checks import one_of
from hypvl.evaluation.labelled_images import Label, classes_of, is_multi_label
from hypvl.evaluation.protocol import EvaluationResult
from hypvl.metrics import classification, groups as groups_of, ranking

#: ``mean_per_class_accuracy`` and ``top1_accuracy`` need one label an item, ``roc_auc`` two classes in addition;
#: ``map_11_points`` and ``average_precision`` are for several labels an item. All in percent.
MetricName = Literal[
    "mean_per_class_accuracy", "top1_accuracy", "roc_auc", "map_11_points", "average_precision"
]
METRIC_NAMES: tuple[MetricName, ...] = get_args(MetricName)
#: A metric as the results call it, or as ELEVATER does.
Metric: TypeAlias = MetricName | Literal["accuracy", "mean_per_class"]
METRICS: dict[str, str] = {
    "accuracy": "top1_accuracy",
    "mean_per_class": "mean_per_class_accuracy",
    **{name: name for name in METRIC_NAMES},
}
#: Of zero-shot classification in addition, for one label an image: ``macro_f1`` is computed where it is asked for, that
#: of the worst group where images have groups, and top-5 where there are more than 5 classes.
FurtherMetric = Literal["macro_f1", "worst_group_top1_accuracy", "worst_group_top5_accuracy"]


def main_metric(metric: Metric | None, *, classes: int, multi_label: bool) -> str:
    """The metric to look at first, as the results call it.

    None = ``mean_per_class``, for several labels an image ``map_11_points``. Raises ValueError for a metric that such
    labels do not have.
    """
    one_of("metric", metric, Metric | None)
    if metric is None:
        metric = "map_11_points" if multi_label else "mean_per_class"
    possible = METRIC_NAMES[3:] if multi_label else METRIC_NAMES[: 3 if classes == 2 else 2]
    if METRICS[metric] not in possible:
        labels = "several labels" if multi_label else "one label"
        expected = ", ".join(name for name in METRICS if METRICS[name] in possible)
        raise ValueError(
            f"metric: got {metric!r} for {classes} classes and {labels} an image; expected one of {expected}."
        )
    return METRICS[metric]


def zero_shot_metric(
    metric: Metric | FurtherMetric | None, *, classes: int, multi_label: bool, groups: bool
) -> str:
    """As :func:`main_metric`, of zero-shot classification; ``groups``: whether the images have groups."""
    one_of("metric", metric, Metric | FurtherMetric | None)
    if metric not in get_args(FurtherMetric):
        return main_metric(cast(Metric | None, metric), classes=classes, multi_label=multi_label)
    of_groups = metric != "macro_f1"
    if multi_label or (of_groups and not groups) or (metric == "worst_group_top5_accuracy" and classes <= 5):
        labels = "several labels" if multi_label else "one label"
        have = "groups" if groups else "no groups"
        raise ValueError(
            f"metric: got {metric!r} for {classes} classes, {labels} an image and {have} of images; expected one "
            "label, for the worst group also groups, and more than 5 classes for top-5."
        )
    return cast(str, metric)


def measure(
    probabilities: Tensor, labels: Sequence[Label], *, missing: Sequence[int] = ()
) -> EvaluationResult:
    """Every metric that the labels allow, with chance levels; the only item is ``predicted``.

    With several labels an item: ``map_11_points`` (ELEVATER's rule) and ``average_precision``, and all classes above
    one half are predicted; else ``mean_per_class_accuracy``, ``top1_accuracy`` and, with two classes that both occur,
    ``roc_auc`` (of class 1). ``predicted`` is None where there is no prediction.

    Args:
        probabilities: (N, C), higher = more likely; rows of missing items are ignored.
        missing: Items without prediction. They count as wrong in every metric: their own classes rank below all items,
            the other classes above.
    """
    scores = probabilities.double().clone()
    everything = set(range(probabilities.shape[1]))
    for i in missing:
        right = set(classes_of(labels[i]))
        scores[i, sorted(everything - right)] = torch.inf
        scores[i, sorted(right)] = -torch.inf
    result = EvaluationResult()
    predicted: list[Any]
    if is_multi_label(labels):
        truth = classification.one_hot([classes_of(label) for label in labels], len(everything))
        predicted = [[c for c, above in enumerate(row) if above] for row in (scores > 0.5).tolist()]
        result.metrics = {
            "map_11_points": classification.average_precision_11_points(
                scores.numpy(), truth, rule="elevater"
            ),
            "average_precision": classification.average_precision(scores.numpy(), truth),
            "average_precision_chance": classification.average_precision_chance(truth),
        }
    else:
        predicted = ranking.rank_keys(scores, 1)[:, 0].tolist()
    for i in missing:
        predicted[i] = None
    result.items["predicted"] = predicted
    if not is_multi_label(labels):
        single = [classes_of(label)[0] for label in labels]
        add_accuracies(result, predicted, single, classes=len(everything))
        if len(everything) == 2 and 0 < sum(single) < len(single):
            result.metrics["roc_auc"] = classification.roc_auc(scores[:, 1].numpy(), single)
            result.metrics["roc_auc_chance"] = 50.0
    return result


def add_accuracies(
    result: EvaluationResult, predicted: Sequence[int | None], labels: Sequence[int], *, classes: int
) -> None:
    """Add ``mean_per_class_accuracy`` and ``top1_accuracy`` with their chance; None is wrong."""
    hits = [100.0 * (guess == truth) for guess, truth in zip(predicted, labels, strict=True)]
    for name in METRIC_NAMES[:2]:
        result.add_mean(name, hits, chance=ranking.accuracy_chance(classes))
    result.metrics["mean_per_class_accuracy"] = ranking.mean_per_class_accuracy(predicted, labels)
    result.strata["mean_per_class_accuracy"] = list(labels)


def add_group_accuracies(
    result: EvaluationResult, name: str, hits: Sequence[float], groups: Sequence[str], *, chance: float
) -> None:
    """Add ``<name>_<group>`` of each group and ``worst_group_<name>``, the lowest, with their chance.

    The interval of the lowest is that of its group, which ``meta["worst_group"]`` names.

    Args:
        name: An accuracy.
        hits: Of each image, 100 or 0.
        groups: Of each image.
        chance: Of one image, in percent.
    """
    values = groups_of.by_group(hits, groups)
    worst = groups_of.worst_group(values)
    result.add_mean(
        f"worst_group_{name}",
        values[worst],
        chance=groups_of.worst_group_chance([len(own) for own in values.values()], chance=chance),
    )
    for group, own in values.items():
        result.add_mean(f"{name}_{group}", own, chance=chance)
    result.meta.setdefault("worst_group", {})[name] = worst
    result.meta["group_images"] = {group: len(own) for group, own in values.items()}


def class_probabilities(logits: Tensor, *, multi_label: bool) -> Tensor:
    """(N, C) logits -> probabilities in fp64: of a softmax, or of each class alone."""
    wide = logits.double()
    return torch.sigmoid(wide) if multi_label else torch.softmax(wide, dim=1)
