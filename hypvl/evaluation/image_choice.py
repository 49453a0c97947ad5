"""Compositionality: whether a caption scores its own image above others that it is false of."""

from dataclasses import KW_ONLY, dataclass

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.datasets.composition.choices import CaptionQueries
from hypvl.datasets.protocol import check_set
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel
from hypvl.evaluation.candidate_scores import CandidateScoring
from hypvl.evaluation.foil_accuracy import Kinds, add_choice_accuracies
from hypvl.evaluation.protocol import EvaluationResult
from hypvl.metrics.choices import Scored, choice_hits


@configurable("evaluate")
@dataclass
class ImageChoice(CandidateScoring):
    """Share of captions that score their own image above every false one, by the model's text-to-image score.

    Metrics, in percent: ``accuracy`` over all captions, ``accuracy_<kind>`` of each kind, and every published average
    of the set, the plain mean of the accuracies of its kinds; each with its ``_chance``. A tie is a miss; so is a
    caption one of whose images cannot be read.

    Items, one per caption: ``caption``, ``key`` of its image, ``kind``, ``margin`` (score of its image minus that of
    the best false one, None for an unreadable image), ``best_other`` (its key); one per kind: ``kinds``,
    ``kind_choices``, ``kind_accuracy``, ``kind_chance``.

    Args:
        dataset: Captions with true and false images, at least one.
        main_metric: ``accuracy`` or a published average of the set.
        kinds: ``"metrics"``: every kind is a metric; ``"items"``: kinds are in the items only, for sets with many.
        scored_by, pair_scorer: See :class:`~hypvl.evaluation.candidate_scores.CandidateScoring`.
    """

    dataset: CaptionQueries
    _: KW_ONLY
    main_metric: str = "accuracy"
    kinds: Kinds = "metrics"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_set(self.dataset, CaptionQueries)
        if not self.dataset.queries:
            raise ValueError("dataset: got no captions; expected at least one.")
        one_of("main_metric", self.main_metric, ["accuracy", *self.dataset.means])
        one_of("kinds", self.kinds, Kinds)

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        data, queries = self.dataset, self.dataset.queries
        answers = self.image_scores(
            model,
            encoder,
            data.images,
            [query.caption for query in queries],
            [(query.image, *query.others) for query in queries],
        )
        scored: list[Scored] = [None if one is None else (one[0], one[1:]) for one in answers]
        result = EvaluationResult(
            items={
                "caption": [query.caption for query in queries],
                "key": [data.keys[query.image] for query in queries],
                "kind": [query.kind for query in queries],
                "margin": [None if one is None else one[0] - max(one[1]) for one in scored],
                "best_other": [
                    None if one is None else data.keys[query.others[one[1].index(max(one[1]))]]
                    for one, query in zip(scored, queries, strict=True)
                ],
            },
            meta={
                "images": len(data.images),
                "captions": len(queries),
                **self.scorer_meta(model),
                **data.meta,
            },
        )
        of_kind: dict[str, list[int]] = {}
        for i, query in enumerate(queries):
            of_kind.setdefault(query.kind, []).append(i)
        add_choice_accuracies(
            result,
            choice_hits(scored),
            [len(query.others) for query in queries],
            dict(sorted(of_kind.items())),
            means=data.means,
            kinds=self.kinds,
        )
        return result
