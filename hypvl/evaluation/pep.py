"""Whether a caption's cone separates its own image from others: entailment as a score of true and false pairs."""

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import whole_number, whole_number_or_none
from hypvl.datasets.protocol import RetrievalSet, check_set
from hypvl.diagnostics.audit import derangement
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.pairs import encode_pairs
from hypvl.embedding.protocol import EvaluableModel, evaluating
from hypvl.embedding.search import pair_scores
from hypvl.errors import DataError
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.geometry.base import Geometry


@configurable("evaluate")
@dataclass
class EntailmentPairs(Evaluator):
    """Probability of entailment (PEP) of captions and images, true pairs against false ones.

    Three scores of a pair of caption a and image b: ``angle``, max(1 - 2 phi / pi, 0) with phi the exterior
    angle at a; ``margin``, -(phi - A), A the half aperture at a; and ``score``, the model's own score. In a product
    space the angles are means over the factors. A false pair is a caption with the image of another caption.

    Metrics, in percent: ``auroc_<way>`` (``auroc_angle`` is the main one; ties count half) with its ``_chance`` of 50,
    ``ap_<way>`` (average precision, tied pairs enter together) with its ``_chance``, the share of true pairs, and
    ``ties_<way>``, the share of true pairs whose value a false pair has too. Where the geometry has no cones there is
    only ``score``, and ``meta`` names its AUROC as the main metric.

    Items, one per pair: ``key`` of the image, ``caption``, ``true``, and ``angle``, ``margin``, ``score`` (None where
    there are no cones).

    Args:
        dataset: Images and captions; the first caption of each.
        negatives: False pairs for each true one, at least 1; each image is drawn equally often.
        limit: Largest number of images, at least 2, evenly spread; None = all.
        seed: Of the draw.
    """

    dataset: RetrievalSet
    _: KW_ONLY
    negatives: int = 5
    limit: int | None = 5000
    seed: int = 0

    main_metric = "auroc_angle"

    def __post_init__(self) -> None:
        whole_number("negatives", self.negatives, least=1)
        whole_number_or_none("limit", self.limit, least=2)
        check_set(self.dataset, RetrievalSet)

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        matched = encode_pairs(encoder, self.dataset, limit=self.limit, what="PEP")
        asked = self._pairs(matched.captions)
        texts = torch.tensor([text for text, mine in enumerate(asked) for _ in mine])
        images = torch.tensor([image for mine in asked for image in mine])
        true = texts == images
        if bool(true.all()):
            raise DataError("PEP: all captions are the same text, so that there is no false pair.")
        values: dict[str, Tensor] = {}
        with evaluating(model) as device:
            cones = entailment_scores(
                model.geometry, matched.texts[texts].to(device), matched.images[images].to(device)
            )
            if cones is not None:
                values["angle"], values["margin"] = (value.double().cpu() for value in cones)
        own = pair_scores(
            model, matched.texts, matched.images, asked, query_modality="text", key_modality="image"
        )
        values["score"] = torch.tensor([score for row in own for score in row], dtype=torch.float64)
        metrics: dict[str, float] = {}
        for way, value in values.items():
            metrics |= ranking_metrics(way, value, true)
        return EvaluationResult(
            metrics=metrics,
            items={
                "key": [matched.keys[image] for image in images.tolist()],
                "caption": [matched.captions[text] for text in texts.tolist()],
                "true": true.tolist(),
                **{
                    way: values[way].tolist() if way in values else [None] * len(true)
                    for way in ("angle", "margin", "score")
                },
            },
            meta={
                **matched.meta,
                "true_pairs": int(true.sum()),
                "false_pairs": int((~true).sum()),
                "cones": cones is not None,
                "seed": self.seed,
                **({} if cones is not None else {"main_metric": "auroc_score"}),
            },
        )

    def _pairs(self, captions: list[str]) -> list[list[int]]:
        """Images that each caption is paired with, its own first; never that of another caption with the same text."""
        generator = torch.Generator().manual_seed(self.seed)
        partners = [[i] for i in range(len(captions))]
        for _ in range(self.negatives):
            for text, image in enumerate(derangement(len(captions), generator=generator).tolist()):
                if captions[image] != captions[text] and image not in partners[text]:
                    partners[text].append(image)
        return partners


def entailment_scores(geometry: Geometry, general: Tensor, specific: Tensor) -> tuple[Tensor, Tensor] | None:
    """Degree to which ``general`` entails ``specific``, pair by pair: (N, D), (N, D) -> two (N,); None without cones.

    ``max(1 - 2 phi / pi, 0)`` in [0, 1] and ``A - phi`` in radians, the mean over the factors of a product.
    """
    if geometry.cones is None:
        return None
    cones = geometry.cones
    angle, aperture = cones.exterior_angle(general, specific), cones.half_aperture(general)
    return (1 - 2 * angle / math.pi).clamp(min=0).mean(-1), (aperture - angle).mean(-1)


def ranking_metrics(way: str, values: Tensor, true: Tensor) -> dict[str, float]:
    """``auroc_<way>``, ``ap_<way>`` and ``ties_<way>`` in percent, the first two with their chance levels.

    ``values`` of N pairs, higher = more likely true; ``true`` (N,) bool, both kinds among them.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    labels, numbers = true.numpy(), values.numpy()
    tied = torch.isin(values[true], values[~true]).double().mean()
    return {
        f"auroc_{way}": 100.0 * float(roc_auc_score(labels, numbers)),
        f"auroc_{way}_chance": 50.0,
        f"ap_{way}": 100.0 * float(average_precision_score(labels, numbers)),
        f"ap_{way}_chance": 100.0 * float(true.double().mean()),
        f"ties_{way}": 100.0 * float(tied),
    }
