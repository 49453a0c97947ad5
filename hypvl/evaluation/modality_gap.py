"""The gap between the images and the captions of a data set, and the effect of closing or widening it."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import number, whole_number_or_none
from hypvl.datasets.protocol import RetrievalSet, check_set
from hypvl.diagnostics.gap import (
    centroid_distance,
    gap_direction,
    gap_metrics,
    move_features,
    relative_modality_gap,
    signed_centroid_distance,
)
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.pairs import encode_pairs
from hypvl.embedding.protocol import EvaluableModel, evaluating
from hypvl.embedding.search import search
from hypvl.evaluation.mean_removal import centre, flat_mean
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.geometry.base import Geometry
from hypvl.metrics.ranking import recall_chance

Space: TypeAlias = Literal["tangent", "embedding"]
#: Names of the two recalls in the metrics and in the curve.
WAYS = ("text_to_image_recall@1", "image_to_text_recall@1")


@configurable("evaluate")
@dataclass
class ModalityGap(Evaluator):
    """The metrics of :func:`hypvl.diagnostics.gap.gap_metrics` over images and captions, before and after mean removal.

    Each image that can be read is paired with its first caption. Metrics, of flat coordinates (unit vectors on the
    sphere, the tangent space at the root of a hyperboloid): those of ``gap_metrics``, ``linear_separability`` in
    percent with its ``_chance`` of 50; and ``text_to_image_recall@1`` and ``image_to_text_recall@1`` among these
    pairs, by the model's score. ``after_<name>``: the same after I0T_post, which subtracts each modality's mean over
    these pairs (transductive). Where embeddings differ from their flat coordinates, ``embedding_<name>`` and
    ``after_embedding_<name>`` are the gap metrics of the embeddings themselves. Cosines and ``relative_modality_gap``
    are cosines by definition, whatever the model's own score is.

    Items: one per pair, ``key``, ``cosine`` and ``after_cosine`` (flat); one per step of the sweep, in each space,
    ``curve_space``, ``curve_delta``, ``curve_centroid_distance``, ``curve_signed_centroid_distance``,
    ``curve_relative_modality_gap`` and ``curve_<recall>``. A step moves the modalities by ``delta`` in total along
    the line between their means, closer for delta > 0, in the coordinates of the space, and back onto the manifold;
    embeddings are moved as such only where every vector is one (``geometry.any_vector_is_a_point``).

    Args:
        dataset: Images and captions, at least two images with one.
        deltas: Steps of the sweep, finite, in units of the space's coordinates; empty = no sweep.
        limit: Largest number of pairs, at least 2, evenly spread; None = all.

    Source: Liang et al. 2022 (arXiv 2203.02053), section 4; I0T, An et al. 2024 (arXiv 2412.14384).
    Differs: one direction from all pairs; I0T estimates it anew in each pair of batches.
    """

    dataset: RetrievalSet
    _: KW_ONLY
    deltas: Sequence[float] = (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0)
    limit: int | None = 5000

    main_metric = "centroid_distance"

    def __post_init__(self) -> None:
        for delta in self.deltas:
            number("deltas", delta)
        whole_number_or_none("limit", self.limit, least=2)
        check_set(self.dataset, RetrievalSet)

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        pairs = encode_pairs(encoder, self.dataset, limit=self.limit, what="modality gap")
        with evaluating(model) as device:
            geometry = model.geometry
            x, y = pairs.images.to(device), pairs.texts.to(device)
            means = [flat_mean(z, geometry=geometry) for z in (x, y)]
            centred = [centre(z, mean, geometry=geometry) for z, mean in zip((x, y), means, strict=True)]
            stages = {"": (x, y), "after_": (centred[0], centred[1])}
            same = torch.equal(geometry.flatten(x).to(x), x)
            result = EvaluationResult()
            cosines: dict[str, list[float]] = {}
            for stage, (images, texts) in stages.items():
                spaces = {stage: _coordinates(geometry, images, texts, "tangent")}
                if not same:
                    spaces[f"{stage}embedding_"] = _coordinates(geometry, images, texts, "embedding")
                for prefix, rows in spaces.items():
                    result.metrics |= _percent(gap_metrics(*rows), prefix)
                    result.samples |= _per_pair(*rows, prefix)
                cosines[f"{stage}cosine"] = result.samples[f"{stage}mean_paired_cosine"]
            curve = self._sweep(model, x, y, embedding=not same and geometry.any_vector_is_a_point)
            for stage, rows in stages.items():
                for way, hits in _recalls(model, *rows).items():
                    result.add_mean(f"{stage}{way}", hits, chance=recall_chance([1], len(hits), ks=[1])[1])
        result.items = {"key": pairs.keys, **cosines, **curve}
        result.meta = {
            **pairs.meta,
            "spaces": ["tangent"] if same else ["tangent", "embedding"],
            "after": "means of each modality over these pairs taken out (I0T_post, transductive)",
        }
        return result

    def _sweep(self, model: EvaluableModel, x: Tensor, y: Tensor, *, embedding: bool) -> dict[str, list[Any]]:
        names = (
            "space",
            "delta",
            "centroid_distance",
            "signed_centroid_distance",
            "relative_modality_gap",
            *WAYS,
        )
        curve: dict[str, list[Any]] = {f"curve_{name}": [] for name in names}
        spaces: tuple[Space, ...] = ("tangent", "embedding") if embedding else ("tangent",)
        for space in spaces:
            start = _coordinates(model.geometry, x, y, space)
            u = gap_direction(*start)
            for delta in map(float, self.deltas):
                moved = _moved(model.geometry, x, y, delta=delta, direction=u, space=space)
                rows = _coordinates(model.geometry, *moved, space)
                hits = _recalls(model, *moved)
                values = (
                    space,
                    delta,
                    float(centroid_distance(*rows)),
                    float(signed_centroid_distance(*rows, direction=u)),
                    float(relative_modality_gap(*rows)),
                    *(sum(hits[way]) / len(hits[way]) for way in WAYS),
                )
                for name, value in zip(names, values, strict=True):
                    curve[f"curve_{name}"].append(value)
        return curve


def _moved(
    geometry: Geometry, x: Tensor, y: Tensor, *, delta: float, direction: Tensor, space: Space
) -> tuple[Tensor, Tensor]:
    """Embeddings moved by delta along a direction of the space's coordinates."""
    if space == "tangent":
        return move_features(x, y, delta=delta, geometry=geometry, direction=direction.to(x.device))
    step = (0.5 * delta * direction).to(x)
    return x - step, y + step


def _coordinates(geometry: Geometry, x: Tensor, y: Tensor, space: Space) -> tuple[Tensor, Tensor]:
    if space == "tangent":
        x, y = geometry.flatten(x), geometry.flatten(y)
    return x.cpu().double(), y.cpu().double()


def _percent(metrics: dict[str, float], prefix: str) -> dict[str, float]:
    metrics = metrics | {
        "linear_separability": 100.0 * metrics["linear_separability"],
        "linear_separability_chance": 50.0,
    }
    return {f"{prefix}{name}": value for name, value in metrics.items()}


def _per_pair(x: Tensor, y: Tensor, prefix: str) -> dict[str, list[float]]:
    distances = torch.linalg.vector_norm(x - y, dim=-1)
    cosines = torch.nn.functional.cosine_similarity(x, y, dim=-1)
    return {
        f"{prefix}mean_paired_cosine": cosines.tolist(),
        f"{prefix}mean_paired_distance": distances.tolist(),
        f"{prefix}align": distances.square().tolist(),
    }


def _recalls(model: EvaluableModel, images: Tensor, texts: Tensor) -> dict[str, list[float]]:
    """Per pair, 100 where the partner ranks first, else 0; in both directions."""
    own = torch.arange(len(images))
    to_image = search(model, texts, images, k=1, query_modality="text", key_modality="image")[1][:, 0]
    to_text = search(model, images, texts, k=1, query_modality="image", key_modality="text")[1][:, 0]
    return {
        way: (100.0 * (best == own)).tolist() for way, best in zip(WAYS, (to_image, to_text), strict=True)
    }
