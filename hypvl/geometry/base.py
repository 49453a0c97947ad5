"""The contract every geometry keeps; the rest of hypvl knows geometries only through it."""

from abc import ABC, abstractmethod
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from hypvl.checks import one_of
from hypvl.geometry.tiles import Factored

Side: TypeAlias = Literal["query", "key"]


class Geometry(nn.Module, ABC):
    """A space for embeddings.

    *features* are what an encoder's head returns: flat vectors (tangent vectors at the root).
    *embeddings* are features lifted onto the manifold (for Lorentz: the space components).
    Everything is computed in fp32 or better whatever autocast says; bf16/fp16 inputs give fp32 results.
    """

    @abstractmethod
    def lift(self, features: Tensor) -> Tensor:
        """Map features onto the manifold: (..., D) -> (..., D)."""

    @abstractmethod
    def flatten(self, embeddings: Tensor) -> Tensor:
        """Inverse of :meth:`lift`, (..., D) -> (..., D) (sphere: the identity)."""

    @abstractmethod
    def pool(self, features: Tensor) -> Tensor:
        """One embedding for several features of the same thing: (..., P, D) -> (..., D)."""

    @abstractmethod
    def pairwise_similarity(self, x: Tensor, y: Tensor) -> Tensor:
        """Similarity of all pairs of embeddings, (B1, D), (B2, D) -> (B1, B2); higher = closer."""

    def pairwise_distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Lengths of the shortest ways between all pairs of embeddings, (B1, D), (B2, D) -> (B1, B2), for diagnostics.

        Here the negative similarity; a space whose similarity is no negative distance says its own.
        """
        return -self.pairwise_similarity(x, y)

    def curvatures(self) -> Tensor | None:
        """c_i > 0 of the factors (the curvatures are -c_i), (F,), detached; None for a space that is not hyperbolic.

        Here what the space has as ``curv``. Flat coordinates hold the factors one after the other in equal parts, whose
        lengths are the distances to the root.
        """
        curv = getattr(self, "curv", None)
        return None if curv is None else torch.as_tensor(curv).detach().reshape(-1)

    def ranking_similarity(self, x: Tensor, y: Tensor) -> Tensor:
        """A cheaper (B1, B2) matrix in the same order as :meth:`pairwise_similarity`; by default that itself."""
        return self.pairwise_similarity(x, y)

    def inner_product_form(self, embeddings: Tensor, *, side: Side) -> Tensor | None:
        """Vectors for inner-product search, (..., D) -> (..., E), or None where the space has none.

        The inner products of one query's vector with those of all keys have the order of
        :meth:`pairwise_similarity`.

        Args:
            embeddings: Points.
            side: What they are in the search; the two forms may differ.
        """
        one_of("side", side, Side)
        return None

    def factored_similarity(self, x: Tensor, y: Tensor) -> Factored | None:
        """:meth:`pairwise_similarity` as a function of one inner product, not computed yet; None where it is none."""
        return None

    @abstractmethod
    def interpolate(self, x: Tensor, root: Tensor, weights: Tensor) -> Tensor:
        """Points on the way from ``root`` (weight 0) to ``x`` (weight 1): (D,), (D,), (T,) -> (T, D)."""

    def geodesic(self, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        """Points on the shortest way from ``x`` (weight 0) to ``y`` (weight 1): (D,), (D,), (T,) -> (T, D).

        Here by :meth:`interpolate`, whose line is the shortest way in flat space and on the sphere (there with even
        steps of the chord).
        """
        return self.interpolate(y, x, weights)

    @abstractmethod
    def root(self, dim: int) -> Tensor | None:
        """The most general point, (D,), or None where the space has none and the caller supplies a mean."""

    def exterior_angle(self, apex: Tensor, point: Tensor) -> Tensor | None:
        """Angle at ``apex`` between the ray away from the root and ``point``.

        (..., D), (..., D) -> (..., F) radians in [0, pi]; F factors, 1 unless the space is a product.
        None where the geometry has no entailment cones.
        """
        return None

    def pairwise_exterior_angle(self, apex: Tensor, point: Tensor) -> Tensor | None:
        """Exterior angle at every apex towards every point, (B1, D), (B2, D) -> (B1, B2) radians, or None."""
        return None

    def factored_exterior_angle(self, apex: Tensor, point: Tensor) -> Factored | None:
        """:meth:`pairwise_exterior_angle` as a function of one inner product, not computed yet, or None."""
        return None

    def half_aperture(self, apex: Tensor) -> Tensor | None:
        """Half opening angle of the entailment cone at ``apex``: (..., D) -> (..., F) radians, or None."""
        return None

    def stats(self) -> dict[str, float]:
        """Scalars worth logging, e.g. ``{"curv": 1.0}``."""
        return {}

    def constrain_(self) -> None:
        """Clamp learned parameters into their range, in place; called before each training step only."""
