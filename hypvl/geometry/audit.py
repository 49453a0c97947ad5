"""Is the geometry doing any work? Pure functions on embeddings, for live logging and for any checkpoint.

u = sqrt(c) |x| is the radius in units of the radius of curvature: near 0 the space is as good as flat.

Source: arXiv 2607.05268 (released hyperbolic checkpoints sit near u = 0.2, with saturated or inactive cones).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hypvl.geometry.base import Geometry
from hypvl.geometry.precision import full_precision

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@full_precision
def radii(embeddings: Tensor, *, curv: float | Tensor = 1.0) -> Tensor:
    """u = sqrt(c) |x|: (..., D) -> (...); with ``curv=1`` plain norms, as for a flat space."""
    return (
        torch.linalg.vector_norm(embeddings, dim=-1) * torch.as_tensor(curv, device=embeddings.device) ** 0.5
    )


def quantiles(values: Tensor, *, at: Sequence[float] = QUANTILES) -> dict[str, float]:
    """Quantiles by name, ``{"q05": ..., "q50": ...}``, of all entries."""
    ordered = values.detach().flatten().double().sort().values
    if ordered.numel() == 0:
        raise ValueError("values: got none, expected at least one.")
    found = {}
    for q in at:  # torch.quantile refuses more than 2^24 values
        position = q * (ordered.numel() - 1)
        low = int(position)
        high = min(low + 1, ordered.numel() - 1)
        found[f"q{round(100 * q):02d}"] = torch.lerp(ordered[low], ordered[high], position - low).item()
    return found


def saturated_fraction(u: Tensor, *, min_radius: float = 0.1) -> float:
    """Share of points whose cone is the whole half space, u <= 2 min_radius: they entail almost anything."""
    return (u.detach() <= 2 * min_radius).double().mean().item()


@torch.no_grad()
def violation_rate(
    geometry: Geometry, general: Tensor, specific: Tensor, *, aperture_factor: float = 1.0
) -> float | None:
    """Share of pairs outside the cone, P(phi(general, specific) > factor * aperture(general)).

    Args:
        geometry: The space of the embeddings.
        general: Apexes, e.g. texts, (B, D).
        specific: Their partners, e.g. images, (B, D).
        aperture_factor: Widens (> 1) or narrows the cones.

    Returns:
        A share; None where the geometry has no cones. In a product space every factor of a pair counts.
    """
    angle, aperture = geometry.exterior_angle(general, specific), geometry.half_aperture(general)
    if angle is None or aperture is None:
        return None
    return (angle > aperture_factor * aperture).double().mean().item()


def radial_order_auc(general: Tensor, specific: Tensor) -> float:
    """P(a pair's general radius < its specific radius), ties counting one half: 1 = always nearer the root.

    Args:
        general: Radii of e.g. texts, (B,).
        specific: Radii of their images, (B,).
    """
    if general.shape != specific.shape:
        raise ValueError(
            f"general, specific: got shapes {tuple(general.shape)} and {tuple(specific.shape)}, expected one."
        )
    before = (general.detach() < specific.detach()).double()
    return (before + 0.5 * (general.detach() == specific.detach()).double()).mean().item()


def radial_order_null(
    general: Tensor, specific: Tensor, *, generator: torch.Generator, rounds: int = 20
) -> tuple[float, float]:
    """Mean and standard deviation of :func:`radial_order_auc` with the partners shuffled.

    An AUC within the null says that the modalities have different radii, not that pairs are ordered.

    Args:
        general: Radii, (B,).
        specific: Radii of their partners, (B,).
        generator: Source of the permutations, on the CPU.
        rounds: Number of permutations, >= 2.
    """
    shuffled = [
        radial_order_auc(
            general, specific[torch.randperm(len(specific), generator=generator).to(specific.device)]
        )
        for _ in range(rounds)
    ]
    values = torch.tensor(shuffled, dtype=torch.float64)
    return values.mean().item(), values.std().item()


@full_precision
def modality_gap(x: Tensor, y: Tensor) -> float:
    """Distance between the mean vectors of two modalities, |mean x - mean y|: (B1, D), (B2, D) -> length.

    Give embeddings for the gap in embedding space, ``geometry.flatten`` of them for that in tangent space.
    """
    return torch.linalg.vector_norm(x.detach().mean(0) - y.detach().mean(0)).item()


@torch.no_grad()
def summary(
    geometry: Geometry,
    images: Tensor,
    texts: Tensor,
    *,
    curv: float | Tensor = 1.0,
    min_radius: float = 0.1,
    aperture_factor: float = 1.0,
    generator: torch.Generator,
) -> dict[str, float]:
    """All of the above for paired embeddings, flat and ready for a log.

    Args:
        geometry: The space of the embeddings.
        images: (B, D).
        texts: (B, D), row by row the texts of ``images``.
        curv: c > 0; 1 for a flat space or a sphere.
        min_radius: Of the cones.
        aperture_factor: As :func:`violation_rate`.
        generator: As :func:`radial_order_null`.

    Returns:
        Radii are in units of the radius of curvature, gaps in the units of the embeddings, others shares.
    """
    u_image, u_text = radii(images, curv=curv), radii(texts, curv=curv)
    null_mean, null_std = radial_order_null(u_text, u_image, generator=generator)
    found = {
        **{f"image_radius_{name}": value for name, value in quantiles(u_image).items()},
        **{f"text_radius_{name}": value for name, value in quantiles(u_text).items()},
        "radial_order_auc": radial_order_auc(u_text, u_image),
        "radial_order_auc_null": null_mean,
        "radial_order_auc_null_std": null_std,
        "modality_gap": modality_gap(images, texts),
        "modality_gap_tangent": modality_gap(geometry.flatten(images), geometry.flatten(texts)),
        **geometry.stats(),
    }
    violations = violation_rate(geometry, texts, images, aperture_factor=aperture_factor)
    if violations is not None:
        found["cone_violation_rate"] = violations
        found["saturated_cones_text"] = saturated_fraction(u_text, min_radius=min_radius)
    return found
