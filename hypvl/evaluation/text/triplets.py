"""Triplets of sentences: is the anchor nearer to the positive than to the negative?"""

from dataclasses import dataclass
from typing import get_args

from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.datasets.protocol import check_set
from hypvl.datasets.text.triplets import SentenceTriplets
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel
from hypvl.embedding.search import pair_scores
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.evaluation.text.text_scores import encode_distinct
from hypvl.metrics.sentences import Distance, triplet_hits

_ROWS = 1 << 14  # triplets compared at once, in fp64
_CHUNK = 128  # triplets scored at once by the model


@configurable("evaluate")
@dataclass
class TripletAccuracy(Evaluator):
    """Percent of triplets whose positive is strictly closer to the anchor than the negative; a tie is a miss.

    Metrics: ``accuracy`` by the model's own score of two texts, ``cosine_accuracy``, ``euclidean_accuracy`` and
    ``manhattan_accuracy`` by distances of flat embeddings; each with its chance level, 50.

    Items, one per triplet: ``correct`` (by the model's own score), ``cosine_correct``.

    Source: Ein Dor et al. 2018.
    Differs: sentence-transformers 2.2.2 reports the largest of the last three.
    """

    dataset: SentenceTriplets

    main_metric = "accuracy"

    def __post_init__(self) -> None:
        check_set(self.dataset, SentenceTriplets)

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        data = self.dataset
        texts = [*data.anchor, *data.positive, *data.negative]
        encoded = encode_distinct(encoder, texts, stage="embeddings", label=data.name)
        rows = [encoded.rows(part) for part in (data.anchor, data.positive, data.negative)]
        asked = list(zip(rows[1].tolist(), rows[2].tolist(), strict=True))
        scores = pair_scores(
            model,
            encoded.embeddings[rows[0]],
            encoded.embeddings,
            asked,
            query_modality="text",
            key_modality="text",
            chunk=_CHUNK,
        )
        hits = {"": [positive > negative for positive, negative in scores]}
        for distance in get_args(Distance):
            hits[f"{distance}_"] = _hits(encoded.vectors, rows, distance)
        result = EvaluationResult(
            items={"correct": hits[""], "cosine_correct": hits["cosine_"]},
            meta={"triplets": len(data.anchor), **encoder.truncation(texts)},
        )
        for prefix, values in hits.items():
            result.add_mean(f"{prefix}accuracy", [100.0 * hit for hit in values], chance=50.0)
        return result


def _hits(vectors: Tensor, rows: list[Tensor], distance: Distance) -> list[bool]:
    hits: list[bool] = []
    for parts in zip(*(part.split(_ROWS) for part in rows), strict=True):
        anchor, positive, negative = (vectors[part].double() for part in parts)
        hits += triplet_hits(anchor, positive, negative, distance=distance).tolist()
    return hits
