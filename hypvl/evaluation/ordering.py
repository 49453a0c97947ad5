"""Orders of images and texts: by distance to the root, along a ray, between two embeddings.

Source: Ramasinghe et al., "Accept the Modality Gap", 2024, section 5 (items near the root are general, items far from
it specific).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from hypvl.checks import one_of
from hypvl.embedding.protocol import EvaluableModel, Modality, check_embeddings, check_scores
from hypvl.embedding.search import search
from hypvl.evaluation.traversal import radius
from hypvl.geometry.base import Geometry
from hypvl.numerics import working_dtype

Way: TypeAlias = Literal["geodesic", "tangent"]


@dataclass(frozen=True)
class Placed:
    """One item of a ranking: its distance to the root in flat coordinates (for Lorentz: the geodesic distance)."""

    name: str
    radius: float
    along: float | None = None  # position along the ray, radius * cos(angle); None without a ray
    angle: float | None = None  # between item and ray as seen from the root, in degrees

    def to_json(self) -> dict[str, Any]:
        """Plain values without None."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def rank_by_root(
    geometry: Geometry, embeddings: Tensor, names: Sequence[str], *, root: Tensor | None = None
) -> list[Placed]:
    """Items from the root outwards, the most general first; items of equal radius keep their order.

    Args:
        embeddings: (N, D), N >= 1, called by N ``names``.
        root: (D,) for a geometry without one; None = the origin of the flat coordinates.

    Raises:
        ValueError: when the numbers of names and embeddings differ, or there are none.
        UserError: when embeddings are not finite.
    """
    _check(embeddings, names)
    radii = radius(geometry, embeddings.double(), root=None if root is None else root.double())
    order = radii.argsort(stable=True).tolist()
    return [Placed(names[i], radii[i].item()) for i in order]


def rank_along_ray(
    geometry: Geometry,
    embeddings: Tensor,
    names: Sequence[str],
    through: Tensor,
    *,
    root: Tensor | None = None,
    max_angle: float = 180.0,
) -> list[Placed]:
    """Items ordered by their position along the ray from the root through an embedding.

    The position of an item at distance r is r cos(angle), in flat coordinates at the root, where rays are straight.

    Args: as :func:`rank_by_root`, and
        through: A point of the ray, (D,).
        max_angle: Items at a larger angle from the ray, in degrees, are left out.

    Raises:
        ValueError: as :func:`rank_by_root`, or when the embedding is the root itself.
        UserError: when embeddings are not finite.
    """
    _check(embeddings, names)
    check_embeddings(through)
    dtype = working_dtype(embeddings.device)
    centre = None if root is None else geometry.flatten(root.to(dtype))
    flat, ray = (geometry.flatten(points.to(dtype)) for points in (embeddings, through))
    if centre is not None:
        flat, ray = flat - centre, ray - centre
    length = ray.norm()
    if length == 0:
        raise ValueError("through: is the root itself, which gives no direction; name another item.")
    radii = flat.norm(dim=-1)
    along = flat @ (ray / length)
    across = (flat - along[:, None] * (ray / length)).norm(dim=-1)
    angles = torch.rad2deg(torch.atan2(across, along))  # 0 for the root itself
    chosen = [i for i in along.argsort(stable=True).tolist() if angles[i] <= max_angle]
    return [Placed(names[i], radii[i].item(), along[i].item(), angles[i].item()) for i in chosen]


def radius_histograms(radii: Mapping[str, Tensor], *, bins: int = 40) -> dict[str, Any]:
    """Histograms of distances to the root of several groups, over the same bins.

    Args:
        radii: Group -> (N,), N >= 1, at least one group.
        bins: Number of bins, from the smallest to the largest radius of all.

    Returns:
        ``edges`` (bins + 1); per group in ``groups``: ``count``, ``counts`` (bins), ``mean``, ``std`` (0 for one),
        ``quantiles`` (5, 25, 50, 75, 95 %); and in ``nearer``, for each pair of groups, ``share``: percentage of
        pairs whose item of the first group is nearer the root (ties count half; 50 = no order).

    Raises:
        ValueError: without groups or bins, or for an empty group.
    """
    if not radii or bins < 1 or any(len(values) == 0 for values in radii.values()):
        sizes = {name: len(values) for name, values in radii.items()}
        raise ValueError(
            f"radii: got groups of {sizes} and {bins} bins; expected at least one item each, bins >= 1."
        )
    values = {name: given.double().cpu() for name, given in radii.items()}
    low = min(v.min().item() for v in values.values())
    high = max(v.max().item() for v in values.values())
    if low == high:
        low, high = low - 0.5, high + 0.5
    points = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
    groups = {
        name: {
            "count": len(v),
            "counts": torch.histc(v, bins=bins, min=low, max=high).int().tolist(),
            "mean": v.mean().item(),
            "std": v.std().item() if len(v) > 1 else 0.0,
            "quantiles": torch.quantile(v, points).tolist(),
        }
        for name, v in values.items()
    }
    names = list(values)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    return {
        "edges": torch.linspace(low, high, bins + 1, dtype=torch.float64).tolist(),
        "groups": groups,
        "nearer": [{"first": a, "second": b, "share": nearer_share(values[a], values[b])} for a, b in pairs],
    }


def nearer_share(first: Tensor, second: Tensor) -> float:
    """Percentage of pairs whose value of the first is below that of the second; ties count half."""
    order = second.sort().values
    below = len(second) - torch.searchsorted(order, first, side="right")
    equal = torch.searchsorted(order, first, side="right") - torch.searchsorted(order, first, side="left")
    return 100.0 * (below.double() + equal.double() / 2).mean().item() / len(second)


@dataclass(frozen=True)
class Between:
    """A point between two embeddings, with the closest items of a pool, best first, and the model's scores of them."""

    weight: float  # 0 at the first, 1 at the second
    radius: float  # distance to the root in flat coordinates
    names: tuple[str, ...]
    scores: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "names": list(self.names), "scores": list(self.scores)}


def interpolate_between(
    model: EvaluableModel,
    first: Tensor,
    second: Tensor,
    pool: Tensor,
    names: Sequence[str],
    *,
    pool_modality: Modality,
    modality: Modality = "image",
    steps: int = 10,
    k: int = 1,
    way: Way = "geodesic",
    root: Tensor | None = None,
) -> list[Between]:
    """The closest items of a pool at points between two embeddings, both ends included.

    Args:
        model: Its scores rank the pool.
        first: (D,); ``second`` likewise.
        pool: (K, D), K >= 1, called by K ``names``.
        modality: Of the two embeddings and the points between them.
        steps: Points, at least 2.
        k: Items per point, at most K.
        way: ``"geodesic"``, the shortest path, or ``"tangent"``, straight in the tangent space at the root.
        root: For the radii, as for :func:`rank_by_root`.

    Raises:
        ValueError: when numbers or shapes do not fit.
        UserError: when embeddings or scores are not finite.
    """
    one_of("pool_modality", pool_modality, Modality)
    one_of("modality", modality, Modality)
    one_of("way", way, Way)
    _check(pool, names)
    if steps < 2 or k < 1 or first.shape != pool.shape[1:] or second.shape != first.shape:
        raise ValueError(
            f"interpolation: got steps={steps}, k={k}, ends {tuple(first.shape)} and {tuple(second.shape)}, a pool "
            f"{tuple(pool.shape)}; expected steps >= 2, k >= 1, (D,), (D,) and (K, D)."
        )
    check_embeddings(first, second)
    weights = torch.linspace(0.0, 1.0, steps, dtype=torch.float64)
    geometry, on = model.geometry, weights.to(first.device)
    with torch.inference_mode():
        if way == "geodesic":
            points = geometry.geodesic(first, second, on)
        else:
            points = geometry.interpolate(second, first, on)
        radii = radius(geometry, points, root=root).tolist()
    points = points.to(first)
    values, where = search(model, points, pool, k=k, query_modality=modality, key_modality=pool_modality)
    check_scores(values)
    return [
        Between(weight, r, tuple(names[i] for i in nearest), tuple(scores))
        for weight, r, nearest, scores in zip(
            weights.tolist(), radii, where.tolist(), values.tolist(), strict=True
        )
    ]


def _check(embeddings: Tensor, names: Sequence[str]) -> None:
    if embeddings.ndim != 2 or len(embeddings) != len(names) or not names:
        raise ValueError(
            f"names: got {len(names)} for {tuple(embeddings.shape)}; expected N >= 1 for (N, D)."
        )
    check_embeddings(embeddings)
