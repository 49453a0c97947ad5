"""Zero-shot classification: the class whose prompts are closest to the picture, by the model's own score."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hypvl.data.tokenizer import get_tokenizer
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.errors import DataError
from hypvl.evaluation.datasets.prompts import class_prompts, generic_templates
from hypvl.evaluation.features import Encoding, check_scores, encode_images, encode_texts, evaluating
from hypvl.evaluation.metrics import ranking
from hypvl.evaluation.protocol import (
    ClassificationSet,
    EvaluableModel,
    EvaluationResult,
    Evaluator,
    Tokenizer,
)

# Scores of a block of pictures against every prompt: what a model that keeps each prompt needs at once.
_BLOCK_ELEMENTS = 1 << 24
_MAX_BLOCK = 1024


class ZeroShotClassification(Evaluator):
    """Accuracy of naming pictures through prompts.

    Pictures are resized (shorter side, bicubic) and cropped in the centre. Every prompt of every class is
    encoded once; how the prompts of a class make one score is the model's affair (``class_scores``).

    Metrics, in percent, each with ``_chance`` beside it: ``mean_per_class_accuracy`` (the main one),
    ``top1_accuracy``, and ``top5_accuracy`` where there are more than 5 classes. A picture that cannot be read
    counts as wrong, and is counted in ``meta["unreadable"]``.

    Items, one per picture: ``key``, ``label``, ``predicted``, ``score`` (of the predicted class),
    ``label_rank``; the last three None for an unreadable picture.

    Args:
        dataset: Labelled pictures.
        prompts: Templates with ``{}`` or whole prompts by class name; None = those of the data set, and the
            generic ones for a set without.
        class_names: Names in place of the data set's.
        encoding: Batches, workers, precision.
        tokenizer: In place of hypvl's own, with the model's context length.

    Raises:
        ValueError: when the prompts or names do not fit the classes.
    """

    main_metric = "mean_per_class_accuracy"

    def __init__(
        self,
        dataset: ClassificationSet,
        prompts: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        *,
        class_names: Sequence[str] | None = None,
        encoding: Encoding | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self.dataset = dataset
        self.class_names = list(dataset.classes if class_names is None else class_names)
        if len(self.class_names) != len(dataset.classes):
            raise ValueError(
                f"class_names: got {len(self.class_names)}; expected {len(dataset.classes)}, one per class."
            )
        if prompts is None:
            prompts = generic_templates() if dataset.prompts is None else dataset.prompts
        self.prompts = class_prompts(prompts, self.class_names)
        self.encoding = Encoding() if encoding is None else encoding
        self.tokenizer = tokenizer

    def __call__(self, model: EvaluableModel) -> EvaluationResult:
        """Encode, score and count."""
        prompt_features = self._encode_prompts(model)
        images = encode_images(
            model,
            _Pictures(self.dataset),
            transform=ResizeCenterCrop(model.image_size),
            encoding=self.encoding,
        )
        labels = list(self.dataset.labels)
        self._check_labels(labels)
        predicted: list[int | None] = [None] * len(labels)
        score: list[float | None] = [None] * len(labels)
        rank: list[int | None] = [None] * len(labels)
        total = sum(len(features) for features in prompt_features)
        chunk = max(1, min(_MAX_BLOCK, _BLOCK_ELEMENTS // total))
        with evaluating(model) as device:
            on_device = [features.to(device) for features in prompt_features]
            parts = zip(images.embeddings.split(chunk), images.indices.split(chunk), strict=True)
            for embeddings, indices in parts:
                scores = model.class_scores(embeddings.to(device), on_device).cpu()  # (q, C)
                check_scores(scores)
                best = ranking.rank_keys(scores, 1)[:, 0]
                truth = torch.tensor([labels[i] for i in indices.tolist()])
                ranks = ranking.label_ranks(scores, truth)
                values = scores.gather(1, best[:, None])[:, 0]
                rows = zip(indices.tolist(), best.tolist(), values.tolist(), ranks.tolist(), strict=True)
                for i, name, value, place in rows:
                    predicted[i], score[i], rank[i] = name, value, place
        return EvaluationResult(
            metrics=self._metrics(predicted, rank, labels),
            items={
                "key": list(self.dataset.keys),
                "label": labels,
                "predicted": predicted,
                "score": score,
                "label_rank": rank,
            },
            meta={
                "images": len(labels),
                "classes": self.class_names,
                "classes_without_images": sorted(set(range(len(self.class_names))) - set(labels)),
                "prompts": len([text for texts in self.prompts for text in texts]),
                "prompts_of_first_class": self.prompts[0],
                "unreadable": len(images.bad),
                "unreadable_first": [reason for _, reason in images.bad[:10]],
                "main_metric": self.main_metric,
            },
        )

    def _encode_prompts(self, model: EvaluableModel) -> list[Tensor]:
        """Features of the prompts, one (P_c, D) per class."""
        tokenizer = get_tokenizer(model.context_length) if self.tokenizer is None else self.tokenizer
        texts = [text for texts in self.prompts for text in texts]
        features = encode_texts(
            model, texts, tokenizer=tokenizer, encoding=self.encoding, stage="features", label="prompts"
        )
        return list(features.split([len(texts) for texts in self.prompts]))

    def _check_labels(self, labels: list[int]) -> None:
        wrong = next((i for i, label in enumerate(labels) if not 0 <= label < len(self.class_names)), None)
        if wrong is not None:
            raise DataError(
                f"{self.dataset.keys[wrong]}: its label is {labels[wrong]}; expected 0 … "
                f"{len(self.class_names) - 1}, a class of this set."
            )

    def _metrics(
        self, predicted: list[int | None], ranks: list[int | None], labels: list[int]
    ) -> dict[str, float]:
        count = len(self.class_names)
        ks = (1, 5) if count > 5 else (1,)
        found = {
            "mean_per_class_accuracy": ranking.mean_per_class_accuracy(predicted, labels),
            # Over the classes that occur: a guess among all C names is right once in C whatever the class.
            "mean_per_class_accuracy_chance": ranking.accuracy_chance(count),
        }
        for k, value in ranking.recall_from_ranks(ranks, ks).items():
            found[f"top{k}_accuracy"] = value
            found[f"top{k}_accuracy_chance"] = ranking.accuracy_chance(count, k=k)
        return found


class _Pictures:
    """The pictures of a classification set, without their labels."""

    def __init__(self, dataset: ClassificationSet) -> None:
        self.dataset = dataset

    @property
    def ids(self) -> Sequence[str] | None:
        return getattr(self.dataset, "ids", None)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Tensor:
        return self.dataset[index][0]
