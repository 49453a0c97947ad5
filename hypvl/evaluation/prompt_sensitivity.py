"""How much zero-shot accuracy depends on the prompts: its mean, spread, best and worst over sets of prompts."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import combinations
from math import fsum
from typing import Literal, TypeAlias, cast

from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.datasets.classification.prompts import class_prompts
from hypvl.datasets.images import images_of
from hypvl.datasets.protocol import ClassificationSet, check_set
from hypvl.embedding.encode import CachedEncoder, EncodedImages
from hypvl.embedding.protocol import EvaluableModel
from hypvl.evaluation.class_scores import score_classes
from hypvl.evaluation.labelled_images import Label, check_labels, classes_of, is_multi_label
from hypvl.evaluation.prompt_ensembling import Ensemble
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.metrics import ranking

Accuracy: TypeAlias = Literal["mean_per_class_accuracy", "top1_accuracy"]
Kinds: TypeAlias = Literal["metrics", "items"]


@configurable("evaluate")
@dataclass
class PromptSensitivity(Evaluator):
    """Zero-shot accuracy over several sets of prompts for the same images and classes.

    Metrics, in percent: ``accuracy_mean`` (the main one) over the prompt sets, ``accuracy_best``, ``accuracy_worst``
    and with ``kinds="metrics"`` ``accuracy_<prompt set>``, each with the ``_chance`` of one prompt set;
    ``prompt_std``, the standard deviation of the accuracies (N - 1), and ``prompt_range``, best minus worst, in
    percentage points; ``prompt_agreement``, the share of readable images that two prompt sets put into the same class,
    mean over pairs of sets. An unreadable image is wrong under every prompt set.

    Items, one per image: ``key``, ``label``, ``right`` (how many prompt sets are right, None for an unreadable image);
    one per prompt set: ``prompt_sets``, ``set_accuracy``, ``set_prompts`` (prompts of the first class).

    Args:
        dataset: Images with one label each.
        prompt_sets: Name -> templates with ``{}``, or whole prompts by class name; at least two.
        metric: The accuracy.
        ensemble: How the prompts of a class make one score.
        kinds: ``"metrics"``: the accuracy of every prompt set is a metric; ``"items"``: they are in the items only.

    Source: the prompt regimes of Hyper3-CLIP (arXiv 2608.29313), table 6.
    """

    dataset: ClassificationSet
    prompt_sets: Mapping[str, Sequence[str] | Mapping[str, Sequence[str]]]
    _: KW_ONLY
    metric: Accuracy = "mean_per_class_accuracy"
    ensemble: Ensemble = "model"
    kinds: Kinds = "metrics"

    main_metric = "accuracy_mean"

    def __post_init__(self) -> None:
        one_of("metric", self.metric, Accuracy)
        one_of("ensemble", self.ensemble, Ensemble)
        one_of("kinds", self.kinds, Kinds)
        check_set(self.dataset, ClassificationSet)
        if len(self.prompt_sets) < 2:
            raise ValueError(f"prompt_sets: got {list(self.prompt_sets)}; expected at least two.")
        if is_multi_label(cast(Sequence[Label], self.dataset.labels)):
            raise ValueError("dataset: its images have several labels; expected one label an image.")
        self._prompts = {
            name: class_prompts(prompts, self.dataset.classes) for name, prompts in self.prompt_sets.items()
        }

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        data, count = self.dataset, len(self.dataset.classes)
        check_labels(data.labels, data.keys, num_classes=count)
        labels = [classes_of(label)[0] for label in cast(Sequence[Label], data.labels)]
        # Prompt sets share prompts: each text is encoded once.
        texts = list(dict.fromkeys(text for own in self._prompts.values() for mine in own for text in mine))
        row = {text: i for i, text in enumerate(texts)}
        features = encoder.encode_texts(texts, stage="features", label="prompts")
        images = encoder.encode_images(images_of(data), transform=ResizeCenterCrop.of(model))
        predicted = {
            name: self._predict(model, images, [features[[row[text] for text in mine]] for mine in own])
            for name, own in self._prompts.items()
        }
        result = EvaluationResult(
            meta={
                "images": len(labels),
                "classes": count,
                "prompts": len(texts),
                "metric": self.metric,
                "ensemble": self.ensemble,
            }
        )
        self._add(result, predicted, labels)
        return result

    def _predict(
        self, model: EvaluableModel, images: EncodedImages, prompts: list[Tensor]
    ) -> list[int | None]:
        """The best class of each image; None for one that cannot be read."""
        predicted: list[int | None] = [None] * len(self.dataset)

        def use(indices: Tensor, scores: Tensor) -> None:
            best = ranking.rank_keys(scores, 1)[:, 0]
            for i, c in zip(indices.tolist(), best.tolist(), strict=True):
                predicted[i] = c

        score_classes(model, images, prompts, use, ensemble=self.ensemble)
        return predicted

    def _add(
        self, result: EvaluationResult, predicted: Mapping[str, list[int | None]], labels: list[int]
    ) -> None:
        """Add metrics and items."""
        chance = ranking.accuracy_chance(len(self.dataset.classes))
        hits = {
            name: [100.0 * (guess == truth) for guess, truth in zip(guesses, labels, strict=True)]
            for name, guesses in predicted.items()
        }
        means = [fsum(values) / len(values) for values in zip(*hits.values(), strict=True)]
        result.add_mean("accuracy_mean", *self._groups(means, labels), chance=chance)
        accuracies = []
        for name, values in hits.items():
            one = EvaluationResult()
            one.add_mean(f"accuracy_{name}", *self._groups(values, labels), chance=chance)
            accuracies.append(one.metrics[f"accuracy_{name}"])
            if self.kinds == "metrics":
                result.metrics |= one.metrics
                result.samples |= one.samples
                result.strata |= one.strata
        readable = [i for i, guess in enumerate(next(iter(predicted.values()))) if guess is not None]
        agreeing = [
            fsum(one[i] == other[i] for i in readable) / max(1, len(readable))
            for one, other in combinations(predicted.values(), 2)
        ]
        result.metrics |= {
            "accuracy_best": max(accuracies),
            "accuracy_best_chance": chance,
            "accuracy_worst": min(accuracies),
            "accuracy_worst_chance": chance,
            "prompt_std": statistics.stdev(accuracies),
            "prompt_range": max(accuracies) - min(accuracies),
            "prompt_agreement": 100.0 * fsum(agreeing) / len(agreeing),
        }
        readable_ones = set(readable)
        result.items = {
            "key": list(self.dataset.keys),
            "label": labels,
            "right": [
                sum(values[i] > 0 for values in hits.values()) if i in readable_ones else None
                for i in range(len(labels))
            ],
            "prompt_sets": list(hits),
            "set_accuracy": accuracies,
            "set_prompts": [len(own[0]) for own in self._prompts.values()],
        }

    def _groups(self, values: Sequence[float], labels: Sequence[int]) -> list[list[float]]:
        """Values by class for the mean per class, else all together."""
        if self.metric == "top1_accuracy":
            return [list(values)]
        of_class: dict[int, list[float]] = {}
        for value, label in zip(values, labels, strict=True):
            of_class.setdefault(label, []).append(value)
        return list(of_class.values())
