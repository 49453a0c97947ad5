"""Whether a model uses its geometry: radii, cones, order, gap, shape of the embeddings, and a verdict."""

import math
from dataclasses import KW_ONLY, asdict, dataclass

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import whole_number, whole_number_or_none
from hypvl.datasets.protocol import RetrievalSet, check_set
from hypvl.diagnostics import audit, structure
from hypvl.diagnostics.verdict import interpret
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.pairs import EncodedPairs, encode_pairs, evenly
from hypvl.embedding.protocol import EvaluableModel, evaluating
from hypvl.embedding.search import search
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.geometry.base import Geometry
from hypvl.geometry.euclidean import Euclidean
from hypvl.metrics.chains import order_hits


@configurable("evaluate")
@dataclass
class GeometryAudit(Evaluator):
    """The numbers of :func:`hypvl.diagnostics.audit.summary` over images and their first captions, and a verdict.

    Metrics: those of the summary, shares in percent; ``radial_order_auc`` (the main one; texts nearer the root than
    their image, its ``_null`` with shuffled partners beside it); and, of a sample of ``sample`` pairs,
    ``flat_distortion`` in percent (mean difference of geodesic and tangent distances over both modalities together),
    ``delta_hyperbolicity_<modality>`` in [0, 1] (0 = a tree); ``effective_rank_<modality>_share`` in percent of the
    largest possible rank; ``flat_top1_agreement`` in percent: images whose best caption by distance in the tangent
    space is the model's best; and ``curv_at_bound`` where the curvature has a range: 100 at one of its limits.

    ``meta["verdict"]`` is one word, ``meta["findings"]`` the sentences (:mod:`hypvl.diagnostics.verdict`).

    Items, one per pair: ``key``; ``image_radius`` and ``text_radius``, distances to the root in flat coordinates.

    Args:
        dataset: Images and captions, at least two images with one.
        limit: Largest number of pairs, at least 2, evenly spread; None = all.
        sample: Number of pairs, at least 2, for metrics whose cost grows with the cube of that number.
        aperture_factor: Factor of the half apertures, as in training (MERU 1, HyCoCLIP 0.7 for texts and images).
        rounds: Number of shuffles of the null, at least 2.

    Source: arXiv 2607.05268; the functions name the sources of the measures.
    """

    dataset: RetrievalSet
    _: KW_ONLY
    limit: int | None = 5000
    sample: int = 200
    aperture_factor: float = 1.0
    rounds: int = 200

    main_metric = "radial_order_auc"

    def __post_init__(self) -> None:
        whole_number_or_none("limit", self.limit, least=2)
        whole_number("sample", self.sample, least=2)
        whole_number("rounds", self.rounds, least=2)
        check_set(self.dataset, RetrievalSet)

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        return self.of_pairs(model, encode_pairs(encoder, self.dataset, limit=self.limit, what="audit"))

    def of_pairs(self, model: EvaluableModel, pairs: EncodedPairs) -> EvaluationResult:
        """The result for pairs that are encoded already."""
        agreement = self._flat_agreement(model, pairs)
        with evaluating(model) as device:
            images, texts = pairs.images.to(device), pairs.texts.to(device)
            metrics = audit.summary(
                model.geometry,
                images,
                texts,
                aperture_factor=self.aperture_factor,
                generator=torch.Generator().manual_seed(0),
                rounds=self.rounds,
            )
            metrics |= self._structure(model.geometry, images, texts)
            radii = [x.cpu() for x in audit.root_distances(model.geometry, images, texts)]
        metrics = audit.in_percent(metrics)
        most = min(len(images) - 1, images.shape[1])
        for modality in ("image", "text"):
            metrics[f"effective_rank_{modality}_share"] = 100.0 * metrics[f"effective_rank_{modality}"] / most
        result = EvaluationResult(
            metrics=metrics,
            items={"key": pairs.keys, "image_radius": radii[0].tolist(), "text_radius": radii[1].tolist()},
            meta={
                **pairs.meta,
                "sample": min(self.sample, len(images)),
                "aperture_factor": self.aperture_factor,
                "rounds": self.rounds,
            },
            samples={"radial_order_auc": order_hits(radii[1], radii[0])},
        )
        result.add_mean("flat_top1_agreement", agreement)
        verdict = interpret(result.metrics)
        result.meta |= {"verdict": verdict.status, "findings": [asdict(one) for one in verdict.findings]}
        return result

    def _structure(self, geometry: Geometry, images: Tensor, texts: Tensor) -> dict[str, float]:
        rows = evenly(range(len(images)), self.sample)
        few = {"image": images[rows], "text": texts[rows]}
        return {
            "flat_distortion": 100.0 * structure.flat_distortion(geometry, torch.cat(list(few.values()))),
            **{
                f"delta_hyperbolicity_{modality}": structure.delta_hyperbolicity(
                    structure.pairwise_distances(geometry, x)
                )
                for modality, x in few.items()
            },
            **_at_bound(geometry),
        }

    def _flat_agreement(self, model: EvaluableModel, pairs: EncodedPairs) -> list[float]:
        """100 for each image whose nearest caption in flat coordinates is the model's best one, else 0."""
        _, own = search(model, pairs.images, pairs.texts, k=1, query_modality="image", key_modality="text")
        with evaluating(model) as device:
            keys = model.geometry.flatten(pairs.texts.to(device))
            straight = Euclidean()  # about the points' centre: torch.cdist loses digits far from the origin
            flat = [
                straight.pairwise_similarity(model.geometry.flatten(block.to(device)), keys).argmax(1).cpu()
                for block in pairs.images.split(512)
            ]
        # Two equal captions are one answer.
        best = zip(own[:, 0].tolist(), torch.cat(flat).tolist(), strict=True)
        return [100.0 * (pairs.captions[a] == pairs.captions[b]) for a, b in best]


def _at_bound(geometry: Geometry) -> dict[str, float]:
    """Share in percent of the curvatures that lie at a limit of their range."""
    c, limits = geometry.curvature, geometry.curvature_range
    if c is None or limits is None:
        return {}
    low, high = (math.log(limit) for limit in limits)
    at_limit = (c.log() - (low + high) / 2).abs() >= 0.999 * (high - low) / 2
    return {"curv_at_bound": 100.0 * at_limit.double().mean().item()}
