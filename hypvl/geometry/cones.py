"""The contract of entailment cones, which a geometry has as ``geometry.cones``."""

from abc import ABC, abstractmethod

from torch import Tensor


class Cones(ABC):
    """Entailment cones of a space with F factors (1 unless it is a product).

    A point lies in the cone of an apex where its exterior angle is at most the half aperture, in every factor.
    """

    @abstractmethod
    def exterior_angle(self, apex: Tensor, point: Tensor) -> Tensor:
        """Angle at ``apex`` between the ray away from the root and ``point``.

        (..., D), (..., D) -> (..., F) radians in [0, pi].
        """

    @abstractmethod
    def pairwise_exterior_angle(self, apex: Tensor, point: Tensor) -> Tensor:
        """Exterior angle at every apex towards every point, averaged over factors.

        (B1, D), (B2, D) -> (B1, B2) radians in [0, pi].
        """

    @abstractmethod
    def half_aperture(self, apex: Tensor) -> Tensor:
        """Half opening angle of the cone at ``apex``: (..., D) -> (..., F) radians in (0, pi / 2]."""
