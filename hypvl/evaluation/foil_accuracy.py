"""Compositionality: whether an image scores its true caption above false ones with a changed word or word order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from math import fsum, prod
from typing import Literal, TypeAlias

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.datasets.composition.choices import Choices, JointChoices
from hypvl.datasets.protocol import check_set
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel
from hypvl.embedding.search import pair_scores
from hypvl.evaluation.candidate_scores import CandidateScoring, joint_scores
from hypvl.evaluation.protocol import EvaluationResult
from hypvl.metrics.choices import Scored, choice_chance, choice_hits, detection
from hypvl.metrics.classification import roc_auc

Extra: TypeAlias = Literal["auroc", "threshold"]
Measure: TypeAlias = Callable[[Sequence[Scored]], dict[str, float]]
Kinds: TypeAlias = Literal["metrics", "items"]
#: Measures whose chance level is 50 %.
_EVEN = ("auroc", "acc")


@configurable("evaluate")
@dataclass
class CaptionChoice(CandidateScoring):
    """Share of choices in which the true caption scores above every false one, by the model's image-to-text score.

    Metrics, in percent: ``accuracy`` over all choices; ``accuracy_<kind>`` of each kind; every published average
    of the set (``macro_accuracy``, ...), the unweighted mean of the accuracies of its kinds; and where foils have
    kinds of their own ``pairwise_accuracy_<kind>``, the caption against these foils only. Each has its ``_chance``.
    A tie is a miss; so is an unreadable image. Where the set has choices that are right only together, each such metric
    (``pair_accuracy``, ...) is the share of these sets, its chance the product of theirs.

    ``extra`` adds, over all choices, per kind and per published average: ``auroc``, the area under the ROC curve of
    captions against foils of all readable images; and by ``threshold`` ``acc``, ``p_c``, ``p_f``, ``min_p``,
    ``precision`` and ``f1`` (see :func:`hypvl.metrics.choices.detection`).

    Items, one per choice: ``key`` of its image, ``kind``, ``margin`` (score of the caption minus that of the best
    foil, None for an unreadable image), ``best_foil`` (its text); one per kind: ``kinds``, ``kind_choices``,
    ``kind_accuracy``, ``kind_chance``.

    Args:
        dataset: Images with choices, at least one.
        main_metric: ``accuracy`` or a published average of the set.
        kinds: ``"metrics"``: every kind is a metric; ``"items"``: kinds are in the items only, for sets with many.
        extra: Additional measures.
        threshold: Score above which a text is predicted true, on the scale of the model's scores.
        scored_by, pair_scorer: See :class:`~hypvl.evaluation.candidate_scores.CandidateScoring`.

    Source: the pairwise accuracies of ARO (arXiv 2210.01936), VALSE (arXiv 2112.07566), VL-CheckList (arXiv
        2207.00221) and SugarCrepe (arXiv 2306.14610), which use the cosine. Differs: the model's own score.
    """

    dataset: Choices
    _: KW_ONLY
    main_metric: str = "accuracy"
    kinds: Kinds = "metrics"
    extra: Sequence[Extra] = ()
    threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_set(self.dataset, Choices)
        if not self.dataset.choices:
            raise ValueError("dataset: got no choices; expected at least one.")
        one_of("main_metric", self.main_metric, ["accuracy", *self.dataset.means])
        one_of("kinds", self.kinds, Kinds)
        for name in self.extra:
            one_of("extra", name, Extra)

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        data, choices = self.dataset, self.dataset.choices
        scored = self._scored(model, encoder)
        margins = [None if one is None else one[0] - max(one[1]) for one in scored]
        result = EvaluationResult(
            items={
                "key": [data.keys[choice.image] for choice in choices],
                "kind": [choice.kind for choice in choices],
                "margin": margins,
                "best_foil": [
                    None if one is None else choice.foils[one[1].index(max(one[1]))]
                    for one, choice in zip(scored, choices, strict=True)
                ],
            },
            meta={
                "images": len(data.images),
                "choices": len(choices),
                "foil_is_the_caption": sum(choice.caption in choice.foils for choice in choices),
                **self.scorer_meta(model),
                **data.meta,
            },
        )
        self._count(scored, result)
        self._count_foil_kinds(scored, result)
        known: dict[Extra, Measure] = {
            "auroc": _auroc,
            "threshold": partial(detection, threshold=self.threshold),
        }
        for name in self.extra:
            result.metrics |= self._everywhere(known[name], scored)
        return result

    def _scored(self, model: EvaluableModel, encoder: CachedEncoder) -> list[Scored]:
        """The scores of each choice; None where its image cannot be read."""
        choices = self.dataset.choices
        texts = list(dict.fromkeys(text for choice in choices for text in (choice.caption, *choice.foils)))
        row = {text: i for i, text in enumerate(texts)}
        of_image: dict[int, list[int]] = {}
        for i, choice in enumerate(choices):
            of_image.setdefault(choice.image, []).append(i)
        asked = {
            image: [row[text] for i in mine for text in (choices[i].caption, *choices[i].foils)]
            for image, mine in of_image.items()
        }
        scorer = self.scorer(model)
        if scorer is None:
            answers = self._by_embeddings(model, encoder, texts, asked)
        else:
            answers = joint_scores(scorer, encoder, self.dataset.images, texts, asked)
        scored: list[Scored] = [None] * len(choices)
        for image, scores in answers.items():
            rest = iter(scores)
            for i in of_image.get(image, []):
                own = next(rest)
                scored[i] = (own, [next(rest) for _ in choices[i].foils])
        return scored

    def _by_embeddings(
        self,
        model: EvaluableModel,
        encoder: CachedEncoder,
        texts: Sequence[str],
        asked: Mapping[int, Sequence[int]],
    ) -> dict[int, list[float]]:
        """Position of each readable image -> the scores of the texts asked for."""
        keys = encoder.encode_texts(texts, label="captions")
        images = encoder.encode_images(self.dataset.images, transform=ResizeCenterCrop.of(model))
        positions = images.indices.tolist()
        rows = [asked.get(image, []) for image in positions]
        answers = pair_scores(
            model, images.embeddings, keys, rows, query_modality="image", key_modality="text"
        )
        return dict(zip(positions, answers, strict=True))

    def _of_kind(self) -> dict[str, list[int]]:
        of_kind: dict[str, list[int]] = {}
        for i, choice in enumerate(self.dataset.choices):
            of_kind.setdefault(choice.kind, []).append(i)
        return dict(sorted(of_kind.items()))

    def _count(self, scored: Sequence[Scored], result: EvaluationResult) -> None:
        """Add accuracies, and the items of kinds, to the result."""
        foils = [len(choice.foils) for choice in self.dataset.choices]
        hits = choice_hits(scored)
        add_choice_accuracies(
            result, hits, foils, self._of_kind(), means=self.dataset.means, kinds=self.kinds
        )
        joint = self.dataset.joint if isinstance(self.dataset, JointChoices) else {}
        for name, sets in joint.items():
            together = [100.0 * all(hits[i] for i in mine) for mine in sets]
            chances = [100.0 * prod(1.0 / (1 + foils[i]) for i in mine) for mine in sets]
            result.add_mean(name, together, chance=fsum(chances) / len(chances))

    def _count_foil_kinds(self, scored: Sequence[Scored], result: EvaluationResult) -> None:
        """Add the accuracy of the caption against the foils of one kind at a time."""
        pairs: dict[str, list[Scored]] = {}
        for one, choice in zip(scored, self.dataset.choices, strict=True):
            for i, kind in enumerate(choice.foil_kinds):
                pairs.setdefault(kind, []).append(None if one is None else (one[0], [one[1][i]]))
        for kind, of_kind in sorted(pairs.items()):
            hits = [100.0 * hit for hit in choice_hits(of_kind)]
            result.add_mean(f"pairwise_accuracy_{kind}", hits, chance=50.0)

    def _everywhere(self, measure: Measure, scored: Sequence[Scored]) -> dict[str, float]:
        """A measure over all choices, as the published averages of kinds, and of each kind."""
        parts = {kind: measure([scored[i] for i in mine]) for kind, mine in self._of_kind().items()}
        metrics: dict[str, float] = {}
        for base, value in measure(scored).items():
            result = {base: value}
            of_kind = {kind: part[base] for kind, part in parts.items() if base in part}
            for mean, kinds in self.dataset.means.items():
                if set(kinds) <= set(of_kind):
                    result[mean.replace("accuracy", base)] = fsum(of_kind[kind] for kind in kinds) / len(
                        kinds
                    )
            if self.kinds == "metrics":
                result |= {f"{base}_{kind}": part for kind, part in of_kind.items()}
            metrics |= result
            if base in _EVEN:
                metrics |= {f"{name}_chance": 50.0 for name in result}
        return metrics


def add_choice_accuracies(
    result: EvaluationResult,
    hits: Sequence[bool],
    foils: Sequence[int],
    of_kind: Mapping[str, Sequence[int]],
    *,
    means: Mapping[str, Sequence[str]],
    kinds: Kinds,
) -> None:
    """Add ``accuracy``, published averages, accuracies of kinds with their chance levels, and items of kinds.

    Args:
        hits: Whether each of N choices is right.
        foils: How many false alternatives each has, at least 1.
        of_kind: Kind -> positions of its choices, at least one.
        means: Published average -> kinds of whose accuracies it is the plain mean.
        kinds: Whether accuracies of kinds are metrics, or in the items only.
    """
    one_of("kinds", kinds, Kinds)
    percent = [100.0 * hit for hit in hits]
    accuracies = {kind: fsum(percent[i] for i in mine) / len(mine) for kind, mine in of_kind.items()}
    chances = {kind: choice_chance([foils[i] for i in mine]) for kind, mine in of_kind.items()}
    result.add_mean("accuracy", percent, chance=choice_chance(foils))
    for name, own in means.items():
        groups = [[percent[i] for i in of_kind[kind]] for kind in own]
        result.add_mean(name, *groups, chance=fsum(chances[kind] for kind in own) / len(own))
    for kind, mine in of_kind.items() if kinds == "metrics" else ():
        result.add_mean(f"accuracy_{kind}", [percent[i] for i in mine], chance=chances[kind])
    result.items |= {
        "kinds": list(of_kind),
        "kind_choices": [len(mine) for mine in of_kind.values()],
        "kind_accuracy": list(accuracies.values()),
        "kind_chance": list(chances.values()),
    }


def _auroc(scored: Sequence[Scored]) -> dict[str, float]:
    """AUROC of the choices that have scores; nothing when none has."""
    readable = [one for one in scored if one is not None]
    if not readable:
        return {}
    scores = [score for one in readable for score in (one[0], *one[1])]
    true = [int(i == 0) for one in readable for i in range(1 + len(one[1]))]
    return {"auroc": roc_auc(scores, true)}
