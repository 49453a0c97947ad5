"""Correlation of the scores of captions with people's ratings of the captions."""

from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.datasets.protocol import check_set
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel
from hypvl.errors import DataError, UserError
from hypvl.evaluation.clip_score import PREFIX, CaptionSet, score_captions
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.metrics.correlation import kendall_tau, pearson


@configurable("evaluate")
@dataclass
class CaptionCorrelation(Evaluator):
    """Kendall's tau-b and tau-c and Pearson's r of each score of :func:`score_captions` with the ratings, times 100.

    Metrics: ``<score>_kendall_b``, ``<score>_kendall_c``, ``<score>_pearson`` for ``clip_score``, ``pac_score``,
    ``i0t_score``, each with ``ref_`` where there are references, and ``model_score``. One row per rating, as published.
    A score that is constant over the captions has no correlation: its metrics are missing, ``meta["warnings"]`` says
    so, and ``meta["main_metric"]`` names another metric where necessary. Rows of unreadable images are left out;
    ``meta["rows"]`` counts the rest, ``meta["unreadable"]`` the images.

    Items, one per remaining row: ``key`` of the image, ``caption``, ``rating``, and each score.

    Args:
        kendall: Variant of the main metric; published: c for Flickr8k-Expert, b for Flickr8k-CF.
        prefix: Put before captions and references.

    Raises:
        DataError: when the captions have no ratings.

    Source: CLIPScore, Hessel et al. 2021 (arXiv 2104.08718), section 4.
    """

    dataset: CaptionSet
    _: KW_ONLY
    kendall: Literal["b", "c"] = "c"
    prefix: str = PREFIX

    def __post_init__(self) -> None:
        one_of("kendall", self.kendall, Literal["b", "c"])
        check_set(self.dataset, CaptionSet)
        if self.dataset.ratings is None:
            raise DataError("captions: have no ratings; expected some to correlate scores with.")
        self._ratings = self.dataset.ratings
        self.main_metric = f"clip_score_kendall_{self.kendall}"

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        data = self.dataset
        scored = score_captions(encoder, data, prefix=self.prefix)
        ratings = [self._ratings[row] for row in scored.rows]
        if len(set(ratings)) < 2:
            raise DataError(
                f"captions: all {len(ratings)} ratings of readable images are {ratings[0]:g}; expected several."
            )
        metrics: dict[str, float] = {}
        meta: dict[str, Any] = {**scored.meta, "rows": len(scored.rows)}
        for name, scores in scored.scores.items():
            if len(set(scores)) < 2:
                meta["warnings"] = [
                    *meta.get("warnings", []),
                    f"{name} is {scores[0]:g} for all {len(scores)} captions; a constant has no correlation.",
                ]
                continue
            metrics[f"{name}_kendall_b"] = 100.0 * kendall_tau(scores, ratings, variant="b")
            metrics[f"{name}_kendall_c"] = 100.0 * kendall_tau(scores, ratings, variant="c")
            metrics[f"{name}_pearson"] = 100.0 * pearson(scores, ratings)
        if not metrics:
            raise UserError(
                "the model's scores: each is the same for all captions, and a constant has no correlation; use a "
                "model that distinguishes captions."
            )
        if self.main_metric not in metrics:
            meta["main_metric"] = next(iter(metrics))
        return EvaluationResult(
            metrics=metrics,
            items={
                "key": [data.keys[data.image[row]] for row in scored.rows],
                "caption": [data.captions[row] for row in scored.rows],
                "rating": ratings,
                **scored.scores,
            },
            meta=meta,
        )
