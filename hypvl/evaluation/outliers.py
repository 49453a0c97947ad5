"""Detection of images of no class: whether their best class scores lower than that of images of the classes."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import number, one_of
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.datasets.classification.outliers import OutlierSet
from hypvl.datasets.classification.prompts import class_prompts
from hypvl.datasets.protocol import check_set
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel
from hypvl.evaluation.class_scores import encode_prompts, score_classes
from hypvl.evaluation.prompt_ensembling import Ensemble
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.metrics.classification import (
    average_precision,
    average_precision_chance,
    false_positive_rate,
    roc_auc,
)


@configurable("evaluate")
@dataclass
class OutlierDetection(Evaluator):
    """Outliers by the confidence of zero-shot classification; an outlier is what should be found.

    Two confidences of an image: ``probability``, the largest of the softmax of ``scale`` times the class scores; and
    ``score``, the largest class score itself. The lower, the more likely an outlier.

    Metrics, in percent, for each: ``aupr_<way>`` (``aupr_probability`` is the main one), the area under the
    precision-recall curve in steps, with its ``_chance``, the expectation over random orders; ``auroc_<way>`` with its
    ``_chance`` of 50; ``fpr95_<way>``, the share of other images that are taken for outliers when 95 % of the outliers
    are found, lower = better, with its ``_chance`` of 95. Ties share one place. An unreadable image has the worst
    place.

    Items, one per image: ``key``, ``outlier``, ``predicted`` (the best class), ``probability``, ``score``; the last
    three None for an unreadable image.

    Args:
        dataset: Images of the classes, and outliers, at least one of each.
        prompts: Templates with ``{}`` or whole prompts by class name; None = those of the data set.
        ensemble: How the prompts of a class make one score.
        scale: Factor of the scores before the softmax, above 0; 100 is that of CLIP's cosines.

    Source: ImageNet-O, Hendrycks et al. 2021 (arXiv 1907.07174): AUPR of the maximum softmax probability, of a
        classifier. Differs: class scores are zero-shot.
    """

    dataset: OutlierSet
    prompts: Sequence[str] | Mapping[str, Sequence[str]] | None = None
    _: KW_ONLY
    ensemble: Ensemble = "model"
    scale: float = 100.0

    main_metric = "aupr_probability"

    def __post_init__(self) -> None:
        one_of("ensemble", self.ensemble, Ensemble)
        number("scale", self.scale, above=0)
        check_set(self.dataset, OutlierSet)
        if len(set(self.dataset.outlier)) != 2:
            raise ValueError("dataset: all images are outliers, or none is; expected at least one of each.")
        prompts = self.dataset.prompts if self.prompts is None else self.prompts
        self._prompts = class_prompts(prompts, self.dataset.classes)

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        data = self.dataset
        prompts = encode_prompts(encoder, self._prompts)
        images = encoder.encode_images(data.images, transform=ResizeCenterCrop.of(model))
        count = len(data.images)
        confidence = {name: torch.zeros(count, dtype=torch.float64) for name in ("probability", "score")}
        predicted: list[int | None] = [None] * count

        def use(indices: Tensor, block: Tensor) -> None:
            wide = block.double()
            best = wide.max(1)
            confidence["score"][indices] = best.values
            # Ranked by the log-odds of the largest probability, which do not round to a tie where it rounds to 1.
            others = (self.scale * wide).scatter(1, best.indices[:, None], -torch.inf)
            confidence["probability"][indices] = self.scale * best.values - others.logsumexp(1)
            for i, c in zip(indices.tolist(), best.indices.tolist(), strict=True):
                predicted[i] = c

        score_classes(model, images, prompts, use, ensemble=self.ensemble)
        unreadable = {i for i, _ in images.bad}
        shown = confidence | {"probability": confidence["probability"].sigmoid()}
        items = {
            name: [None if i in unreadable else value for i, value in enumerate(values.tolist())]
            for name, values in shown.items()
        }
        outlier = torch.tensor(list(data.outlier))
        result = EvaluationResult(
            items={"key": list(data.keys), "outlier": outlier.tolist(), "predicted": predicted, **items},
            meta={
                "images": count,
                "outliers": int(outlier.sum()),
                "classes": len(data.classes),
                "prompts_of_first_class": self._prompts[0],
                "ensemble": self.ensemble,
                "scale": self.scale,
            },
        )
        for name, values in confidence.items():
            doubt = -values
            for i in unreadable:
                doubt[i] = -torch.inf if outlier[i] else torch.inf
            doubts, truth = doubt.numpy(), outlier.numpy()
            result.metrics |= {
                f"aupr_{name}": average_precision(doubts, truth),
                f"aupr_{name}_chance": average_precision_chance(truth),
                f"auroc_{name}": roc_auc(doubts, truth),
                f"auroc_{name}_chance": 50.0,
                f"fpr95_{name}": false_positive_rate(doubts, truth, recall=95.0),
                f"fpr95_{name}_chance": 95.0,
            }
        return result
