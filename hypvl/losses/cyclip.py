"""Cyclic consistency: distances within and across modalities that agree with each other.

The contrastive part of CyCLIP is :class:`~hypvl.losses.contrastive.Contrastive`, with two more pairs where the
batch holds augmented images and texts.
"""

import math

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.losses.base import IMAGE, TEXT, LossTerm, PairContext, View
from hypvl.numerics import full_precision


@full_precision
def cyclic_loss(similarity: Tensor, other: Tensor) -> Tensor:
    """How far two matrices of similarities disagree: squared differences, summed over keys, mean over queries.

    Formula: ``1/B sum_ij (s_ij - o_ij)^2``; in-modal ``s_ij = x_i.x_j, o_ij = y_i.y_j``; cross-modal
    ``s_ij = x_i.y_j, o_ij = x_j.y_i``. Similarities are not scaled by the temperature.

    Args:
        similarity: (B, N).
        other: (B, N), the same pairs seen from the other side.

    Returns:
        0-dim, >= 0; grows with N.

    Raises:
        ValueError: on a processor, for finite similarities the sum of whose squares does not fit, in fp32 beyond about
            1e19 / sqrt(N) (flat embeddings beyond 1e9 / N^(1/4)). A device would have to be waited for: there the value
            is infinite, which a run counts and skips.

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
class InModalCyclic(LossTerm):
    """Two images should be as similar as their two texts: :func:`cyclic_loss` of the in-modal similarities.

    Similarities are the geometry's own (the cosine on the sphere, minus the distance on the hyperboloid);
    queries are local, keys come from every rank.

    Args:
        first: View of one side of the pairs.
        second: View of the other.

    Source: CyCLIP (arXiv 2205.14459), section 3, there for the cosine.
    Differs: I0T's copy takes the pairs of one rank only.
    """

    def __init__(self, *, first: str | View = IMAGE, second: str | View = TEXT) -> None:
        super().__init__()
        self.first, self.second = View.parse(first), View.parse(second)
        self.needs = frozenset({self.first, self.second})

    def forward(self, ctx: PairContext) -> Tensor:
        in_first, in_second = (
            ctx.similarity(view, view) for view in (self.first, self.second)
        )  # (B, N) each
        return cyclic_loss(in_first, in_second)


@configurable("train")
class CrossModalCyclic(LossTerm):
    """An image should be as similar to another's text as that other image to its text: :func:`cyclic_loss`.

    Similarities are the geometry's own, which are symmetric, also where a model is trained on others (angles);
    queries are local, keys come from every rank.

    Args:
        first: View of one side of the pairs.
        second: View of the other.

    Source: CyCLIP (arXiv 2205.14459), section 3, there for the cosine.
    Differs: I0T's copy takes the pairs of one rank only.
    """

    def __init__(self, *, first: str | View = IMAGE, second: str | View = TEXT) -> None:
        super().__init__()
        self.first, self.second = View.parse(first), View.parse(second)
        self.needs = frozenset({self.first, self.second})

    def forward(self, ctx: PairContext) -> Tensor:
        there, back = (
            ctx.similarity(self.first, self.second),
            ctx.similarity(self.second, self.first),
        )  # (B, N)
        return cyclic_loss(there, back)
