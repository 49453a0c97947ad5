"""Products of hyperbolic spaces: several Lorentz factors side by side, each with its own curvature.

A vector of D = F d components is F blocks of d; block i is a point of factor i. Factors are a dimension of the
tensors, (..., F, d), never a loop.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hypvl.allowlist import configurable
from hypvl.checks import MOST_FEATURES, one_of, whole_number
from hypvl.geometry import lorentz
from hypvl.geometry.base import Cones
from hypvl.geometry.lorentz import Hyperbolic
from hypvl.numerics import full_precision, safe_sqrt, straight_distances

Metric: TypeAlias = Literal["l1", "l2"]
# Entries (factors x rows x columns) that a pairwise function holds at once; about 40 bytes each in the backward pass.
BLOCK_ENTRIES = 2**24


@configurable("model")
class Product(Hyperbolic):
    """F Lorentz factors of dimension d, d_i their distances, with the distance (1/F) sum_i d_i (l1) or l2.

    Lifting, flattening, pooling and interpolating act factor by factor; exterior angles and apertures have one
    entry per factor, and one point entails another when it does so in every factor.

    Memory: pairwise functions compute up to ``BLOCK_ENTRIES`` of the (F, B1, B2) entries at once. If that is all
    of them, two fp32 numbers per entry are kept for the gradient; otherwise blocks of rows are recomputed in the
    backward pass and only (B1, B2) is kept. 64 factors at batch 2048 then take 0.7 GB for a moment instead of 2 GB for
    every logits matrix of the step, and one more forward pass of the distances.

    Args:
        factors: F >= 1.
        factor_dim: d >= 1. Heads give features of F d components.
        metric: ``"l1"``: the mean of the factors' distances. ``"l2"``: their root mean square, sqrt((1/F) sum_i d_i^2),
            with gradient 0 between identical points.
        curv_init, learn_curv, curv_range, min_radius: As :class:`~hypvl.geometry.lorentz.Hyperbolic`, of every factor.

    Source: PHyCLIP (arXiv 2510.08919, ICLR 2026): 64 factors of dimension 8; factors: MERU (arXiv 2304.09172).
    Differs: the paper's l1 metric is a sum; its code and hypvl take the mean, and the logit scale holds the rest.

    Example:
        >>> space = Product(factors=2, factor_dim=2)
        >>> x = space.lift(torch.tensor([[1.0, 0.0, 0.0, 1.0]]))
        >>> space.pairwise_similarity(x, space.lift(torch.zeros(1, 4))).shape
        torch.Size([1, 1])
    """

    any_vector_is_a_point = True
    max_radius = lorentz.MAX_RADIUS

    def __init__(
        self,
        factors: int = 64,
        factor_dim: int = 8,
        *,
        metric: Metric = "l1",
        curv_init: float = 1.0,
        learn_curv: bool = True,
        curv_range: float = 10.0,
        min_radius: float = lorentz.MIN_RADIUS,
    ) -> None:
        one_of("metric", metric, Metric)
        factors = whole_number("factors", factors, least=1, most=MOST_FEATURES)
        factor_dim = whole_number("factor_dim", factor_dim, least=1, most=MOST_FEATURES)
        super().__init__(
            (factors,),
            curv_init=curv_init,
            learn_curv=learn_curv,
            curv_range=curv_range,
            min_radius=min_radius,
        )
        self.factors, self.factor_dim, self.metric = factors, factor_dim, metric

    def lift(self, features: Tensor) -> Tensor:
        """(..., F d) -> (..., F d).

        Raises:
            ValueError: the last dimension is not F d.
        """
        return lorentz.exp_map0(self.split(features), curv=self.curv_rows()).flatten(-2)

    def flatten(self, embeddings: Tensor) -> Tensor:
        return lorentz.log_map0(self.split(embeddings), curv=self.curv_rows()).flatten(-2)

    def pairwise_similarity(self, x: Tensor, y: Tensor) -> Tensor:
        """-d of all pairs, at most 0; the error in each factor's d_i is that of ``lorentz.pairwise_dist``."""
        return -self._of_all_factors(lorentz.pairwise_dist, x, y)

    def flat_distance(self, x: Tensor, y: Tensor) -> Tensor:
        return self._of_all_factors(_straight, x, y)

    def _of_all_factors(self, distance: Callable[..., Tensor], x: Tensor, y: Tensor) -> Tensor:
        """The metric of the product, of a distance in each factor."""
        if self.metric == "l1":
            return self.mean_over_factors(distance, x, y)
        return safe_sqrt(
            self.mean_over_factors(lambda *points, curv: distance(*points, curv=curv).square(), x, y)
        )

    def mean_inner(self, x: Tensor, y: Tensor) -> Tensor:
        """(1/F) sum_i <x_i, y_i>_L of all pairs, (B1, D), (B2, D) -> (B1, B2): in another order than the distances."""
        least = 2.0 ** math.ceil(
            math.log2(self.factors)
        )  # their sum could overflow: a power of two rounds nothing

        def part(x: Tensor, y: Tensor, *, curv: Tensor) -> Tensor:
            return lorentz.pairwise_inner(x, y, curv=curv) / least

        return self.mean_over_factors(part, x, y) * least

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """(1/F) sum_i d_i of paired embeddings, or the root of the mean of d_i^2."""
        by_factor = lorentz.dist(self.split(x), self.split(y), curv=self.curv_rows())  # (B, F)
        return by_factor.mean(-1) if self.metric == "l1" else safe_sqrt(by_factor.square().mean(-1))

    def geodesic(self, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        """The geodesic of every factor at once: the shortest way of the l2 distance, and a shortest of the l1."""
        return lorentz.geodesic(self.split(x), self.split(y), weights, curv=self.curv_rows()).flatten(-2)

    @property
    def cones(self) -> "ProductCones":
        return ProductCones(self)

    def stats(self) -> dict[str, float]:
        """Mean, least and greatest c_i."""
        c = self.curv.detach()
        low, mean, high = torch.stack([c.min(), c.mean(), c.max()]).tolist()
        return {"curv": mean, "curv_min": low, "curv_max": high}

    def split(self, x: Tensor) -> Tensor:
        """The factors of vectors: (..., F d) -> (..., F, d)."""
        if x.shape[-1] != self.factors * self.factor_dim:
            raise ValueError(
                f"x: got {x.shape[-1]} components, expected {self.factors} factors x {self.factor_dim} = "
                f"{self.factors * self.factor_dim}; give both heads that many out_features."
            )
        return x.unflatten(-1, (self.factors, self.factor_dim))

    def curv_rows(self) -> Tensor:
        """c, (F, 1), against (..., F, d)."""
        return self.curv[:, None]

    @full_precision
    def mean_over_factors(self, function: Callable[..., Tensor], x: Tensor, y: Tensor) -> Tensor:
        """Mean over factors of ``function((F, b, d), (F, B2, d), curv=c)`` -> (F, b, B2), for all pairs: (B1, B2)."""
        x, y = self.split(x).movedim(-2, 0), self.split(y).movedim(-2, 0)  # (F, B1, d), (F, B2, d)

        def block(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
            return function(x, y, curv=c).mean(0)

        c = self.curv[:, None, None]
        rows = max(1, BLOCK_ENTRIES // max(1, self.factors * y.shape[1]))
        if x.shape[1] <= rows:
            return block(x, y, c)
        return torch.cat(
            [
                checkpoint(block, part, y, c, use_reentrant=False, preserve_rng_state=False)
                for part in x.split(rows, dim=1)
            ]
        )


def _straight(x: Tensor, y: Tensor, *, curv: Tensor) -> Tensor:
    return straight_distances(x, y)


@dataclass(frozen=True)
class ProductCones(Cones):
    """The cones of every factor; a pairwise angle is the mean over factors, as the distance is."""

    geometry: Product

    def exterior_angle(self, apex: Tensor, point: Tensor) -> Tensor:
        space = self.geometry
        return lorentz.oxy_angle(space.split(apex), space.split(point), curv=space.curv_rows())  # (..., F)

    def pairwise_exterior_angle(self, apex: Tensor, point: Tensor) -> Tensor:
        return self.geometry.mean_over_factors(lorentz.pairwise_oxy_angle, apex, point)

    def half_aperture(self, apex: Tensor) -> Tensor:
        space = self.geometry
        return lorentz.half_aperture(space.split(apex), curv=space.curv_rows(), min_radius=space.min_radius)
