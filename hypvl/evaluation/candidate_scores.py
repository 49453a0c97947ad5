"""Scores of chosen texts for images: of their embeddings, or of a scorer that sees image and text together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from hypvl.checks import one_of
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.datasets.protocol import ImageSource
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.pair_scorer import PairScorer, own_pair_scorer, score_inputs
from hypvl.embedding.protocol import EvaluableModel
from hypvl.evaluation.protocol import Evaluator

ScoredBy: TypeAlias = Literal["embeddings", "pair_scorer"]


@dataclass(kw_only=True)
class CandidateScoring(Evaluator):
    """An evaluator that may leave the scores of images and texts to a pair scorer.

    Args:
        scored_by: ``"embeddings"``: the model's score of two embeddings. ``"pair_scorer"``: every pair of an image and
            a text that is asked for, scored together; ``meta["pair_scorer"]`` names the scorer.
        pair_scorer: The scorer; None = the model's own.
    """

    scored_by: ScoredBy = "embeddings"
    pair_scorer: PairScorer | None = None

    def __post_init__(self) -> None:
        one_of("scored_by", self.scored_by, ScoredBy)

    def scorer(self, model: EvaluableModel) -> PairScorer | None:
        """The pair scorer; None where embeddings score. UserError for a model without one."""
        if self.scored_by == "embeddings":
            return None
        return own_pair_scorer(model, asked_by="scored_by") if self.pair_scorer is None else self.pair_scorer

    def scorer_meta(self, model: EvaluableModel) -> dict[str, Any]:
        """What a result says about it."""
        scorer = self.scorer(model)
        return {} if scorer is None else {"pair_scorer": scorer.name}


def joint_scores(
    scorer: PairScorer,
    encoder: CachedEncoder,
    images: ImageSource,
    texts: Sequence[str],
    asked: Mapping[int, Sequence[int]],
) -> dict[int, list[float]]:
    """Position of each readable image -> its scores with the texts asked for; the others go to ``encoder.unreadable``.

    Args: as :func:`hypvl.embedding.pair_scorer.score_inputs`.
    """
    scored, bad = score_inputs(
        scorer, images, texts, asked, transform=ResizeCenterCrop.of(scorer), encoding=encoder.encoding
    )
    encoder.unreadable += bad
    return scored
