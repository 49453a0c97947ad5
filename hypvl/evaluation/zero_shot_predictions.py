"""Zero-shot classification that also writes class probabilities down."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, cast

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.model_size import count_parameters
from hypvl.embedding.protocol import EvaluableModel
from hypvl.evaluation.class_metrics import class_probabilities
from hypvl.evaluation.prediction_files import PredictionFiles
from hypvl.evaluation.protocol import EvaluationResult
from hypvl.evaluation.zero_shot import ZeroShotClassification

#: What a model's scores are multiplied with before the softmax, as published for cosines.
SCALE = 100.0


@configurable("evaluate")
@dataclass
class ZeroShotPredictions(ZeroShotClassification):
    """:class:`hypvl.evaluation.zero_shot.ZeroShotClassification`, with prediction files where a folder is named.

    Probabilities are the softmax of 100 times the model's scores; with several labels an image the sigmoid of each
    class' score, which keeps the order of images by class that mean average precision counts.

    Args:
        predictions: Where to write class probabilities; None = nowhere. The other arguments are those of zero-shot
            classification, all ensembles but ``score_mean``.

    Raises:
        ValueError: as zero-shot classification, and for the ensemble ``score_mean`` with predictions.
    """

    _: KW_ONLY
    predictions: PredictionFiles | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.predictions is not None and self.predictions.folder is None:
            self.predictions = None
        if self.predictions is not None and self.ensemble == "score_mean":
            raise ValueError(
                "ensemble: got 'score_mean' with predictions; expected one that scores by class."
            )

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        """Evaluate, and write."""
        if self.predictions is None:
            return super().measure(model, encoder)
        heard = _Listening(model)
        result = super().measure(cast(EvaluableModel, heard), encoder)
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
