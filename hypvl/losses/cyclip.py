"""Cyclic consistency: distances within and across modalities that agree with each other.

The contrastive part of CyCLIP is :class:`~hypvl.losses.contrastive.Contrastive`, with two more pairs where the
batch holds augmented images and texts.
"""

import math

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.losses.base import IMAGE, TEXT, PairContext, PairTerm, View
from hypvl.losses.info_nce import Implementation
from hypvl.losses.pairwise import mean_over_queries, similarities
from hypvl.numerics import full_precision


@full_precision
def cyclic_loss(similarity: Tensor, other: Tensor) -> Tensor:
    """Squared differences of two matrices of similarities, summed over keys, mean over queries.

    Formula: ``1/B sum_ij (s_ij - o_ij)^2``; in-modal ``s_ij = x_i.x_j, o_ij = y_i.y_j``; cross-modal
    ``s_ij = x_i.y_j, o_ij = x_j.y_i``. Similarities are not scaled by the temperature.

    Args:
        similarity, other: (B, N), the same pairs seen from both sides.

    Returns:
        0-dim, >= 0; grows with N.

    Raises:
        ValueError: on a CPU, for finite similarities whose squares sum to infinity: in fp32 beyond about 1e19 / sqrt(N)
            (flat embeddings beyond 1e9 / N^(1/4)). On a device, which would have to be waited for, the value is
            infinite, and training skips and counts the step.

    Source: Goel et al., CyCLIP, 2022 (arXiv 2205.14459), section 3.

    Example:
        >>> cyclic_loss(torch.eye(2), torch.zeros(2, 2))
        tensor(1.)
    """
    value = (similarity - other).square().sum(-1).mean()
    if value.device.type == "cpu" and not torch.compiler.is_compiling() and bool(value.detach().isinf()):
        largest = float(torch.maximum(similarity.detach().abs().amax(), other.detach().abs().amax()))
        if math.isfinite(largest):
            raise ValueError(
                f"similarity, other: got numbers up to {largest:.3g}, the sum of whose squares does not fit into "
                f"{value.dtype}; expected smaller ones: embeddings of that size have diverged."
            )
    return value


class _Cyclic(PairTerm):
    """A term that compares two matrices of similarities of the views of a pair."""

    def __init__(
        self,
        *,
        first: str | View = IMAGE,
        second: str | View = TEXT,
        implementation: Implementation = "auto",
    ) -> None:
        super().__init__(first=first, second=second)
        self.implementation = one_of("implementation", implementation, Implementation)

    def compare(self, ctx: PairContext, there: tuple[View, View], back: tuple[View, View]) -> Tensor:
        return mean_over_queries(
            cyclic_loss,
            similarities(ctx, *there),
            similarities(ctx, *back),
            implementation=self.implementation,
        )


@configurable("train")
class InModalCyclic(_Cyclic):
    """Two images should be as similar as their two texts: :func:`cyclic_loss` of the in-modal similarities.

    Similarities are the geometry's own (the cosine on the sphere, minus the distance on the hyperboloid);
    queries are local, keys come from every rank.

    Args:
        first, second: As :class:`~hypvl.losses.base.PairTerm`.
        implementation: As for :func:`~hypvl.losses.info_nce.info_nce`.

    Source: CyCLIP (arXiv 2205.14459), section 3, there for the cosine.
    Differs: I0T's copy takes the pairs of one rank only.
    """

    def forward(self, ctx: PairContext) -> Tensor:
        return self.compare(ctx, (self.first, self.first), (self.second, self.second))


@configurable("train")
class CrossModalCyclic(_Cyclic):
    """An image should be as similar to another's text as that other image to its text: :func:`cyclic_loss`.

    Similarities are the geometry's, which are symmetric, even if the model is trained on other scores (angles). Queries
    are local, keys come from every rank.

    Args:
        first, second: As :class:`~hypvl.losses.base.PairTerm`.
        implementation: As for :func:`~hypvl.losses.info_nce.info_nce`.

    Source: CyCLIP (arXiv 2205.14459), section 3, there for the cosine.
    Differs: I0T's copy takes the pairs of one rank only.
    """

    def forward(self, ctx: PairContext) -> Tensor:
        return self.compare(ctx, (self.first, self.second), (self.second, self.first))
