"""Points of every magnitude, and every public function of a geometry, to be called with them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hypvl.geometry.base import Geometry
from hypvl.ops.tiled_logsumexp.autograd import log_sum_exps

D = 6
SINGLE = 16  # points of functions that take one at a time
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
MAGNITUDES = [10.0**exponent for exponent in range(-30, 31)]
#: Tiles of inner products take unit vectors: those of the sphere, not any vectors.
UNIT_ONLY = ("Sphere", "tiled_")
#: Public members of a geometry that compute nothing from points.
NOT_OF_POINTS = {
    "any_vector_is_a_point", "constrain_", "curv", "curvature", "curvature_range", "max_radius", "no_weight_decay",
    "root", "stats", "log_curv", "cones", "curv_rows", "split", "mean_over_factors",
}  # fmt: skip


def points(dtype: torch.dtype, *, copies: int, seed: int, magnitudes: Sequence[float] = MAGNITUDES) -> Tensor:
    """(magnitudes * copies * 8, D) finite rows in an order of their own, a quarter of them special.

    Of each eight: five directions, the first of them once more, its opposite, and one along an axis. Four rows are 0.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for magnitude in magnitudes:
        free = torch.randn(copies, 5, D, generator=generator, dtype=torch.float64)
        axis = torch.zeros(copies, 1, D, dtype=torch.float64)
        axis[:, :, 0] = 1.0
        rows.append(magnitude * torch.cat([free, free[:, :1], -free[:, :1], axis], dim=1).flatten(0, 1))
    result = torch.cat(rows)
    result = result[torch.randperm(len(result), generator=generator)]
    result[:: len(result) // 4] = 0.0
    largest = torch.finfo(dtype).max
    return result.clamp(-largest, largest).to(dtype)


def of_pairs(geometry: Geometry) -> dict[str, Callable[[Tensor, Tensor], Any]]:
    """Public functions of (B1, D) and (B2, D)."""
    names = ["pairwise_similarity", "pairwise_distance", "flat_distance", "ranking_similarity", "mean_inner"]
    result = {name: getattr(geometry, name) for name in names if hasattr(geometry, name)}
    for name in ("tiled_similarity", "tiled_exterior_angle"):
        if hasattr(geometry, name):
            result[name] = of_tiles(getattr(geometry, name))
    if geometry.cones is not None:
        result["cones.pairwise_exterior_angle"] = geometry.cones.pairwise_exterior_angle
    return result


def of_tiles(function: Callable[[Tensor, Tensor], Any]) -> Callable[[Tensor, Tensor], Any]:
    """Log-sum-exps over rows and columns of scores that are computed in tiles, with and without a common reference."""

    def statistics(x: Tensor, y: Tensor) -> list[Tensor]:
        scores = function(x, y)
        if scores is None:
            return []
        targets = torch.arange(len(x)) % len(y)
        stats = log_sum_exps(scores, targets, columns=True, sums=True, tile=(64, 100))
        return [stats.rows, stats.columns, stats.targets]

    return statistics


def of_rows(geometry: Geometry) -> dict[str, Callable[[Tensor, Tensor], Any]]:
    """Public functions of paired rows (B, D), (B, D), or of the first ones alone."""
    weights = torch.linspace(0, 1, 3)
    result: dict[str, Callable[[Tensor, Tensor], Any]] = {
        "lift": lambda x, y: geometry.lift(x),
        "flatten": lambda x, y: geometry.flatten(x),
        "space_components": lambda x, y: geometry.space_components(x),
        "pool": lambda x, y: geometry.pool(torch.stack((x, y), dim=-2)),
        "distance": geometry.distance,
        "inner_product_form": lambda x, y: [geometry.inner_product_form(x, side=s) for s in ("query", "key")],  # type: ignore[arg-type]
        "interpolate": lambda x, y: [
            geometry.interpolate(a, b, weights) for a, b in zip(x[:SINGLE], y[:SINGLE], strict=True)
        ],
        "geodesic": lambda x, y: [
            geometry.geodesic(a, b, weights) for a, b in zip(x[:SINGLE], y[:SINGLE], strict=True)
        ],
    }
    if geometry.cones is not None:
        cones = geometry.cones
        result["cones.exterior_angle"] = cones.exterior_angle
        result["cones.half_aperture"] = lambda x, y: cones.half_aperture(x)
    return result


def check(
    function: Callable[[Tensor, Tensor], Any], x: Tensor, y: Tensor, module: nn.Module | None = None
) -> str:
    """Call a function and its backward pass; what is not finite, "" where all is.

    Gradients of points of 16 bits are taken in fp32, and are then rounded to them: beyond 65504 is beyond fp16.
    """
    wide = [torch.promote_types(z.dtype, torch.float32) for z in (x, y)]
    x, y = (z.to(dtype, copy=True).requires_grad_() for z, dtype in zip((x, y), wide, strict=True))
    made = function(x, y)
    values = [value for value in (made if isinstance(made, list | tuple) else [made]) if value is not None]
    if lost := sum(int((~value.isfinite()).sum()) for value in values):
        return f"{lost} of {sum(v.numel() for v in values)} values are not finite"
    inputs = [x, y, *(p for p in (module.parameters() if module is not None else ()) if p.requires_grad)]
    generator = torch.Generator().manual_seed(1)
    weights = [torch.rand(v.shape, generator=generator).to(v.dtype) / max(1, v.numel()) for v in values]
    traced = [(v, w) for v, w in zip(values, weights, strict=True) if v.requires_grad]
    if not traced:
        return ""
    gradients = torch.autograd.grad([v for v, _ in traced], inputs, [w for _, w in traced], allow_unused=True)
    for gradient, name in zip(gradients, ("x", "y", *["parameter"] * len(inputs)), strict=False):
        if gradient is not None and not gradient.isfinite().all():
            return f"{int((~gradient.isfinite()).sum())} gradients of {name} are not finite"
    return ""


def takes_any(geometry: Geometry, name: str) -> bool:
    """Whether a function takes vectors that are no points."""
    kind, start = UNIT_ONLY
    return not (type(geometry).__name__ == kind and name.startswith(start))


def public(kind: type) -> Iterator[str]:
    """Public members that a geometry adds to a module."""
    for name in dir(kind):
        if not name.startswith("_") and not hasattr(nn.Module, name) and name not in NOT_OF_POINTS:
            yield name
