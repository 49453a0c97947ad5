"""Word similarity: rank correlation of the scores of pairs of words in a sentence with people's ratings."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.datasets.classification.prompts import class_prompts, imagenet_templates
from hypvl.datasets.protocol import check_set
from hypvl.datasets.text.pairs import SentencePairs
from hypvl.embedding.cosine import flat_embeddings
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel, check_embeddings, evaluating
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.evaluation.text.text_scores import refuse_constant, text_cosines, text_scores
from hypvl.metrics.correlation import spearman

Templates: TypeAlias = Literal["pooled", "averaged"]
_WORDS = 256  # pooled at once


@configurable("evaluate")
@dataclass
class WordSimilarity(Evaluator):
    """100 x Spearman's correlation of scores with gold scores, of words that stand in prompts.

    Metrics: ``spearman`` by the model's own score of two texts, ``cosine_spearman`` by the cosine of flat embeddings.

    Items, one per pair: ``first``, ``second``, ``gold``, and ``score`` and ``cosine``, each the mean over prompts.

    Args:
        prompts: Templates with ``{}``, filled with both words of a pair; None = the 80 of ImageNet.
        templates: ``pooled``: each pair with each of P templates is a row, and the correlation is over all P N rows, as
            published. ``averaged``: one embedding a word, pooled over templates as for the prompts of a class
            (``model.pool``), and N rows.

    Raises:
        UserError: when all scores are equal.

    Source: the evaluation of ITRA.
    """

    dataset: SentencePairs
    _: KW_ONLY
    prompts: Sequence[str] | None = None
    templates: Templates = "pooled"

    main_metric = "spearman"

    def __post_init__(self) -> None:
        one_of("templates", self.templates, Templates)
        check_set(self.dataset, SentencePairs)
        self._words = list(dict.fromkeys([*self.dataset.first, *self.dataset.second]))
        given = imagenet_templates() if self.prompts is None else self.prompts
        self._prompts = class_prompts(given, self._words)  # P for each word

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        data, number = self.dataset, {word: i for i, word in enumerate(self._words)}
        embeddings = self._embeddings(model, encoder)  # (words, P, D), or (words, 1, D)
        prompts = embeddings.shape[1]
        vectors = flat_embeddings(model, embeddings.flatten(0, 1)).unflatten(0, embeddings.shape[:2])
        first = [number[word] for word in data.first]
        second = [number[word] for word in data.second]
        values = {
            "": text_scores(model, embeddings[first].flatten(0, 1), embeddings[second].flatten(0, 1)),
            "cosine_": text_cosines(vectors[first].flatten(0, 1), vectors[second].flatten(0, 1)),
        }  # pair by pair, P numbers each
        gold = [score for score in data.gold for _ in range(prompts)]
        metrics = {}
        for prefix, scores in values.items():
            refuse_constant(scores, cosines=bool(prefix), of=data.name)
            metrics[f"{prefix}spearman"] = 100.0 * spearman(scores, gold)
        score, cosine = (torch.tensor(own).view(-1, prompts).mean(1).tolist() for own in values.values())
        return EvaluationResult(
            metrics,
            items={
                "first": list(data.first),
                "second": list(data.second),
                "gold": list(data.gold),
                "score": score,
                "cosine": cosine,
            },
            meta={"pairs": len(data.gold), "prompts": len(self._prompts[0]), "templates": self.templates},
        )

    def _embeddings(self, model: EvaluableModel, encoder: CachedEncoder) -> Tensor:
        texts = [prompt for own in self._prompts for prompt in own]
        stage: Literal["embeddings", "features"] = "embeddings" if self.templates == "pooled" else "features"
        rows = encoder.encode_texts(texts, stage=stage, label=self.dataset.name)
        check_embeddings(rows)
        rows = rows.unflatten(0, (len(self._words), -1))  # (words, P, D)
        if stage == "embeddings":
            return rows
        with evaluating(model) as device:
            blocks = [model.pool(block.to(device), modality="text").cpu() for block in rows.split(_WORDS)]
        return torch.cat(blocks)[:, None]
