"""Zero-shot classification that also writes class probabilities down."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.datasets.protocol import ClassificationSet
from hypvl.embedding.encode import Encoding
from hypvl.embedding.model_size import count_parameters
from hypvl.evaluation.probes.prediction_files import PredictionFiles
from hypvl.evaluation.probes.supervised import class_probabilities
from hypvl.evaluation.prompt_ensembling import Ensemble
from hypvl.evaluation.protocol import EvaluableModel, EvaluationResult, Tokenizer
from hypvl.evaluation.zero_shot import Metric, ZeroShotClassification

#: What a model's scores are multiplied with before the softmax, as published for cosines.
SCALE = 100.0


@configurable("evaluate")
class ZeroShotPredictions(ZeroShotClassification):
    """:class:`hypvl.evaluation.zero_shot.ZeroShotClassification`, with prediction files where a folder is named.

    Probabilities are the softmax of 100 times the model's scores; with several labels an image the sigmoid of each
    class' score, which keeps the order of images by class that mean average precision counts. Nothing is taken from
    or added to a store of embeddings while predictions are written.

    Args:
        dataset: Labelled images.
        prompts: As for zero-shot classification.
        class_names: Names in place of the data set's.
        ensemble: How the prompts of a class make one score; all but ``score_mean``.
        metric: The one to look at first.
        encoding: Batches, workers, precision.
        tokenizer: In place of hypvl's own.
        predictions: Where to write class probabilities; None = nowhere.

    Raises:
        ValueError: as zero-shot classification, and for the ensemble ``score_mean`` with predictions.
    """

    def __init__(
        self,
        dataset: ClassificationSet,
        prompts: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        *,
        class_names: Sequence[str] | None = None,
        ensemble: Ensemble = "model",
        metric: Metric | None = None,
        encoding: Encoding | None = None,
        tokenizer: Tokenizer | None = None,
        predictions: PredictionFiles | None = None,
    ) -> None:
        super().__init__(
            dataset,
            prompts,
            class_names=class_names,
            ensemble=ensemble,
            metric=metric,
            encoding=encoding,
            tokenizer=tokenizer,
        )
        self.predictions = None if predictions is None or predictions.folder is None else predictions
        if self.predictions is not None and ensemble == "score_mean":
            raise ValueError(
                "ensemble: got 'score_mean' with predictions; expected one that scores by class."
            )

    def __call__(self, model: EvaluableModel) -> EvaluationResult:
        """Evaluate, and write."""
        if self.predictions is None:
            return super().__call__(model)
        heard = _Listening(model)
        result = super().__call__(heard)
        missing = [i for i, found in enumerate(result.items["predicted"]) if found is None]
        gone = set(missing)
        scores = torch.cat(heard.scores_given).double()
        rows = torch.zeros(len(self.dataset), scores.shape[1], dtype=torch.float64)
        rows[[i for i in range(len(rows)) if i not in gone]] = class_probabilities(
            scores if self.multi_label else SCALE * scores, multi_label=self.multi_label
        )
        total, backbone = count_parameters(model, stage="embeddings")
        self.predictions.write(
            rows, missing=missing, shots=0, seed=0, trainable=0, total=total, backbone=backbone
        )
        return result


class _Listening:
    """A model that keeps the class scores it gives, in their order."""

    def __init__(self, model: EvaluableModel) -> None:
        self._model = model
        self.scores_given: list[Tensor] = []

    def class_scores(self, image_embeddings: Tensor, prompt_features: Sequence[Tensor]) -> Tensor:
        scores = self._model.class_scores(image_embeddings, prompt_features)
        self.scores_given.append(scores.cpu())
        return scores

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
