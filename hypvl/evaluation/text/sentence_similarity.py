"""Semantic textual similarity: rank correlation of the scores of pairs of sentences with people's ratings."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from statistics import fmean
from typing import Any

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.datasets.protocol import check_set
from hypvl.datasets.text.pairs import SentencePairs
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel, Stage
from hypvl.errors import DataError
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.evaluation.text.text_scores import encode_distinct, refuse_constant, text_cosines, text_scores
from hypvl.metrics.sentences import aggregate_correlations


@configurable("evaluate")
@dataclass
class SentenceSimilarity(Evaluator):
    """100 x Spearman's correlation of scores with gold scores, by the model's own score and by cosine.

    Metrics, each also with ``cosine_`` in front for the cosine: ``spearman`` over all pairs (the published number of
    STS12 to STS16 is ``cosine_spearman``); for sets of several subsets ``spearman_mean`` and ``spearman_wmean`` (mean
    over subsets, weighted by their sizes) and ``spearman_<subset>``. ``cosine_pearson``: Pearson's, of cosines only,
    since the scale of a model's own score is arbitrary.

    Items, one per pair: ``first``, ``second``, ``subset``, ``gold``, ``score``, ``cosine``.

    Args:
        stage: Stage of the model whose rows cosines are taken of; ``trunk`` for text encoders whose head is only used
            in training (SimCSE). The model's own score is always of the embeddings.

    Raises:
        DataError: when all gold scores of a subset are equal.
        UserError: when all scores of a subset are.

    Source: SentEval (Conneau and Kiela 2018, arXiv 1803.05449); SimCSE (Gao et al. 2021, arXiv 2104.08821), appendix B.
    """

    dataset: SentencePairs
    _: KW_ONLY
    stage: Stage = "embeddings"

    main_metric = "spearman"

    def __post_init__(self) -> None:
        one_of("stage", self.stage, Stage)
        _check(self.dataset, "dataset")

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        return _measure(model, encoder, self.dataset, stage=self.stage)


@configurable("evaluate")
@dataclass
class SentenceSimilarityAverage(Evaluator):
    """The metrics of :class:`SentenceSimilarity` for several sets, and the average over the sets.

    Metrics: ``average_spearman`` and ``average_cosine_spearman``, plain means; ``average_spearman_rounded`` and
    ``average_cosine_spearman_rounded``, as published: the mean of numbers that were rounded to 2 decimals, rounded
    likewise. ``<set>_spearman`` and so on of each set. No items.

    Args:
        datasets: Name -> set.
        stage: As there.

    Source: SimCSE (Gao et al. 2021, arXiv 2104.08821), table 5: STS12 to STS16, STS-B, SICK-R.
    """

    datasets: Mapping[str, SentencePairs]
    _: KW_ONLY
    stage: Stage = "embeddings"

    main_metric = "average_spearman"

    def __post_init__(self) -> None:
        one_of("stage", self.stage, Stage)
        if not self.datasets:
            raise ValueError("datasets: got none; expected at least one set.")
        for name, pairs in self.datasets.items():
            _check(pairs, f"datasets.{name}")

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        metrics: dict[str, float] = {}
        meta: dict[str, Any] = {"pairs": {}}
        for name, pairs in self.datasets.items():
            result = _measure(model, encoder, pairs, stage=self.stage)
            metrics |= {f"{name}_{metric}": value for metric, value in result.metrics.items()}
            meta["pairs"][name] = result.meta["pairs"]
            meta["warnings"] = [*meta.get("warnings", []), *result.meta.get("warnings", [])]
        averages: dict[str, float] = {}
        for kind in ("spearman", "cosine_spearman"):
            values = [metrics[f"{name}_{kind}"] for name in self.datasets]
            averages[f"average_{kind}"] = fmean(values)
            averages[f"average_{kind}_rounded"] = round(fmean(round(value, 2) for value in values), 2)
        return EvaluationResult({**averages, **metrics}, meta={**meta, "stage": self.stage})


def _check(pairs: SentencePairs, name: str) -> None:
    check_set(pairs, SentencePairs, name=name)
    for subset, rows in _subsets(pairs).items():
        if len({pairs.gold[row] for row in rows}) < 2:
            raise DataError(
                f"{name}: the {len(rows)} gold scores of {subset or pairs.name} are all {pairs.gold[rows[0]]:g}; "
                "expected different ones."
            )


def _subsets(pairs: SentencePairs) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, subset in enumerate(pairs.subset):
        rows.setdefault(subset, []).append(row)
    return rows


def _measure(
    model: EvaluableModel, encoder: CachedEncoder, pairs: SentencePairs, *, stage: Stage
) -> EvaluationResult:
    texts = [*pairs.first, *pairs.second]
    encoded = encode_distinct(encoder, texts, stage=stage, label=pairs.name)
    first, second = encoded.rows(pairs.first), encoded.rows(pairs.second)
    scores = {
        "": text_scores(model, encoded.embeddings[first], encoded.embeddings[second]),
        "cosine_": text_cosines(encoded.vectors[first], encoded.vectors[second]),
    }
    subsets = _subsets(pairs)
    metrics: dict[str, float] = {}
    for prefix, values in scores.items():
        given = {
            name: ([values[row] for row in rows], [pairs.gold[row] for row in rows])
            for name, rows in subsets.items()
        }
        for name, (own, _) in given.items():
            refuse_constant(own, cosines=bool(prefix), of=name or pairs.name)
        together = aggregate_correlations(given)
        metrics[f"{prefix}spearman"] = 100.0 * together["spearman_all"]
        if prefix:
            metrics[f"{prefix}pearson"] = 100.0 * together["pearson_all"]
        if len(subsets) > 1:
            metrics[f"{prefix}spearman_mean"] = 100.0 * together["spearman_mean"]
            metrics[f"{prefix}spearman_wmean"] = 100.0 * together["spearman_wmean"]
            for name, own_given in given.items():
                alone = aggregate_correlations({name: own_given})
                metrics[f"{prefix}spearman_{name}"] = 100.0 * alone["spearman_all"]
    return EvaluationResult(
        metrics,
        items={
            "first": list(pairs.first),
            "second": list(pairs.second),
            "subset": list(pairs.subset),
            "gold": list(pairs.gold),
            "score": scores[""],
            "cosine": scores["cosine_"],
        },
        meta={"pairs": len(pairs.gold), "stage": stage, **encoder.truncation(texts)},
    )
