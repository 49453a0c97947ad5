"""What is not a number is an error, or a metric that is not a number: never a share that looks good, or only bad."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hypvl.evaluation.class_metrics import measure
from hypvl.metrics import (
    captions,
    chains,
    choices,
    classification,
    clustering,
    correlation,
    neighbours,
    sentences,
    spread,
)
from tests.metrics.composed import retrieval_recall, topk_accuracy

NAN = math.nan
ROWS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([[0, 1, 2], [2, 1, 0]])

#: Each metric that takes numbers, of scores or rows in which one is ``x``.
METRICS: dict[str, Callable[[float], object]] = {
    "recall": lambda x: retrieval_recall(torch.tensor([[1.0, x], [0.0, 1.0]]), [{0}, {1}], ks=[1]),
    "top-k": lambda x: topk_accuracy(torch.tensor([[1.0, x], [0.0, 1.0]]), torch.tensor([0, 1])),
    "class metrics": lambda x: measure(torch.tensor([[1.0, x], [0.0, 1.0]]), [0, 1]),
    "class metrics of several": lambda x: measure(torch.tensor([[1.0, x], [0.0, 1.0]]), [[0], [1]]),
    "roc_auc": lambda x: classification.roc_auc([0.0, x], [0, 1]),
    "average_precision": lambda x: classification.average_precision([0.0, x], [0, 1]),
    "11 points": lambda x: classification.average_precision_11_points([0.0, x], [0, 1]),
    "choice": lambda x: choices.choice_hits([(1.0, [0.0, x])]),
    "choice, own": lambda x: choices.choice_hits([(x, [0.0])]),
    "detection": lambda x: choices.detection([(1.0, [x])], threshold=0.5),
    "threshold": lambda x: choices.detection([(1.0, [0.0])], threshold=x),
    "group": lambda x: choices.group_hits([[1.0, x], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]),
    "level_tau": lambda x: chains.level_tau([0.1, x, 0.3]),
    "along, scores": lambda x: chains.along_radii(torch.tensor([[1.0, x]]), torch.tensor([0.1, 0.2])),
    "along, radii": lambda x: chains.along_radii(torch.tensor([[1.0, 2.0]]), torch.tensor([0.1, x])),
    "pearson": lambda x: correlation.pearson([1.0, 2.0, x], [1.0, 2.0, 3.0]),
    "spearman": lambda x: correlation.spearman([1.0, 2.0, x], [1.0, 2.0, 3.0]),
    "kendall": lambda x: correlation.kendall_tau([1.0, 2.0, x], [1.0, 2.0, 3.0]),
    "aggregate": lambda x: sentences.aggregate_correlations({"a": ([1.0, 2.0, x], [1.0, 2.0, 3.0])}),
    "triplet": lambda x: sentences.triplet_accuracy(ROWS, ROWS, broken(x)),
    "triplet, euclidean": lambda x: sentences.triplet_accuracy(broken(x), ROWS, -ROWS, distance="euclidean"),
    "votes": lambda x: neighbours.neighbour_votes(
        torch.tensor([[0.0, 0.0, x], [0.0, 0.0, 0.0]]), LABELS, num_classes=3
    ),
    "self-similarity": lambda x: spread.positive_self_similarity(broken(x)),
    "deviation": lambda x: spread.mean_deviation(broken(x)),
    "shape": lambda x: clustering.shape_metrics(broken(x).numpy(), [0, 0, 0, 1, 1, 1]),
    "caption score": lambda x: captions.caption_score(ROWS, broken(x))[2].item(),
    "reference cosine": lambda x: captions.reference_cosine(ROWS[:1], [broken(x)]).item(),
    "reference augmented": lambda x: captions.reference_augmented(
        torch.tensor([1.0]), torch.tensor([x])
    ).item(),
}


def broken(x: float) -> Tensor:
    rows = ROWS.clone()
    rows[2, 1] = x
    return rows


@pytest.mark.parametrize("name", METRICS)
def test_nan_is_an_error_or_nan(name: str) -> None:
    METRICS[name](0.25)  # a number in its place will do
    try:
        result = METRICS[name](NAN)
    except ValueError as error:
        assert "NaN" in str(error) or "finite" in str(error) or "nan" in str(error)
    else:
        assert isinstance(result, float) and math.isnan(result)
