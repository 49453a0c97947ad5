"""The contract of every geometry and of its entailment cones; the rest of hypvl uses geometries only through it."""

from abc import ABC, abstractmethod
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from hypvl.checks import one_of
from hypvl.numerics import straight_distances

Side: TypeAlias = Literal["query", "key"]
_PAIRS = 64  # of a block whose rows are compared with all of the block, to take the diagonal


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


class Geometry(nn.Module, ABC):
    """A space for embeddings.

    *features* are the output of an encoder's head: flat vectors (tangent vectors at the root), whose length is the
    distance to the root.
    *embeddings* are features lifted onto the manifold, in any coordinates (for Lorentz: the space components). Rounding
    and projections put some off the manifold: every operation takes any vector, and gives finite numbers.
    Everything is computed in fp32 or better, also under autocast; bf16/fp16 inputs give fp32 results.
    """

    #: Whether every vector is an embedding, as it is of a hyperboloid and of flat space. Only then are embeddings moved
    #: in their own coordinates (:mod:`hypvl.evaluation.modality_gap`).
    any_vector_is_a_point: bool = False
    #: sqrt(c) r at which :meth:`lift` saturates, r the distance to the root; None = nowhere.
    max_radius: float | None = None

    @abstractmethod
    def lift(self, features: Tensor) -> Tensor:
        """Map features onto the manifold: (..., D) -> (..., D)."""

    @abstractmethod
    def flatten(self, embeddings: Tensor) -> Tensor:
        """Inverse of :meth:`lift`, (..., D) -> (..., D) (sphere: the identity)."""

    def space_components(self, embeddings: Tensor) -> Tensor:
        """The same points as the Lorentz model writes them: (..., D) -> (..., D), of length sinh(sqrt(c) r) / sqrt(c).

        By default the embeddings themselves. Override it in other coordinates of a hyperbolic space.
        """
        return embeddings

    @abstractmethod
    def pool(self, features: Tensor) -> Tensor:
        """One embedding of several features, such as the prompts of a class: (..., P, D) -> (..., D)."""

    @abstractmethod
    def pairwise_similarity(self, x: Tensor, y: Tensor) -> Tensor:
        """Similarity of all pairs of embeddings, (B1, D), (B2, D) -> (B1, B2); higher = closer."""

    def pairwise_distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Geodesic distances between all pairs of embeddings, (B1, D), (B2, D) -> (B1, B2), for diagnostics.

        By default the negative similarity; override it where the similarity is not a negative distance.
        """
        return -self.pairwise_similarity(x, y)

    def flat_distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Distances of all pairs of features (flat coordinates) that the space would have if it were not curved.

        (B1, D), (B2, D) -> (B1, B2), for diagnostics. By default |x - y|; a product takes it factor by factor.
        """
        return straight_distances(x, y)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Geodesic distances of paired embeddings, (B, D), (B, D) -> (B,).

        By default read off :meth:`pairwise_distance`; override it where nearly identical pairs need more digits.
        """
        blocks = zip(x.split(_PAIRS), y.split(_PAIRS), strict=True)
        return torch.cat([self.pairwise_distance(some, others).diagonal() for some, others in blocks])

    def ranking_similarity(self, x: Tensor, y: Tensor) -> Tensor:
        """A cheaper (B1, B2) matrix in the same order as :meth:`pairwise_similarity`; by default that itself."""
        return self.pairwise_similarity(x, y)

    def inner_product_form(self, embeddings: Tensor, *, side: Side) -> Tensor | None:
        """Vectors for inner-product search, (..., D) -> (..., E); None where the space has no such vectors.

        The inner products of queries' vectors with keys' vectors have the order of :meth:`pairwise_similarity`, over
        all pairs: the keys of a query are ranked, and the queries of a key.

        Args:
            embeddings: Points.
            side: Whether they are queries or keys; the vectors of the two may differ.
        """
        one_of("side", side, Side)
        return None

    @abstractmethod
    def interpolate(self, x: Tensor, root: Tensor, weights: Tensor) -> Tensor:
        """Points between ``root`` (weight 0) and ``x`` (weight 1): (D,), (D,), (T,) -> (T, D)."""

    def geodesic(self, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        """Points on the geodesic from ``x`` (weight 0) to ``y`` (weight 1): (D,), (D,), (T,) -> (T, D).

        By default :meth:`interpolate`, which follows the geodesic in flat space and on the sphere (on the sphere with
        even steps of the chord).
        """
        return self.interpolate(y, x, weights)

    @abstractmethod
    def root(self, dim: int) -> Tensor | None:
        """The most general point, (D,); None where the space has none and the caller takes a mean instead."""

    @property
    @abstractmethod
    def cones(self) -> Cones | None:
        """The entailment cones; None where the space has none."""

    @property
    @abstractmethod
    def curvature(self) -> Tensor | None:
        """c_i > 0 of the F factors, (F,), detached: their curvatures are -c_i. None for a space that is not hyperbolic.

        Flat coordinates hold the factors one after the other in equal parts; the length of a part is the distance to
        the root in that factor.
        """

    @property
    def curvature_range(self) -> tuple[float, float] | None:
        """Least and greatest c that training allows; None where c is not learned, or has no range."""
        return None

    def stats(self) -> dict[str, float]:
        """Scalars worth logging, e.g. ``{"curv": 1.0}``."""
        return {}

    def constrain_(self) -> None:
        """Clamp learned parameters into their range, in place; called before each training step only."""
