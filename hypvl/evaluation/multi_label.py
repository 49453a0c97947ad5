"""Zero-shot classification of images with several labels: mean average precision, per class and over classes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from math import fsum
from typing import Literal, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import none_of, one_of
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.datasets.classification.prompts import class_prompts, generic_templates
from hypvl.datasets.images import images_of
from hypvl.datasets.protocol import ClassificationSet, check_set
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel
from hypvl.errors import DataError
from hypvl.evaluation.class_scores import encode_prompts, score_classes
from hypvl.evaluation.labelled_images import Label, check_labels, classes_of
from hypvl.evaluation.prompt_ensembling import Ensemble
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.metrics.classification import (
    average_precision,
    average_precision_11_points,
    average_precision_chance,
    one_hot,
)

Kinds: TypeAlias = Literal["metrics", "items"]


@configurable("evaluate")
@dataclass
class MultiLabelClassification(Evaluator):
    """Mean average precision of finding the images of each class by its prompts.

    Each class ranks all images by its score. Metrics, in percent, plain means over the classes with a positive image:
    ``average_precision`` (the main one), the area under the precision-recall curve in steps, with its ``_chance`` (the
    expectation over random orders); and ``map_11_points_voc2007``, VOC 2007's 11-point interpolated one. With
    ``kinds="metrics"`` also ``average_precision_<class>`` with its ``_chance``.

    Where the data set has ``ignored`` classes of an image (VOC's difficult objects), the image does not count for
    them. The classes of an unreadable image come last in their rankings, and the image comes first in all others.
    Images of equal score share one place.

    Items, one per image: ``key``, ``label``, ``predicted`` (the best class, None for an unreadable image); one per
    class: ``classes``, ``class_positives``, ``class_average_precision``, ``class_map_11_points_voc2007`` (the last two
    None without a positive).

    Args:
        dataset: Images with several labels each, at least one label in all.
        prompts: Templates with ``{}`` or whole prompts by class name; None = those of the data set, and the generic
            ones for a set without.
        ensemble: How the prompts of a class make one score; ``score_mean``, the mean of the scores over the prompts,
            is Hyper3-CLIP's way.
        kinds: ``"metrics"``: the value of every class is a metric; ``"items"``: it is in the items only.

    Source: Everingham et al. 2010 (VOC); table 4 of Hyper3-CLIP (arXiv 2608.29313).
        Differs: the model's own score.
    """

    dataset: ClassificationSet
    prompts: Sequence[str] | Mapping[str, Sequence[str]] | None = None
    _: KW_ONLY
    ensemble: Ensemble = "score_mean"
    kinds: Kinds = "metrics"

    main_metric = "average_precision"

    def __post_init__(self) -> None:
        one_of("ensemble", self.ensemble, Ensemble)
        one_of("kinds", self.kinds, Kinds)
        check_set(self.dataset, ClassificationSet)
        prompts = self.dataset.prompts if self.prompts is None else self.prompts
        self._prompts = class_prompts(
            generic_templates() if prompts is None else prompts, self.dataset.classes
        )

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        data, classes = self.dataset, list(self.dataset.classes)
        given = cast(Sequence[Label], data.labels)
        check_labels(given, data.keys, num_classes=len(classes))
        labels = [sorted(classes_of(label)) for label in given]
        if not any(labels):
            raise DataError(
                f"dataset: {none_of(len(labels), 'image', 'has a label', 'has no label')}; expected one."
            )
        prompts = encode_prompts(encoder, self._prompts)
        images = encoder.encode_images(images_of(data), transform=ResizeCenterCrop.of(model))
        scores = torch.zeros(len(labels), len(classes), dtype=torch.float64)

        def use(indices: Tensor, block: Tensor) -> None:
            scores[indices] = block.double()

        score_classes(model, images, prompts, use, ensemble=self.ensemble)
        truth = one_hot(labels, len(classes))
        unreadable = [i for i, _ in images.bad]
        predicted: list[int | None] = list(scores.argmax(1).tolist())
        for i in unreadable:
            predicted[i] = None
        for i in unreadable:
            scores[i] = torch.inf
            scores[i, labels[i]] = -torch.inf
        counts = self._counts(len(labels), len(classes))
        result = EvaluationResult(
            items={"key": list(data.keys), "label": labels, "predicted": predicted, "classes": classes},
            meta={
                "images": len(labels),
                "labels": int(truth.sum()),
                "ignored": int((~counts).sum()),
                "prompts_of_first_class": self._prompts[0],
                "ensemble": self.ensemble,
            },
        )
        self._add(result, scores.numpy(), truth, counts)
        return result

    def _counts(self, images: int, classes: int) -> np.ndarray:
        """Whether an image counts for a class, (N, C)."""
        ignored: Sequence[Collection[int]] | None = getattr(self.dataset, "ignored", None)
        return np.ones((images, classes), dtype=bool) if ignored is None else ~one_hot(ignored, classes)

    def _add(
        self, result: EvaluationResult, scores: np.ndarray, truth: np.ndarray, counts: np.ndarray
    ) -> None:
        """Add the value of each class to the items, and the means, to the result."""
        area: list[float | None] = []
        points: list[float | None] = []
        chance: list[float | None] = []
        for mine, right, rows in zip(scores.T, truth.T, counts.T, strict=True):
            mine, right = mine[rows], right[rows]
            occurs = bool(right.any())
            area.append(average_precision(mine, right) if occurs else None)
            points.append(average_precision_11_points(mine, right) if occurs else None)
            chance.append(average_precision_chance(right) if occurs else None)
        result.items |= {
            "class_positives": (truth & counts).sum(0).tolist(),
            "class_average_precision": area,
            "class_map_11_points_voc2007": points,
        }
        means = {
            "average_precision": area,
            "average_precision_chance": chance,
            "map_11_points_voc2007": points,
        }
        for name, values in means.items():
            known = [value for value in values if value is not None]
            if not known:
                raise DataError("dataset: every label is ignored; expected a class with a positive image.")
            result.metrics[name] = fsum(known) / len(known)
        if self.kinds == "metrics":
            for name, value, random in zip(result.items["classes"], area, chance, strict=True):
                if value is not None and random is not None:
                    result.metrics[f"average_precision_{name}"] = value
                    result.metrics[f"average_precision_{name}_chance"] = random
