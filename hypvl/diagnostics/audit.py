"""Is the geometry doing any work? Pure functions on embeddings, for live logging and for any checkpoint.

u = sinh(sqrt(c) r), r the distance to the root (:func:`hypvl.diagnostics.structure.unit_radii`): near 0 the space is
almost flat. Every number that a point which is not finite would enter is NaN.

Source: arXiv 2607.05268 (released hyperbolic checkpoints sit near u = 0.2, with saturated or inactive cones).
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hypvl.diagnostics import gap, structure
from hypvl.geometry.base import Geometry
from hypvl.numerics import working_dtype

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# An aperture this near pi/2 (radians) is a half space.
_HALF_SPACE = math.pi / 2 - 1e-6

#: Shares in [0, 1] of :func:`summary`, which :func:`in_percent` scales.
SHARES = (
    "clipped_image", "clipped_text", "radial_order_auc", "radial_order_auc_null", "radial_order_auc_null_std",
    "radial_order_auc_null_quantile", "cone_violation_rate", "cone_violation_rate_shuffled", "saturated_cones_text",
    "saturated_cones_image", "curv_at_floor",
)  # fmt: skip


def quantiles(values: Tensor, *, at: Sequence[float] = QUANTILES) -> dict[str, float]:
    """Quantiles by name, ``{"q05": ..., "q50": ...}``, of all entries.

    Example:
        >>> quantiles(torch.tensor([1.0, 2.0, 3.0]), at=[0.5])
        {'q50': 2.0}
    """
    ordered = values.detach().flatten().double().sort().values
    if ordered.numel() == 0:
        raise ValueError("values: got none, expected at least one.")
    if bool(ordered[-1].isnan()):  # NaN sorts last, which would leave the other quantiles as they are
        ordered = ordered.new_full((1,), math.nan)
    result = {}
    for q in at:  # torch.quantile refuses more than 2^24 values
        position = q * (ordered.numel() - 1)
        low = int(position)
        high = min(low + 1, ordered.numel() - 1)
        result[f"q{round(100 * q):02d}"] = torch.lerp(ordered[low], ordered[high], position - low).item()
    return result


def clipped_fraction(u: Tensor, *, max_radius: float | None) -> float:
    """Share of points at the limit of the exponential map, u = sinh(max_radius), where lengths are clipped.

    Args:
        u: Radii of points, any shape.
        max_radius: ``max_radius`` of their geometry; None = nothing is clipped.

    Example:
        >>> clipped_fraction(torch.tensor([1.0, 2.0]).sinh(), max_radius=2.0)
        0.5
    """
    limit = math.inf if max_radius is None else 0.999 * math.sinh(max_radius)
    return _mean(u.detach() >= limit, of=(u,))


def derangement(count: int, *, generator: torch.Generator) -> Tensor:
    """A random permutation that leaves no item in its place: (count,) int64, count >= 2.

    Example:
        >>> order = derangement(5, generator=torch.Generator().manual_seed(0))
        >>> bool((order != torch.arange(5)).all())
        True
    """
    if count < 2:
        raise ValueError(f"count: got {count}; expected at least 2, so that there is another item.")
    order = torch.randperm(count, generator=generator)
    partner = torch.empty_like(order)
    partner[order] = order.roll(1)
    return partner


def radial_order_auc(general: Tensor, specific: Tensor) -> float:
    """P(a pair's general radius < its specific radius), (B,) each, ties counting half: 1 = always nearer the root.

    Example:
        >>> radial_order_auc(torch.tensor([0.5, 0.6]), torch.tensor([1.0, 0.6]))
        0.75
    """
    if general.shape != specific.shape:
        raise ValueError(
            f"general, specific: got shapes {tuple(general.shape)} and {tuple(specific.shape)}, expected one."
        )
    before = (general.detach() < specific.detach()).double()
    order = before + 0.5 * (general.detach() == specific.detach()).double()
    return _mean(order, of=(general, specific))


def radial_order(
    general: Tensor, specific: Tensor, *, generator: torch.Generator, rounds: int = 20
) -> dict[str, float]:
    """:func:`radial_order_auc`, and what it is when the partners are shuffled.

    Args:
        general: Radii, (B,).
        specific: Radii of their partners, (B,).
        generator: Of the permutations, on the CPU.
        rounds: Number of permutations, >= 2.

    Returns:
        ``auc``; ``auc_null`` and ``auc_null_std``, mean and standard deviation with the partners shuffled: an AUC
        within them says that the modalities have different radii, not that pairs are ordered; ``auc_null_quantile``,
        the share of the shuffled values below the AUC, ties counting one half: near 1 = pairs are ordered beyond what
        the radii of their modalities give, near 0 = against the order. All in [0, 1].

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> sorted(radial_order(torch.tensor([0.5, 0.6]), torch.tensor([1.0, 0.9]), generator=generator))
        ['auc', 'auc_null', 'auc_null_quantile', 'auc_null_std']
    """
    orders = [torch.randperm(len(specific), generator=generator).to(specific.device) for _ in range(rounds)]
    shuffled = [radial_order_auc(general, specific[order]) for order in orders]
    values = torch.tensor(shuffled, dtype=torch.float64)
    auc = radial_order_auc(general, specific)
    below = (values < auc).double() + 0.5 * (values == auc).double()
    below = torch.where(values.isnan(), values, below)
    return {
        "auc": auc,
        "auc_null": values.mean().item(),
        "auc_null_std": values.std().item(),
        "auc_null_quantile": below.mean().item(),
    }


@torch.no_grad()
def root_distances(geometry: Geometry, *embeddings: Tensor) -> list[Tensor]:
    """Distances to the root in flat coordinates, of several blocks of embeddings: (B, D) -> (B,) each.

    Where the geometry has no root (sphere) the pooled embedding of all blocks takes its place.

    Example:
        >>> from hypvl.geometry.lorentz import Lorentz
        >>> space = Lorentz()
        >>> [d.detach() for d in root_distances(space, space.lift(torch.tensor([[0.5, 0.0], [0.0, 1.0]])))]
        [tensor([0.5000, 1.0000], dtype=torch.float64)]
    """
    embeddings = tuple(block.to(working_dtype(block.device)) for block in embeddings)
    root = geometry.root(embeddings[0].shape[-1])
    if root is None:
        root = geometry.pool(geometry.flatten(torch.cat(embeddings)))
    flat_root = geometry.flatten(root.to(embeddings[0]))
    return [torch.linalg.vector_norm(geometry.flatten(block) - flat_root, dim=-1) for block in embeddings]


@torch.no_grad()
def summary(
    geometry: Geometry,
    images: Tensor,
    texts: Tensor,
    *,
    aperture_factor: float = 1.0,
    generator: torch.Generator,
    rounds: int = 20,
) -> dict[str, float]:
    """Everything that is cheap for paired embeddings, flat and ready for a log.

    Args:
        images: (B, D), B >= 2.
        texts: (B, D), row by row the texts of ``images``.
        aperture_factor: Widens (> 1) or narrows the cones: a pair is outside where phi > factor * aperture.
        generator: As :func:`radial_order`, and so are ``rounds``.

    Returns:
        ``<modality>_radius_q<nn>``: quantiles of u, of every factor of a product; ``clipped_<modality>``: share of
        radii at the edge of the exponential map; ``radial_order_*`` of :func:`radial_order`, distances to the root;
        ``modality_gap`` and ``modality_gap_tangent``, lengths, ``relative_modality_gap`` in [0, 1] of flat
        coordinates; ``effective_rank_<modality>`` of flat coordinates; the geometry's own ``stats()``. Where it learns
        curvatures within a range, ``curv_at_floor``: the share of them at its lower end. Where it has
        cones, in shares of pairs (or points; every factor of a product counts): ``cone_violation_rate``,
        ``cone_violation_rate_shuffled`` (with images of other pairs), ``saturated_cones_<modality>``; and medians in
        radians, ``half_aperture_text``, ``exterior_angle``.

    Example:
        >>> from hypvl.geometry.lorentz import Lorentz
        >>> space, generator = Lorentz(), torch.Generator().manual_seed(0)
        >>> features = torch.randn(8, 4, generator=generator)
        >>> numbers = summary(space, space.lift(features), space.lift(0.5 * features), generator=generator)
        >>> round(numbers["radial_order_auc"], 3)
        1.0
    """
    work = working_dtype(images.device)
    images, texts = images.detach().to(work), texts.detach().to(work)
    u_image, u_text = structure.unit_radii(geometry, images), structure.unit_radii(geometry, texts)
    flat_images, flat_texts = geometry.flatten(images), geometry.flatten(texts)
    far_images, far_texts = root_distances(geometry, images, texts)
    order = radial_order(far_texts, far_images, generator=generator, rounds=rounds)
    numbers = {
        **{f"image_radius_{name}": value for name, value in quantiles(u_image).items()},
        **{f"text_radius_{name}": value for name, value in quantiles(u_text).items()},
        "clipped_image": clipped_fraction(u_image, max_radius=geometry.max_radius),
        "clipped_text": clipped_fraction(u_text, max_radius=geometry.max_radius),
        **{f"radial_order_{name}": value for name, value in order.items()},
        "modality_gap": gap.centroid_distance(images, texts).item(),
        "modality_gap_tangent": gap.centroid_distance(flat_images, flat_texts).item(),
        "relative_modality_gap": float(gap.relative_modality_gap(flat_images, flat_texts)),
        "effective_rank_image": structure.effective_rank(flat_images),
        "effective_rank_text": structure.effective_rank(flat_texts),
        **geometry.stats(),
        **_at_floor(geometry),
    }
    others = images[derangement(len(images), generator=generator).to(images.device)]
    return numbers | _cones(geometry, texts, images, others, aperture_factor=aperture_factor)


def in_percent(numbers: Mapping[str, float]) -> dict[str, float]:
    """The numbers of :func:`summary` with their shares in percent, as :mod:`hypvl.diagnostics.verdict` takes them.

    Example:
        >>> in_percent({"radial_order_auc": 0.75, "image_radius_q50": 1.2})
        {'radial_order_auc': 75.0, 'image_radius_q50': 1.2}
    """
    return {name: 100.0 * value if name in SHARES else value for name, value in numbers.items()}


def _cones(
    geometry: Geometry, texts: Tensor, images: Tensor, others: Tensor, *, aperture_factor: float
) -> dict[str, float]:
    cones = geometry.cones
    if cones is None:
        return {}
    angle, aperture = cones.exterior_angle(texts, images), cones.half_aperture(texts)
    shuffled_angle, image_aperture = cones.exterior_angle(texts, others), cones.half_aperture(images)
    return {
        "cone_violation_rate": _mean(angle > aperture_factor * aperture, of=(angle, aperture)),
        "cone_violation_rate_shuffled": _mean(
            shuffled_angle > aperture_factor * aperture, of=(shuffled_angle, aperture)
        ),
        "saturated_cones_text": _mean(aperture >= _HALF_SPACE, of=(aperture,)),
        "saturated_cones_image": _mean(image_aperture >= _HALF_SPACE, of=(image_aperture,)),
        "half_aperture_text": quantiles(aperture)["q50"],
        "exterior_angle": quantiles(angle)["q50"],
    }


def _at_floor(geometry: Geometry) -> dict[str, float]:
    """Share of the curvatures within a thousandth of their range's lower end (of the logarithms)."""
    c, limits = geometry.curvature, geometry.curvature_range
    if c is None or limits is None:
        return {}
    low, high = (math.log(limit) for limit in limits)
    return {"curv_at_floor": (c.log() <= low + 0.001 * (high - low)).double().mean().item()}


def _mean(values: Tensor, *, of: Sequence[Tensor]) -> float:
    """Mean of numbers or flags; NaN where an input of theirs (``of``) is not finite."""
    finite = all(bool(x.detach().isfinite().all()) for x in of)
    return values.double().mean().item() if finite else math.nan
