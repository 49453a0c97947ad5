"""The base of the hyperbolic geometries: a learned curvature with a range, and interpolation at the root."""

import math

import torch
from torch import Tensor, nn

from hypvl.checks import number
from hypvl.geometry.base import Geometry
from hypvl.numerics import full_precision, line

MIN_RADIUS = 0.1


class Hyperbolic(Geometry):
    """Base of the geometries with learned curvatures -c and a root at the origin.

    Args:
        shape: Of ``log_curv``: ``()``, or ``(F,)`` for F factors.
        curv_init: Starting value of every c > 0.
        learn_curv: Whether c is learned. ``log_curv`` is in the state dict either way.
        curv_range: Each c stays within a factor of this of ``curv_init``, each way; >= 1.
        min_radius: r_min > 0 of the cones.
    """

    no_weight_decay: frozenset[str] = frozenset({"log_curv"})
    log_curv: nn.Parameter

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        curv_init: float,
        learn_curv: bool,
        curv_range: float,
        min_radius: float,
    ) -> None:
        super().__init__()
        number("curv_init", curv_init, above=0)
        number("curv_range", curv_range, least=1)
        number("min_radius", min_radius, above=0)
        self.curv_init, self.curv_range, self.min_radius = curv_init, curv_range, min_radius
        self.log_curv = nn.Parameter(torch.full(shape, math.log(curv_init)), requires_grad=learn_curv)

    @property
    def curv(self) -> Tensor:
        """c > 0, () or (F,), fp32 or better; it carries the gradient."""
        return self.log_curv.to(torch.promote_types(self.log_curv.dtype, torch.float32)).exp()

    @property
    def curvature(self) -> Tensor:
        return self.curv.detach().reshape(-1)  # (F,)

    @property
    def curvature_range(self) -> tuple[float, float] | None:
        if not self.log_curv.requires_grad:
            return None
        return self.curv_init / self.curv_range, self.curv_init * self.curv_range

    @full_precision
    def interpolate(self, x: Tensor, root: Tensor, weights: Tensor) -> Tensor:
        """Linear in the tangent space at the root of the space (of every factor)."""
        return self.lift(line(self.flatten(root), self.flatten(x), weights))  # (T, D)

    def root(self, dim: int) -> Tensor:
        return torch.zeros(dim, device=self.log_curv.device)

    @torch.no_grad()
    def constrain_(self) -> None:
        centre, width = math.log(self.curv_init), math.log(self.curv_range)
        self.log_curv.clamp_(centre - width, centre + width)
