"""Cyclic consistency: distances within and across modalities that agree with each other.

The contrastive part of CyCLIP is :class:`~hypvl.losses.contrastive.Contrastive`, with two more pairs where the
batch holds augmented images and texts.
"""

import math

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.losses.base import PairContext, PairTerm
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


@configurable("train")
class InModalCyclic(PairTerm):
    """Two images should be as similar as their two texts: :func:`cyclic_loss` of the in-modal similarities.

    Similarities are the geometry's own (the cosine on the sphere, minus the distance on the hyperboloid);
    queries are local, keys come from every rank.

    Source: CyCLIP (arXiv 2205.14459), section 3, there for the cosine.
    Differs: I0T's copy takes the pairs of one rank only.
    """

    def forward(self, ctx: PairContext) -> Tensor:
        return cyclic_loss(ctx.similarity(self.first, self.first), ctx.similarity(self.second, self.second))


@configurable("train")
class CrossModalCyclic(PairTerm):
    """An image should be as similar to another's text as that other image to its text: :func:`cyclic_loss`.

    Similarities are the geometry's, which are symmetric, even if the model is trained on other scores (angles). Queries
    are local, keys come from every rank.

    Source: CyCLIP (arXiv 2205.14459), section 3, there for the cosine.
    Differs: I0T's copy takes the pairs of one rank only.
    """

    def forward(self, ctx: PairContext) -> Tensor:
        return cyclic_loss(ctx.similarity(self.first, self.second), ctx.similarity(self.second, self.first))
