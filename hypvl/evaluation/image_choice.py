"""Compositionality: whether a caption scores its own image above others that it is false of."""

from dataclasses import KW_ONLY, dataclass

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.datasets.composition.choices import CaptionQueries
from hypvl.datasets.protocol import check_set
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.pair_scorer import PairScorer
from hypvl.embedding.protocol import EvaluableModel
from hypvl.embedding.search import pair_scores
from hypvl.evaluation.candidate_scores import CandidateScoring, joint_scores
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
        scorer = self.scorer(model)
        scored = (
            self._by_embeddings(model, encoder) if scorer is None else self._by_pair_scorer(scorer, encoder)
        )
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

    def _by_embeddings(self, model: EvaluableModel, encoder: CachedEncoder) -> list[Scored]:
        """Scores of each caption with its images; None where one of them cannot be read."""
        queries, (texts, row) = self.dataset.queries, self._texts()
        captions = encoder.encode_texts(texts, label="captions")
        images = encoder.encode_images(self.dataset.images, transform=ResizeCenterCrop.of(model))
        place = {image: i for i, image in enumerate(images.indices.tolist())}
        candidates = [(query.image, *query.others) for query in queries]
        whole = [i for i, mine in enumerate(candidates) if all(image in place for image in mine)]
        answers = pair_scores(
            model,
            captions[[row[queries[i].caption] for i in whole]],
            images.embeddings,
            [[place[image] for image in candidates[i]] for i in whole],
            query_modality="text",
            key_modality="image",
        )
        scored: list[Scored] = [None] * len(queries)
        for i, (own, *others) in zip(whole, answers, strict=True):
            scored[i] = (own, others)
        return scored

    def _by_pair_scorer(self, scorer: PairScorer, encoder: CachedEncoder) -> list[Scored]:
        """The same by a scorer of images and texts together."""
        queries, (texts, row) = self.dataset.queries, self._texts()
        asked: dict[int, dict[int, None]] = {}  # image -> captions, each once
        for query in queries:
            for image in (query.image, *query.others):
                asked.setdefault(image, {})[row[query.caption]] = None
        rows = {image: list(mine) for image, mine in asked.items()}
        answers = joint_scores(scorer, encoder, self.dataset.images, texts, rows)
        score = {
            (image, text): value
            for image, values in answers.items()
            for text, value in zip(rows[image], values, strict=True)
        }
        scored: list[Scored] = []
        for query in queries:
            text = row[query.caption]
            own, *others = (score.get((image, text)) for image in (query.image, *query.others))
            known = [value for value in others if value is not None]
            scored.append(None if own is None or len(known) < len(others) else (own, known))
        return scored

    def _texts(self) -> tuple[list[str], dict[str, int]]:
        """The captions, each once, and the place of each."""
        texts = list(dict.fromkeys(query.caption for query in self.dataset.queries))
        return texts, {text: i for i, text in enumerate(texts)}
