"""The Poincare ball: hyperbolic space in other coordinates than hypvl's own, to test what asks a geometry.

x_ball = x / (1 + sqrt(1 + c |x|^2)) of the hyperboloid's space components x; distances, radii, cones are the same.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypvl.geometry.base import Cones, Geometry
from hypvl.geometry.lorentz import Lorentz
from hypvl.numerics import full_precision

# Farthest from the root, in units of the radius of curvature: beyond it fp32 has no digits left in the ball.
_FARTHEST = 5.0


class PoincareBall(Geometry):
    """Points of the open ball of radius 1 / sqrt(c)."""

    max_radius = _FARTHEST

    def __init__(self, *, curv_init: float = 1.0) -> None:
        super().__init__()
        self.hyperboloid = Lorentz(curv_init=curv_init)

    @property
    def curvature(self) -> Tensor:
        return self.hyperboloid.curvature

    @property
    def cones(self) -> Cones:
        return BallCones(self)

    @full_precision
    def ball(self, x: Tensor) -> Tensor:
        """Space components -> coordinates in the ball, (..., D)."""
        c = self.hyperboloid.curv.to(x)
        return x / (1 + (1 + c * x.square().sum(-1, keepdim=True)).sqrt())

    @full_precision
    def space_components(self, y: Tensor) -> Tensor:
        """Coordinates in the ball -> space components, (..., D)."""
        c = self.hyperboloid.curv.to(y)
        return 2 * y / (1 - c * y.square().sum(-1, keepdim=True)).clamp(min=1e-6)

    @full_precision
    def lift(self, features: Tensor) -> Tensor:
        # |features| is the distance to the root; far ones are drawn in, with their direction kept.
        length = torch.linalg.vector_norm(features, dim=-1, keepdim=True).detach() * self.curvature.sqrt()
        return self.ball(self.hyperboloid.lift(features / (length / _FARTHEST).clamp(min=1)))

    @full_precision
    def flatten(self, embeddings: Tensor) -> Tensor:
        return self.hyperboloid.flatten(self.space_components(embeddings))

    @full_precision
    def pool(self, features: Tensor) -> Tensor:
        return self.lift(features.mean(-2))

    @full_precision
    def pairwise_similarity(self, x: Tensor, y: Tensor) -> Tensor:
        return self.hyperboloid.pairwise_similarity(self.space_components(x), self.space_components(y))

    @full_precision
    def interpolate(self, x: Tensor, root: Tensor, weights: Tensor) -> Tensor:
        return self.ball(
            self.hyperboloid.interpolate(self.space_components(x), self.space_components(root), weights)
        )

    def root(self, dim: int) -> Tensor:
        return self.hyperboloid.root(dim)

    def stats(self) -> dict[str, float]:
        return self.hyperboloid.stats()

    def constrain_(self) -> None:
        self.hyperboloid.constrain_()


@dataclass(frozen=True)
class BallCones(Cones):
    """The cones of the hyperboloid at the same points."""

    ball: PoincareBall

    def exterior_angle(self, apex: Tensor, point: Tensor) -> Tensor:
        space = self.ball.space_components
        return self.ball.hyperboloid.cones.exterior_angle(space(apex), space(point))

    def pairwise_exterior_angle(self, apex: Tensor, point: Tensor) -> Tensor:
        space = self.ball.space_components
        return self.ball.hyperboloid.cones.pairwise_exterior_angle(space(apex), space(point))

    def half_aperture(self, apex: Tensor) -> Tensor:
        return self.ball.hyperboloid.cones.half_aperture(self.ball.space_components(apex))
