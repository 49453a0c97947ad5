"""Scores of captions of images, with and without references: CLIPScore, PAC-S, I0T-S, and the model's own score."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.data.transforms import ResizeCenterCrop
from hypvl.datasets.protocol import ImageSource, check_set
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel, check_embeddings, evaluating
from hypvl.embedding.search import pair_scores
from hypvl.errors import DataError
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.metrics import captions as metric

PREFIX = "A photo depicts "
_CHUNK = 1024  # captions scored at once


class CaptionSet(Protocol):
    """Captions of images, one a row; see :class:`hypvl.datasets.candidate_captions.JudgedCaptions`."""

    @property
    def images(self) -> ImageSource: ...
    @property
    def keys(self) -> Sequence[str]: ...
    @property
    def image(self) -> Sequence[int]: ...
    @property
    def captions(self) -> Sequence[str]: ...
    @property
    def references(self) -> Sequence[Sequence[str]] | None: ...
    @property
    def ratings(self) -> Sequence[float] | None: ...
    @property
    def notes(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class ScoredCaptions:
    """Name -> score of each row of the set whose image can be read, and meta of the evaluation result."""

    rows: list[int]
    scores: dict[str, list[float]]
    meta: dict[str, Any]


def score_captions(encoder: CachedEncoder, data: CaptionSet, *, prefix: str = PREFIX) -> ScoredCaptions:
    """Score every caption whose image can be read.

    ``clip_score``, ``pac_score``: 2.5 and 2.0 times the cosine of image and caption, at least 0. ``i0t_score``: 2.0
    times the same cosine after the mean of its modality is subtracted from each embedding; the means are over the
    distinct images and the distinct captions of the set. ``ref_...``, where there are references: the harmonic mean
    with the largest cosine of the caption with a reference (at least 0). ``model_score``: the model's own score.

    Cosines are of flat embeddings (``geometry.flatten``): of unit vectors on the sphere, of tangent vectors at the root
    on a hyperboloid, where they depend on directions but not on radii. This carries the published metric over; the
    score that such a model was trained with is ``model_score``.

    Raises:
        UserError: when embeddings or scores of the model are no numbers.
        DataError: when a caption is of no image.
    """
    model = encoder.model
    candidates = list(dict.fromkeys(data.captions))
    references = [] if data.references is None else [text for own in data.references for text in own]
    texts = list(dict.fromkeys([*candidates, *references]))
    prompts = [prefix + text for text in texts]
    encoded = encoder.encode_texts(prompts, label="captions")
    transform = ResizeCenterCrop.of(model)  # as CLIP's own, which the published scores use
    images = encoder.encode_images(data.images, transform=transform)
    check_embeddings(encoded, images.embeddings)

    image_row = {image: row for row, image in enumerate(images.indices.tolist())}
    text_row = {text: row for row, text in enumerate(texts)}
    rows = [row for row, image in enumerate(data.image) if image in image_row]
    if not rows:
        raise DataError("captions: none is of an image that can be read; expected at least one.")
    # A caption that several people judged is scored once, so that its rows tie exactly.
    pairs = {(data.image[row], data.captions[row]): row for row in reversed(rows)}
    image_rows = torch.tensor([image_row[image] for image, _ in pairs])
    captions = torch.tensor([text_row[caption] for _, caption in pairs])
    own = None
    if data.references is not None:
        own = [[text_row[text] for text in data.references[row]] for row in pairs.values()]

    with evaluating(model) as device:
        flat_images = model.geometry.flatten(images.embeddings.to(device)).cpu().double()
        flat_texts = model.geometry.flatten(encoded.to(device)).cpu().double()
    meta = encoder.truncation(prompts)
    by_pair = _cosine_scores(flat_images, flat_texts, image_rows, captions, own, ("clip_score", "pac_score"))
    used, said = sorted(set(image_rows.tolist())), sorted(set(captions.tolist()))
    if len(used) > 1 and len(said) > 1:
        centred = (flat_images - flat_images[used].mean(0), flat_texts - flat_texts[said].mean(0))
        by_pair |= _cosine_scores(*centred, image_rows, captions, own, ("i0t_score",))
    else:
        meta.setdefault("warnings", []).append(
            f"no i0t_score: there are {len(used)} images and {len(said)} different captions, and "
            "subtracting the mean of one leaves nothing."
        )
    by_pair["model_score"] = _model_scores(model, images.embeddings, encoded, image_rows, captions)
    place = {pair: i for i, pair in enumerate(pairs)}
    where = [place[data.image[row], data.captions[row]] for row in rows]
    scores = {name: [values[i] for i in where] for name, values in by_pair.items()}
    meta |= {"captions": len(data.captions), "distinct_pairs": len(pairs), "images": len(data.images)}
    return ScoredCaptions(rows, scores, {**meta, "prefix": prefix, **data.notes})


_WEIGHTS = {
    "clip_score": metric.CLIP_SCORE_WEIGHT,
    "pac_score": metric.PAC_SCORE_WEIGHT,
    "i0t_score": metric.I0T_SCORE_WEIGHT,
}


def _cosine_scores(
    images: Tensor,
    texts: Tensor,
    image_rows: Tensor,
    captions: Tensor,
    references: Sequence[Sequence[int]] | None,
    names: Sequence[str],
) -> dict[str, list[float]]:
    """The named scores of some pairs (rows of images, rows of texts), with and without references."""
    scores: dict[str, list[float]] = {}
    for name in names:
        scores[name] = []
        if references is not None:
            scores[f"ref_{name}"] = []
    for begin in range(0, len(image_rows), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        candidate = texts[captions[part]]
        reference = None
        if references is not None:
            reference = metric.reference_cosine(candidate, [texts[own] for own in references[part]])
        for name in names:
            score = metric.caption_score(images[image_rows[part]], candidate, weight=_WEIGHTS[name])
            scores[name] += score.tolist()
            if reference is not None:
                scores[f"ref_{name}"] += metric.reference_augmented(score, reference).tolist()
    return scores


def _model_scores(
    model: EvaluableModel, images: Tensor, texts: Tensor, image_rows: Tensor, captions: Tensor
) -> list[float]:
    asked: list[list[int]] = [[] for _ in range(len(images))]
    for image_row, caption in zip(image_rows.tolist(), captions.tolist(), strict=True):
        asked[image_row].append(caption)
    scored = pair_scores(model, images, texts, asked, query_modality="image", key_modality="text")
    turn = [iter(own) for own in scored]
    return [next(turn[image_row]) for image_row in image_rows.tolist()]


@configurable("evaluate")
@dataclass
class CaptionScores(Evaluator):
    """Mean scores of captions, each also per caption.

    Metrics: the means of :func:`score_captions`, in their own units (not percent), over the captions whose image can
    be read; ``meta["unreadable"]`` counts the others' images. Items, one per caption: ``key`` of the image,
    ``caption``, and each score.

    Args:
        prefix: Put before captions and references.
    """

    dataset: CaptionSet
    _: KW_ONLY
    prefix: str = PREFIX

    main_metric = "clip_score"

    def __post_init__(self) -> None:
        check_set(self.dataset, CaptionSet)

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        data = self.dataset
        scored = score_captions(encoder, data, prefix=self.prefix)
        return EvaluationResult(
            metrics={name: sum(values) / len(values) for name, values in scored.scores.items()},
            items={
                "key": [data.keys[data.image[row]] for row in scored.rows],
                "caption": [data.captions[row] for row in scored.rows],
                **scored.scores,
            },
            meta=scored.meta,
            samples=dict(scored.scores),
        )
