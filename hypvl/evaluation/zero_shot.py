"""Zero-shot classification: the class whose prompts are closest to the image, by the model's own score."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, cast

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.datasets.classification.prompts import class_prompts, generic_templates
from hypvl.datasets.images import images_of
from hypvl.datasets.protocol import ClassificationSet, check_set
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel
from hypvl.errors import DataError
from hypvl.evaluation.class_metrics import (
    FurtherMetric,
    Metric,
    add_accuracies,
    add_group_accuracies,
    class_probabilities,
    measure,
    zero_shot_metric,
)
from hypvl.evaluation.class_scores import encode_prompts, score_classes
from hypvl.evaluation.labelled_images import Label, check_labels, classes_of, is_multi_label
from hypvl.evaluation.prediction_files import PredictionFiles
from hypvl.evaluation.prompt_ensembling import Ensemble
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.metrics import ranking
from hypvl.metrics.classification import macro_f1, macro_f1_chance

# Factor of scores before the softmax of predictions, as published for cosines.
_SCALE = 100.0


@configurable("evaluate")
@dataclass
class ZeroShotClassification(Evaluator):
    """Accuracy of naming images through prompts.

    Images are resized (shorter side, bicubic) and cropped in the centre. Every prompt of every class is
    encoded once; the model itself makes one score of the prompts of a class (``class_scores``), or
    ``ensemble`` says how.

    Metrics, in percent, most with ``_chance`` beside them: ``mean_per_class_accuracy``, ``top1_accuracy``,
    ``top5_accuracy`` where there are more than 5 classes, and where there are two that both occur ``roc_auc`` of the
    difference of their scores, which is what any softmax of them orders by. Where images have several labels, in
    their place ``map_11_points`` (by ELEVATER's rule) and ``average_precision`` of the scores as they are, without a
    softmax over the classes. An image that cannot be read counts as wrong, or has the worst place, and is counted in
    ``meta["unreadable"]``.

    With one label an image, where the set has ``groups`` of images: ``top1_accuracy_<group>`` of each group and
    ``worst_group_top1_accuracy``, that of the lowest, which ``meta["worst_group"]`` names; where there is a top-5
    accuracy, the same of it. With ``metric="macro_f1"`` also that, the mean F1 of the classes that occur.

    Items, one per image: ``key``, ``label`` (a list where there may be several), ``predicted``, ``score`` (of the
    predicted class), ``label_rank`` (of the best right class); the last three None for an unreadable image; ``group``
    where there are groups.

    Args:
        dataset: Labelled images; a label is a class, or all classes of the image.
        prompts: Templates with ``{}`` or whole prompts by class name; None = those of the data set, and the
            generic ones for a set without.
        class_names: Names in place of the data set's.
        ensemble: How the prompts of a class make one score, see
            :func:`hypvl.evaluation.prompt_ensembling.class_scorer`.
        metric: The one to look at first, by its name or ELEVATER's; None = ``mean_per_class``, and
            ``map_11_points`` where images have several labels.
        predictions: Files of class probabilities; None = none are written. Probabilities are the softmax of 100
            times the scores; where images have several labels the sigmoid of each score, which keeps the order of
            images.

    Raises:
        ValueError: when the prompts, names or metric do not fit the classes, or for another ensemble or metric; for
            the ensemble ``score_mean`` with predictions.
        DataError: for a label that is not a class.

    Source: Radford et al. 2021 (arXiv 2103.00020); Desai et al. 2023 (arXiv 2304.09172); metrics by set: Li et al.
        2022, ELEVATER (arXiv 2204.08790).
    """

    dataset: ClassificationSet
    prompts: Sequence[str] | Mapping[str, Sequence[str]] | None = None
    _: KW_ONLY
    class_names: Sequence[str] | None = None
    ensemble: Ensemble = "model"
    metric: Metric | FurtherMetric | None = None
    predictions: PredictionFiles | None = None

    def __post_init__(self) -> None:
        one_of("ensemble", self.ensemble, Ensemble)
        check_set(self.dataset, ClassificationSet)
        self.classes = list(self.dataset.classes if self.class_names is None else self.class_names)
        if len(self.classes) != len(self.dataset.classes):
            raise ValueError(
                f"class_names: got {len(self.classes)}; expected {len(self.dataset.classes)}, one per class."
            )
        prompts = self.dataset.prompts if self.prompts is None else self.prompts
        self.class_prompts = class_prompts(generic_templates() if prompts is None else prompts, self.classes)
        self.multi_label = is_multi_label(cast(Sequence[Label], self.dataset.labels))
        self._groups: list[str] = list(getattr(self.dataset, "groups", ()))
        if self._groups and len(self._groups) != len(self.dataset):
            raise DataError(
                f"dataset: has {len(self._groups)} groups for {len(self.dataset)} images; expected one each, or none."
            )
        self.main_metric = zero_shot_metric(
            self.metric,
            classes=len(self.classes),
            multi_label=self.multi_label,
            groups=bool(self._groups),
        )
        if self.predictions is not None and self.predictions.folder is None:
            self.predictions = None
        if self.predictions is not None and self.ensemble == "score_mean":
            raise ValueError(
                "ensemble: got 'score_mean' with predictions; expected one that scores by class."
            )

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        given = cast(Sequence[Label], self.dataset.labels)
        check_labels(given, self.dataset.keys, num_classes=len(self.classes))
        # Of several labels in ascending order; a label that stands alone stays a number.
        labels = [sorted(classes_of(label)) if self.multi_label else classes_of(label)[0] for label in given]
        prompts = encode_prompts(encoder, self.class_prompts)
        transform = ResizeCenterCrop.of(model)
        images = encoder.encode_images(images_of(self.dataset), transform=transform)
        items: dict[str, list[Any]] = {
            "key": list(self.dataset.keys),
            "label": labels,
            **{name: [None] * len(labels) for name in ("predicted", "score", "label_rank")},
        }
        count = len(self.classes)
        keeps_scores = self.multi_label or count == 2 or self.predictions is not None
        table = torch.zeros(len(labels), count) if keeps_scores else None

        def use(indices: Tensor, scores: Tensor) -> None:
            nonlocal table
            if table is not None:
                table = table.to(scores.dtype)
                table[indices] = scores
            best = ranking.rank_keys(scores, 1)
            ranks = _label_ranks(scores, [labels[i] for i in indices.tolist()])
            rows = zip(
                indices.tolist(),
                best[:, 0].tolist(),
                scores.gather(1, best)[:, 0].tolist(),
                ranks,
                strict=True,
            )
            for i, name, value, place in rows:
                items["predicted"][i], items["score"][i], items["label_rank"][i] = name, value, place

        score_classes(model, images, prompts, use, ensemble=self.ensemble)
        bad = [i for i, _ in images.bad]
        if self.predictions is not None and table is not None:
            scaled = table.double() if self.multi_label else _SCALE * table.double()
            probabilities = class_probabilities(scaled, multi_label=self.multi_label)
            self.predictions.write(
                model, probabilities, stage="embeddings", missing=bad, shots=0, seed=0, trainable=0
            )
        result = EvaluationResult(
            items=items,
            meta={
                "images": len(labels),
                "classes": self.classes,
                "classes_without_images": sorted(
                    set(range(count)) - {c for label in labels for c in classes_of(label)}
                ),
                "prompts": sum(map(len, self.class_prompts)),
                "prompts_of_first_class": self.class_prompts[0],
                "ensemble": self.ensemble,
            },
        )
        self._count(result, table, bad)
        return result

    def _count(self, result: EvaluationResult, table: Tensor | None, bad: list[int]) -> None:
        """Add metrics; ``table`` has the scores of images with several labels, and of sets with two classes."""
        count, labels, ranks = len(self.classes), result.items["label"], result.items["label_rank"]
        if self.multi_label:
            assert table is not None
            result.metrics = measure(table, labels, missing=bad).metrics
            return
        # Means over the classes that occur: a guess among all C names is right once in C whatever the class.
        add_accuracies(result, result.items["predicted"], labels, classes=count)
        if count > 5:
            result.add_mean(
                "top5_accuracy", ranking.hits_at(ranks, 5), chance=ranking.accuracy_chance(count, k=5)
            )
        if self._groups:
            result.items["group"] = self._groups
            for k in (1, 5) if count > 5 else (1,):
                chance = ranking.accuracy_chance(count, k=k)
                hits = ranking.hits_at(ranks, k)
                add_group_accuracies(result, f"top{k}_accuracy", hits, self._groups, chance=chance)
        if self.main_metric == "macro_f1":
            result.metrics["macro_f1"] = macro_f1(result.items["predicted"], labels)
            result.metrics["macro_f1_chance"] = macro_f1_chance(labels, classes=count)
        if table is not None and count == 2 and 0 < sum(labels) < len(labels):
            margin = table[:, 1] - table[:, 0]
            both = measure(torch.stack([-margin, margin], 1), labels, missing=bad)
            result.metrics |= {name: both.metrics[name] for name in ("roc_auc", "roc_auc_chance")}
        elif self.main_metric == "roc_auc":
            raise DataError(f"roc_auc: all {len(labels)} images are of one class; expected images of both.")


def _label_ranks(scores: Tensor, labels: Sequence[Label]) -> list[int | None]:
    """Rank of the best right class of each image, (Q, C) -> Q; None for an image without a label."""
    if is_multi_label(labels):
        return ranking.first_hit_ranks(ranking.rank_keys(scores), [classes_of(label) for label in labels])
    return list(ranking.label_ranks(scores, torch.tensor(labels)).tolist())
