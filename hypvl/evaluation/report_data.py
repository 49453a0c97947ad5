"""What the HTML report shows of a model: plain data of a few hundred images and captions, for one JSON file.

The file (``report_data.json``, :data:`FORMAT_VERSION`) holds, for N images with one caption each:

- ``geometry``: ``curv`` (c, or null where it is not one hyperbolic space), ``factors``, ``cones`` and ``root`` (whether
  it has them), ``radius`` (what a distance to the root is);
- ``images``: ``key``, ``caption`` and ``thumbnail`` (a data URI) of every image that is shown anywhere;
- ``plane``: ``method``, ``centre``, ``variance_kept``, ``root_distance_kept`` (:mod:`hypvl.diagnostics.plane`), and
  ``points``: ``modality``, ``image`` (position in ``images``), ``x``, ``y`` (flat coordinates), ``radius``;
- ``cones`` (null without): of each text, ``apex`` (position in the points), ``half_aperture`` and ``own_angle``, the
  exterior angle of its own image (radians), and ``holds`` (positions of the points in its cone, as the model computes
  it in all dimensions);
- ``sphere``: directions in three dimensions, ``x``, ``y``, ``z`` by point, ``image_centroid``, ``text_centroid``,
  ``variance_kept``;
- ``audit``: ``metrics``, ``verdict``, ``findings``, ``pairs`` (:mod:`hypvl.evaluation.geometry_audit`);
- ``radii``: a histogram, ``edges``, ``image`` and ``text`` counts; ``gap``: gap metrics of flat coordinates;
- ``retrieval``: :mod:`hypvl.evaluation.retrieval_cases`; ``traversals``: ``image`` and the fields of a traversal.
"""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hypvl.checks import one_of
from hypvl.datasets.images import Images
from hypvl.datasets.protocol import RetrievalSet
from hypvl.datasets.text_pool import PoolText
from hypvl.diagnostics import audit, gap
from hypvl.diagnostics.plane import Method, principal_axes, project
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.pairs import EncodedPairs, encode_pairs, evenly
from hypvl.embedding.protocol import EvaluableModel, evaluating
from hypvl.errors import DataError
from hypvl.evaluation.geometry_audit import GeometryAudit
from hypvl.evaluation.retrieval_cases import retrieval_cases, shown_caption
from hypvl.evaluation.traversal import entails, traverse
from hypvl.geometry.base import Geometry
from hypvl.geometry.sphere import normalize
from hypvl.io.images import to_pil

FORMAT_VERSION = 1
_BINS = 40
_ROUNDS = 200  # shuffles of the audit's null


@dataclass
class Thumbnails:
    """Small copies of images of a data set, each made once, as the model decodes them."""

    dataset: RetrievalSet
    side: int  # pixels of the longer side
    captions: dict[str, str]  # by key
    shown: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._position = {key: place for place, key in enumerate(self.dataset.keys)}
        self._known: dict[str, int] = {}

    def add(self, key: str) -> int:
        """Position in ``shown`` of the image of that key."""
        if key not in self._known:
            pixels = Images(self.dataset.images, [self._position[key]])[0]
            self._known[key] = len(self.shown)
            uri = thumbnail(pixels, side=self.side)
            self.shown.append(
                {"key": key, "caption": shown_caption(self.captions.get(key, "")), "thumbnail": uri}
            )
        return self._known[key]


def thumbnail(pixels: Tensor, *, side: int) -> str:
    """An image, uint8 (3, h, w), as a data URI of a WebP at most ``side`` pixels wide and high."""
    image = to_pil(pixels)
    image.thumbnail((side, side))
    content = io.BytesIO()
    image.save(content, format="WEBP", quality=72, method=4)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()


def report_data(
    encoder: CachedEncoder,
    dataset: RetrievalSet,
    *,
    pool: Sequence[PoolText],
    root: Tensor | None = None,
    limit: int = 500,
    points: int = 150,
    traversals: int = 3,
    steps: int = 50,
    projection: Method = "tangent-pca",
    thumbnail_side: int = 80,
) -> dict[str, Any]:
    """Measure a model on images and captions, and choose what a page shows of it.

    Args:
        encoder: Of the model.
        dataset: Images and captions.
        pool: Texts that traversals choose from.
        root: Mean training embedding (D,), for a geometry without a root; None = the mean of the pool.
        limit: Largest number of pairs that are measured, at least 3, evenly spread.
        points: Largest number of pairs that are drawn.
        traversals: Number of images from which to walk to the root.
        steps: Points of a walk.
        projection: How the plane is found; ``"horopca"`` needs one hyperbolic space.
        thumbnail_side: Pixels of the longer side of an image on the page.

    Returns:
        Plain data as this module describes it.

    Raises:
        DataError: fewer than three images with captions can be read.
        ValueError: the projection does not fit the geometry.
    """
    one_of("projection", projection, Method)
    model = encoder.model
    pairs = encode_pairs(encoder, dataset, limit=limit, what="report")
    if len(pairs.keys) < 3:
        raise DataError(f"report: {len(pairs.keys)} readable images with a caption; expected at least 3.")
    result = GeometryAudit(dataset, limit=limit, rounds=_ROUNDS).of_pairs(model, pairs)
    if broken := [name for name, value in result.metrics.items() if not math.isfinite(value)]:
        raise DataError(
            f"report: {broken[0]} is {result.metrics[broken[0]]}; expected finite numbers. The weights have probably "
            "diverged: use an earlier checkpoint (--checkpoint-path)."
        )
    rows = evenly(range(len(pairs.keys)), points)
    thumbnails = Thumbnails(dataset, thumbnail_side, dict(zip(pairs.keys, pairs.captions, strict=True)))
    shown = [thumbnails.add(pairs.keys[row]) for row in rows]
    with evaluating(model) as device:
        geometry = model.geometry
        images, texts = pairs.images.to(device), pairs.texts.to(device)
        both = torch.cat((images[rows], texts[rows]))
        data = {
            "format_version": FORMAT_VERSION,
            "pairs": len(pairs.keys),
            "geometry": _geometry(geometry, both.shape[1]),
            "plane": _plane(geometry, both, shown, projection),
            "cones": _cones(geometry, both, len(rows)),
            "sphere": _sphere(geometry, both, len(rows)),
            "gap": gap.gap_metrics(*(geometry.flatten(x).cpu().double() for x in (images, texts))),
        }
    return {
        **data,
        "audit": {
            "metrics": result.metrics,
            "verdict": result.meta["verdict"],
            "findings": result.meta["findings"],
            "pairs": result.meta["pairs"],
        },
        "radii": _histogram(result.items["image_radius"], result.items["text_radius"]),
        "retrieval": retrieval_cases(model, pairs, thumbnail=thumbnails.add),
        "traversals": _traversals(
            encoder, pairs, pool, evenly(rows, traversals), root=root, steps=steps, thumbnails=thumbnails
        ),
        "images": thumbnails.shown,
    }


def _geometry(geometry: Geometry, dim: int) -> dict[str, Any]:
    curv = geometry.curvature
    rooted = geometry.root(dim) is not None
    return {
        "curv": None if curv is None or curv.numel() != 1 else float(curv),
        "factors": 0 if curv is None else int(curv.numel()),
        "cones": geometry.cones is not None,
        "root": rooted,
        "radius": "distance to the root" if rooted else "distance to the mean embedding",
        "dim": dim,
    }


def _plane(geometry: Geometry, both: Tensor, shown: Sequence[int], method: Method) -> dict[str, Any]:
    plane = project(geometry, both, method=method)
    (radii,) = audit.root_distances(geometry, both)
    places = plane.points.tolist()
    return {
        "method": plane.method,
        "centre": plane.centre,
        "variance_kept": plane.variance_kept,
        "root_distance_kept": None if math.isnan(plane.root_distance_kept) else plane.root_distance_kept,
        "points": [
            {"modality": modality, "image": image, "x": x, "y": y, "radius": radius}
            for (x, y), radius, (modality, image) in zip(
                places,
                radii.tolist(),
                [(modality, image) for modality in ("image", "text") for image in shown],
                strict=True,
            )
        ],
    }


def _cones(geometry: Geometry, both: Tensor, count: int) -> list[dict[str, Any]] | None:
    """The cones of the texts, which are the second half of the points."""
    texts = both[count:]
    inside = entails(geometry, texts, both)  # (2 count, count)
    if inside is None or geometry.cones is None:
        return None
    # Of a product the means over its factors.
    apertures = geometry.cones.half_aperture(texts).mean(-1).tolist()
    angles = geometry.cones.exterior_angle(texts, both[:count]).mean(-1).tolist()
    return [
        {
            "apex": count + i,
            "half_aperture": aperture,
            "own_angle": angle,
            "holds": [p for p in inside[:, i].nonzero()[:, 0].tolist() if p != count + i],
        }
        for i, (aperture, angle) in enumerate(zip(apertures, angles, strict=True))
    ]


def _sphere(geometry: Geometry, both: Tensor, count: int) -> dict[str, Any]:
    """Directions seen from the origin, in three dimensions: the first axis is the gap, the others the widest across it.

    Source: I0T, An et al. 2024 (arXiv 2412.14384), whose figures show both modalities as patches on a sphere.
    Differs: axes from the gap and the variance across it, so that the two patches are seen apart.
    """
    directions = normalize(geometry.flatten(both).cpu().double())
    images, texts = directions[:count], directions[count:]
    axis = gap.gap_direction(images, texts)
    across = directions - (directions @ axis)[:, None] * axis
    others, _ = principal_axes(across, count=2)
    coordinates = directions @ torch.stack((axis, *others)).mT  # (2 count, 3)
    total = float((directions - directions.mean(0)).square().sum())
    kept = float((coordinates - coordinates.mean(0)).square().sum()) / total if total > 0 else 1.0
    return {
        "points": normalize(coordinates).tolist(),
        "image_centroid": coordinates[:count].mean(0).tolist(),
        "text_centroid": coordinates[count:].mean(0).tolist(),
        "variance_kept": kept,
    }


def _histogram(images: Sequence[float], texts: Sequence[float]) -> dict[str, list[float]]:
    low, high = min(*images, *texts), max(*images, *texts)
    width = high - low if high > low else max(abs(high), 1.0) * 1e-6
    edges = torch.linspace(low, low + width, _BINS + 1, dtype=torch.float64)

    def counts(values: Sequence[float]) -> list[float]:
        places = (torch.tensor(values, dtype=torch.float64) - low) / width * _BINS
        return torch.bincount(places.long().clamp(0, _BINS - 1), minlength=_BINS).tolist()

    return {"edges": edges.tolist(), "image": counts(images), "text": counts(texts)}


def _traversals(
    encoder: CachedEncoder,
    pairs: EncodedPairs,
    pool: Sequence[PoolText],
    rows: Sequence[int],
    *,
    root: Tensor | None,
    steps: int,
    thumbnails: Thumbnails,
) -> list[dict[str, Any]]:
    if not rows:
        return []
    texts = encoder.encode_texts([entry.prompt for entry in pool], label="text pool")
    model: EvaluableModel = encoder.model
    with evaluating(model) as device:
        walks = [
            traverse(
                model,
                pairs.images[row].to(device),
                texts.to(device),
                [entry.text for entry in pool],
                root=None if root is None else root.to(device),
                steps=steps,
            )
            for row in rows
        ]
    return [
        {"image": thumbnails.add(pairs.keys[row]), "pool_size": len(pool), **walk.to_json()}
        for row, walk in zip(rows, walks, strict=True)
    ]
