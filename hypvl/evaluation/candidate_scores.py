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
from hypvl.embedding.search import pair_scores
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

    def image_scores(
        self,
        model: EvaluableModel,
        encoder: CachedEncoder,
        images: ImageSource,
        captions: Sequence[str],
        candidates: Sequence[Sequence[int]],
    ) -> list[list[float] | None]:
        """Scores of the candidate images of each caption, in their order; None where one of them cannot be read.

        Args:
            images: All images.
            captions: A caption may occur several times.
            candidates: Of each caption, positions in ``images``.
        """
        texts = list(dict.fromkeys(captions))
        row = {text: i for i, text in enumerate(texts)}
        scorer = self.scorer(model)
        if scorer is not None:
            asked: dict[int, dict[int, None]] = {}  # image -> captions, each once
            for caption, mine in zip(captions, candidates, strict=True):
                for image in mine:
                    asked.setdefault(image, {})[row[caption]] = None
            rows = {image: list(own) for image, own in asked.items()}
            answers = joint_scores(scorer, encoder, images, texts, rows)
            score = {
                (image, text): value
                for image, values in answers.items()
                for text, value in zip(rows[image], values, strict=True)
            }
            found = [
                [score.get((image, row[caption])) for image in mine]
                for caption, mine in zip(captions, candidates, strict=True)
            ]
            return [None if None in own else [value for value in own if value is not None] for own in found]
        queries = encoder.encode_texts(texts, label="captions")
        keys = encoder.encode_images(images, transform=ResizeCenterCrop.of(model))
        place = {image: i for i, image in enumerate(keys.indices.tolist())}
        whole = [i for i, mine in enumerate(candidates) if all(image in place for image in mine)]
        answered = pair_scores(
            model,
            queries[[row[captions[i]] for i in whole]],
            keys.embeddings,
            [[place[image] for image in candidates[i]] for i in whole],
            query_modality="text",
            key_modality="image",
        )
        scored: list[list[float] | None] = [None] * len(captions)
        for i, values in zip(whole, answered, strict=True):
            scored[i] = list(values)
        return scored


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
