"""Classification by the nearest training images: no training, no text."""

from dataclasses import KW_ONLY, dataclass
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import number, one_of, whole_number
from hypvl.datasets.protocol import ClassificationSet
from hypvl.embedding.cosine import ByCosine
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel, Stage
from hypvl.embedding.search import search
from hypvl.evaluation.class_metrics import add_accuracies
from hypvl.evaluation.labelled_images import (
    Label,
    classes_of,
    encode_labelled,
    is_multi_label,
    labelled_splits,
)
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.metrics import ranking
from hypvl.metrics.neighbours import neighbour_votes

Similarity: TypeAlias = Literal["cosine", "model"]


@configurable("evaluate")
@dataclass
class KNNClassification(Evaluator):
    """Accuracy of a vote of the k most similar training images.

    Images are resized (shorter side, bicubic) and cropped in the centre. Each neighbour votes for its class with
    weight exp(similarity / T); the class with the largest sum wins, the first of equal ones.

    Metrics, in percent, each with ``_chance`` beside it: ``top1_accuracy`` (the main one) and
    ``mean_per_class_accuracy``. An unreadable test image is wrong, an unreadable training image is left
    out; ``meta["unreadable"]`` counts both.

    Items, one per test image: ``key``, ``label``, ``predicted``, ``share`` of the votes for it, in [0, 1];
    the last two are None for an unreadable image.

    Args:
        train: Images that vote.
        test: Images to classify.
        validation: More images that vote (data sets come with a validation part cut from their training images).
        k: Number of neighbours; all images where there are fewer.
        temperature: T > 0, in units of the similarity.
        similarity: ``cosine`` of the rows of any stage, as published; ``model``: the model's own image-image score of
            its embeddings, which is what it ranks by (a Lorentz distance ranks by the inner product).
        stage: Stage of the model whose output is compared. None = ``trunk``, before the projection, as published; the
            model's own score takes ``embeddings`` only.
        query_chunk: Test images scored at once.
        key_chunk: Training images scored at once.

    Raises:
        ValueError: for settings that do not fit, or images with several labels.
        DataError: when the splits have different classes, or a label is not one of them.

    Source: Wu et al. 2018 (arXiv 1805.01978), section 3.4; ITRA (k = 20, T = 0.07).
    """

    train: ClassificationSet
    test: ClassificationSet
    _: KW_ONLY
    validation: ClassificationSet | None = None
    k: int = 20
    temperature: float = 0.07
    similarity: Similarity = "cosine"
    stage: Stage | None = None
    query_chunk: int = 512
    key_chunk: int = 4096

    main_metric = "top1_accuracy"

    def __post_init__(self) -> None:
        one_of("similarity", self.similarity, Similarity)
        whole_number("k", self.k, least=1)
        number("temperature", self.temperature, above=0)
        stage = self.stage
        if stage is None:
            stage = "trunk" if self.similarity == "cosine" else "embeddings"
        one_of("stage", stage, Stage)
        if self.similarity == "model" and stage != "embeddings":
            raise ValueError(f"stage: got {stage!r} for similarity='model'; expected 'embeddings'.")
        self._stage: Stage = stage
        self._images, self._test_images = labelled_splits(self.train, self.test, self.validation)
        if is_multi_label(self._images.labels) or is_multi_label(self._test_images.labels):
            raise ValueError(
                "labels: got several an image; expected one, since a neighbour votes for one class."
            )
        self._classes = list(self.test.classes)

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        train = encode_labelled(encoder, self._images, stage=self._stage, label="training images")
        test = encode_labelled(encoder, self._test_images, stage=self._stage, label="test images")
        compared = model if self.similarity == "model" else cast(EvaluableModel, ByCosine(model))
        similarity, columns = search(
            compared,
            test.features,
            train.features,
            k=self.k,
            query_modality="image",
            key_modality="image",
            query_chunk=self.query_chunk,
            key_chunk=self.key_chunk,
        )  # (n, k)
        votes = neighbour_votes(
            similarity - similarity[:, :1],  # the same order, and nothing too large or too small for exp
            _class_tensor([self._images.labels[i] for i in train.positions])[columns],
            num_classes=len(self._classes),
            temperature=self.temperature,
        )  # (n, C)
        best = ranking.rank_keys(votes, 1)
        labels = _class_tensor(self._test_images.labels).tolist()
        predicted: list[int | None] = [None] * len(labels)
        share: list[float | None] = [None] * len(labels)
        shares = (votes.gather(1, best)[:, 0] / votes.sum(1)).tolist()
        for i, guess, part in zip(test.positions, best[:, 0].tolist(), shares, strict=True):
            predicted[i], share[i] = guess, part
        result = EvaluationResult(
            items={"key": self._test_images.keys, "label": labels, "predicted": predicted, "share": share},
            meta={
                "images": len(labels),
                "training_images": len(self._images),
                "classes": self._classes,
                "k": self.k,
                "temperature": self.temperature,
                "similarity": self.similarity,
                "stage": self._stage,
                "unreadable_training": len(train.bad),
            },
        )
        add_accuracies(result, predicted, labels, classes=len(self._classes))
        return result


def _class_tensor(labels: list[Label]) -> Tensor:
    """(N,) int64."""
    return torch.tensor([classes_of(label)[0] for label in labels], dtype=torch.int64)
