"""The Poincare ball: hyperbolic space in other coordinates than hypvl's own, to test what asks a geometry.

x_ball = x / (1 + sqrt(1 + c |x|^2)) of the hyperboloid's space components x; distances, radii, cones are the same.
"""

from torch import Tensor

from hypvl.geometry import kernels, lorentz
from hypvl.geometry.lorentz import Hyperbolic
from hypvl.numerics import full_precision


class PoincareBall(Hyperbolic):
    """Points of the open ball of radius 1 / sqrt(c)."""

    max_radius = 5.0  # beyond it fp32 has no digits left in the ball

    @full_precision
    def lift(self, features: Tensor) -> Tensor:
        x = lorentz.exp_map0(features, curv=self.curv, max_radius=self.max_radius)
        return x / (1 + (1 + self.curv.to(x) * kernels.square_of(x)).sqrt())

    def flatten(self, embeddings: Tensor) -> Tensor:
        return lorentz.log_map0(self.space_components(embeddings), curv=self.curv)

    @full_precision
    def space_components(self, embeddings: Tensor) -> Tensor:
        near = kernels.within_reach(embeddings)  # off the ball: its square would overflow
        room = 1 - self.curv.to(near) * kernels.square_of(near)
        return 2 * near / room.clamp(min=1e-2)

    def pairwise_similarity(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = self.space_components(x), self.space_components(y)
        return -lorentz.pairwise_dist(x, y, curv=self.curv)
