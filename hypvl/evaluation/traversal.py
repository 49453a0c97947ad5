"""Image traversals: the closest texts along the path from an image to the root of the space.

Source: MERU (arXiv 2304.09172) section 5.2. ATMG ranks the texts by its trained angle instead, without cones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from hypvl.checks import one_of
from hypvl.embedding.protocol import EvaluableModel, check_embeddings, check_scores
from hypvl.embedding.search import ranks_by_distance
from hypvl.geometry.base import Geometry
from hypvl.numerics import working_dtype

ROOT_NAME = "[ROOT]"
RootSource: TypeAlias = Literal["geometry", "checkpoint", "text pool"]
Entailment: TypeAlias = Literal["auto", "always", "never"]
# Elements of a (points, texts, D) block of the cone test.
_BLOCK_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class TraversalStep:
    """One point of the path."""

    weight: float  # 1 at the image, 0 at the root
    text: str  # the best one for this point, or ROOT_NAME
    score: float | None  # of that text; None for a root that the model does not score
    radius: float  # distance to the root in flat coordinates (Lorentz: geodesic; sphere: the chord)


@dataclass(frozen=True)
class Traversal:
    """The path from an image to the root."""

    steps: tuple[TraversalStep, ...]
    root: RootSource
    entailment_mask: bool  # whether only texts whose cone contains the point were allowed
    texts_in_reach: int  # how many texts were allowed at some point of the path

    @property
    def texts(self) -> list[str]:
        """The distinct texts in the order in which they first appear; the last is :data:`ROOT_NAME`."""
        seen = list(dict.fromkeys(step.text for step in self.steps))
        return [text for text in seen if text != ROOT_NAME] + [ROOT_NAME]

    @property
    def path(self) -> list[str]:
        """The texts in their order, repeated ones dropped only where they follow each other."""
        return [text for text, _ in groupby(step.text for step in self.steps)]

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "texts": self.texts,
            "root": self.root,
            "entailment_mask": self.entailment_mask,
            "texts_in_reach": self.texts_in_reach,
            "steps": [asdict(step) for step in self.steps],
        }


def interpolate_to_root(geometry: Geometry, x: Tensor, root: Tensor, *, steps: int) -> Tensor:
    """Points from an embedding to the root: (D,), (D,) -> (steps, D), ``x`` first.

    The weights are evenly spaced and rounded to fp32, as published. Raises ValueError for fewer than 2 steps.
    """
    if steps < 2:
        raise ValueError(f"steps: got {steps}; expected at least 2, the image and the root.")
    weights = torch.linspace(0.0, 1.0, steps, dtype=torch.float32).to(x)
    return geometry.interpolate(x, root.to(x), weights).flip(0)


def entails(geometry: Geometry, general: Tensor, points: Tensor) -> Tensor | None:
    """Whether each entailment cone contains each point: apexes (K, D), points (S, D) -> bool (S, K).

    True where exterior angle <= half aperture, in every factor of a product space; None where the geometry
    has no cones.
    """
    cones = geometry.cones
    if cones is None:
        return None
    # In fp64 the pairwise angle is accurate to about 1e-8, finer than most decisions of the mask.
    dtype = working_dtype(general.device)
    general, points = general.to(dtype), points.to(dtype)
    aperture = cones.half_aperture(general)  # (K, F)
    if aperture.shape[-1] == 1:
        return (cones.pairwise_exterior_angle(general, points) <= aperture).mT  # (S, K)
    rows = []
    for block in points.split(max(1, _BLOCK_ELEMENTS // max(1, general.numel()))):
        angle = cones.exterior_angle(general[None], block[:, None])  # (s, K, F)
        rows.append((angle <= aperture).all(dim=-1))
    return torch.cat(rows)


def mask_scores(scores: Tensor, holds: Tensor | None) -> Tensor:
    """Scores (S, K + 1), -inf where ``holds`` (S, K) of :func:`entails` is False; None masks nothing.

    The root, the last column, is never masked.
    """
    if holds is None:
        return scores
    masked = scores[:, :-1].masked_fill(~holds, float("-inf"))
    return torch.cat([masked, scores[:, -1:]], dim=1)


def find_root(
    geometry: Geometry, text_embeddings: Tensor, *, stored: Tensor | None = None
) -> tuple[Tensor, RootSource]:
    """The root of traversals (D,): the geometry's own, else the stored mean of training, else the mean of the texts.

    Raises:
        ValueError: when ``stored`` has another shape than (D,) or is not finite.
    """
    dim = text_embeddings.shape[-1]
    own = geometry.root(dim)
    if own is not None:
        return own.to(text_embeddings), "geometry"
    if stored is None:
        return geometry.pool(geometry.flatten(text_embeddings)), "text pool"
    if stored.shape != (dim,) or not bool(stored.isfinite().all()):
        raise ValueError(
            f"root: got shape {tuple(stored.shape)}{'' if stored.shape != (dim,) else ' with NaN or infinity'}; "
            f"expected {dim} finite numbers, the mean embedding of the training data."
        )
    return stored.to(text_embeddings), "checkpoint"


def traverse(
    model: EvaluableModel,
    image: Tensor,
    texts: Tensor,
    names: Sequence[str],
    *,
    root: Tensor | None = None,
    steps: int = 50,
    entailment: Entailment = "auto",
) -> Traversal:
    """Find the best text at each point of the path from an image to the root.

    Args:
        model: Whose scores rank the texts.
        image: Embedding (D,).
        texts: Embeddings (K, D), K >= 1, called by K ``names``.
        root: Stored mean embedding (D,) for a geometry without a root; None = the mean of ``texts``.
        steps: Points, the image and the root included.
        entailment: Whether only texts whose cone contains the point are allowed: ``"auto"`` where the geometry has
            cones and the scorer ranks by distance; ``"always"``; ``"never"``.

    Returns:
        A traversal that ends at :data:`ROOT_NAME`: the last point is the root, whatever scores best there. With a
        scorer that does not rank by distance, the root appears at that point only.

    Raises:
        ValueError: when the shapes do not fit, or cones are asked for that the geometry does not have.
        UserError: when the model's embeddings or scores are NaN.
    """
    one_of("entailment", entailment, Entailment)
    if texts.ndim != 2 or len(texts) != len(names) or not names or image.shape != texts.shape[1:]:
        raise ValueError(
            f"texts: got {tuple(texts.shape)} for {len(names)} names and an image {tuple(image.shape)}; "
            "expected (K, D), K >= 1 names and (D,)."
        )
    check_embeddings(image, texts)
    geometry, ranked_root = model.geometry, ranks_by_distance(model)
    root_embedding, source = find_root(geometry, texts, stored=root)
    points = interpolate_to_root(geometry, image, root_embedding, steps=steps)  # (S, D)
    holds = None
    if entailment == "always" or (entailment == "auto" and ranked_root):
        holds = entails(geometry, texts, points)
        if holds is None and entailment == "always":
            raise ValueError(
                "entailment: got 'always', but this geometry has no cones; use 'auto' or 'never'."
            )
    scores = points.new_full((steps, len(names) + 1), float("-inf"), dtype=torch.float64)
    if ranked_root:
        keys = torch.cat([texts, root_embedding[None]])
        scores[:] = model.scores(points, keys, query_modality="image", key_modality="text")
    else:  # angles at the root are undefined: neither the last point nor the root as a key is scored
        scores[:-1, :-1] = model.scores(points[:-1], texts, query_modality="image", key_modality="text")
    check_scores(scores)
    # Where all texts are masked, the answer is the root, which entails everything.
    best = mask_scores(scores, holds)
    values, where = best.max(dim=1)
    where[values == float("-inf")] = len(names)
    where[-1] = len(names)
    chosen = scores.gather(1, where[:, None])[:, 0].tolist()
    radii = radius(geometry, points, root=points[-1]).tolist()
    weights = torch.linspace(1.0, 0.0, steps).tolist()
    called = [*names, ROOT_NAME]
    return Traversal(
        steps=tuple(
            TraversalStep(weight, called[at], score if score > float("-inf") else None, distance)
            for weight, at, score, distance in zip(weights, where.tolist(), chosen, radii, strict=True)
        ),
        root=source,
        entailment_mask=holds is not None,
        texts_in_reach=len(names) if holds is None else int(holds.any(dim=0).sum()),
    )


def radius(geometry: Geometry, embeddings: Tensor, *, root: Tensor | None = None) -> Tensor:
    """Distance to the root in flat coordinates (for Lorentz: geodesic), (..., D) -> (...,); None = to their origin."""
    flat = geometry.flatten(embeddings)
    return (flat if root is None else flat - geometry.flatten(root)).norm(dim=-1)


def hierarchy_shares(paths: Sequence[Sequence[str]], levels: Mapping[str, int]) -> dict[str, float]:
    """How well traversals follow a hierarchy of captions, in percent of the traversals.

    Args:
        paths: Texts of each traversal in order (:attr:`Traversal.path`), at least one traversal.
        levels: Level of each text, 1 = the most general; the root has none.

    Returns:
        ``hierarchy_share``: at least two levels are visited and no text is more specific than one before it;
        ``two_levels_share`` and ``never_more_specific_share``: each of the two conditions; ``mean_levels``: mean
        number of levels that a traversal visits.

    Raises:
        ValueError: without traversals, or for a text that has no level.
    """
    if not paths:
        raise ValueError("paths: got no traversals; expected at least one.")
    two, falling, both, visited = 0, 0, 0, 0
    for path in paths:
        missing = next((text for text in path if text != ROOT_NAME and text not in levels), None)
        if missing is not None:
            raise ValueError(f"levels: {missing!r} has no level; give the level of every text of the pool.")
        on_way = [levels[text] for text in path if text != ROOT_NAME]
        several = len(set(on_way)) >= 2
        ordered = all(later <= earlier for earlier, later in pairwise(on_way))
        two, falling, both = two + several, falling + ordered, both + (several and ordered)
        visited += len(set(on_way))
    share = 100.0 / len(paths)
    return {
        "hierarchy_share": share * both,
        "two_levels_share": share * two,
        "never_more_specific_share": share * falling,
        "mean_levels": visited / len(paths),
    }
