"""Compositionality by groups of two images and two captions with the same words or objects, combined differently."""

from dataclasses import KW_ONLY, dataclass
from typing import TypeAlias

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.datasets.composition.choices import Groups
from hypvl.datasets.protocol import check_set
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.pair_scorer import PairScorer
from hypvl.embedding.protocol import EvaluableModel
from hypvl.embedding.search import pair_scores
from hypvl.evaluation.candidate_scores import CandidateScoring, joint_scores
from hypvl.evaluation.protocol import EvaluationResult
from hypvl.metrics.choices import GROUP_CHANCE, group_hits, margins

#: Groups whose images can be read; scores of each image with both captions, and of each caption with both images.
GroupScores: TypeAlias = tuple[list[int], list[list[float]], list[list[float]]]


@configurable("evaluate")
@dataclass
class CaptionGroups(CandidateScoring):
    """Text, image and group score of groups of two images and two captions, by the model's own score.

    Metrics, in percent: ``text_score``, groups in which both images score their own caption higher;
    ``image_score``, both captions score their own image higher; ``group_score``, both; and each as
    ``<score>_<kind>`` of every kind, with ``_chance`` (25, 25, 16.7). A tie is a miss; so is a group with an
    unreadable image. The query of the text score is the image, that of the image score the caption, which matters for
    models whose two directions differ.

    Items, one per group: ``key``, ``kinds``, ``text_margin`` and ``image_margin`` (score of the own item minus that
    of the other, the smaller one of the two queries; None for an unreadable image), ``group`` (whether it is a hit).

    Args:
        dataset: Groups, at least one.
        main_metric: The score to look at first; Cola and MMVP-VLM publish the ``image_score``.
        scored_by, pair_scorer: See :class:`~hypvl.evaluation.candidate_scores.CandidateScoring`; a pair has one score,
            whichever of the two is the query.

    Source: Winoground, Thrush et al. 2022 (arXiv 2204.03162), section 3.3.
    """

    dataset: Groups
    _: KW_ONLY
    main_metric: str = "group_score"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("main_metric", self.main_metric, [f"{name}_score" for name in GROUP_CHANCE])
        check_set(self.dataset, Groups)
        if not self.dataset.groups:
            raise ValueError("dataset: got no groups; expected at least one.")

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        groups = self.dataset.groups
        scorer = self.scorer(model)
        if scorer is None:
            whole, by_image, by_caption = self._by_embeddings(model, encoder)
        else:
            whole, by_image, by_caption = self._together(scorer, encoder)
        hits: list[dict[str, bool]] = [dict.fromkeys(GROUP_CHANCE, False) for _ in groups]
        text_margins: list[float | None] = [None] * len(groups)
        image_margins: list[float | None] = [None] * len(groups)
        for at, i in enumerate(whole):
            text, image = by_image[2 * at : 2 * at + 2], by_caption[2 * at : 2 * at + 2]
            hits[i] = group_hits(text, image)
            text_margins[i], image_margins[i] = float(margins(text).min()), float(margins(image).min())
        result = EvaluationResult(
            items={
                "key": [group.key for group in groups],
                "kinds": [list(group.kinds) for group in groups],
                "text_margin": text_margins,
                "image_margin": image_margins,
                "group": [hit["group"] for hit in hits],
            },
            meta={
                "images": len(self.dataset.images),
                "groups": len(groups),
                **self.scorer_meta(model),
                **self.dataset.meta,
            },
        )
        parts: dict[str, list[int]] = {"": list(range(len(groups)))}
        for kind in sorted({kind for group in groups for kind in group.kinds}):
            parts[f"_{kind}"] = [i for i, group in enumerate(groups) if kind in group.kinds]
        for suffix, mine in parts.items():
            for name, chance in GROUP_CHANCE.items():
                result.add_mean(f"{name}_score{suffix}", [100.0 * hits[i][name] for i in mine], chance=chance)
        return result

    def _by_embeddings(self, model: EvaluableModel, encoder: CachedEncoder) -> GroupScores:
        groups = self.dataset.groups
        texts = list(dict.fromkeys(text for group in groups for text in group.captions))
        row = {text: i for i, text in enumerate(texts)}
        captions = encoder.encode_texts(texts, label="captions")
        images = encoder.encode_images(self.dataset.images, transform=ResizeCenterCrop.of(model))
        place = {image: i for i, image in enumerate(images.indices.tolist())}
        whole = [i for i, group in enumerate(groups) if all(image in place for image in group.images)]
        image_rows = [place[image] for i in whole for image in groups[i].images]
        caption_rows = [row[text] for i in whole for text in groups[i].captions]
        # One row of pairs per query, two queries per group: image 0, image 1; caption 0, caption 1.
        by_image = pair_scores(
            model,
            images.embeddings[image_rows],
            captions,
            [caption_rows[at - at % 2 : at - at % 2 + 2] for at in range(len(image_rows))],
            query_modality="image",
            key_modality="text",
        )
        by_caption = pair_scores(
            model,
            captions[caption_rows],
            images.embeddings,
            [image_rows[at - at % 2 : at - at % 2 + 2] for at in range(len(caption_rows))],
            query_modality="text",
            key_modality="image",
        )
        return whole, by_image, by_caption

    def _together(self, scorer: PairScorer, encoder: CachedEncoder) -> GroupScores:
        groups = self.dataset.groups
        texts = list(dict.fromkeys(text for group in groups for text in group.captions))
        row = {text: i for i, text in enumerate(texts)}
        asked: dict[int, list[int]] = {}
        for group in groups:
            for image in group.images:
                own = asked.setdefault(image, [])
                own += [row[text] for text in group.captions if row[text] not in own]
        scored = joint_scores(scorer, encoder, self.dataset.images, texts, asked)
        score_of = {
            (image, text): score
            for image, scores in scored.items()
            for text, score in zip(asked[image], scores, strict=True)
        }
        whole = [i for i, group in enumerate(groups) if all(image in scored for image in group.images)]
        by_image: list[list[float]] = []
        by_caption: list[list[float]] = []
        for i in whole:
            images, captions = groups[i].images, [row[text] for text in groups[i].captions]
            by_image += [[score_of[image, text] for text in captions] for image in images]
            by_caption += [[score_of[image, text] for image in images] for text in captions]
        return whole, by_image, by_caption
