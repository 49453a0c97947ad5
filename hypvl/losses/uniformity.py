"""Alignment and uniformity on the sphere, also across modalities and for the centres of pairs."""

import math

import torch
from torch import Tensor

from hypvl import distributed
from hypvl.allowlist import configurable
from hypvl.checks import number, one_of
from hypvl.geometry.kernels import within_reach
from hypvl.losses.base import IMAGE, TEXT, LossTerm, PairContext, PairTerm, View
from hypvl.losses.info_nce import Implementation
from hypvl.losses.pairwise import mean_over_queries, negative_squared_distances
from hypvl.numerics import full_precision


@full_precision
def align_loss(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared distance of paired rows.

    Formula: ``mean_i |x_i - y_i|^2``.

    Args:
        x, y: (B, D).

    Returns:
        0-dim, >= 0 (<= 4 for unit rows). Pairs farther apart than 1e15 (fp64: 1e140) count as that far.

    Source: Wang & Isola 2020 (arXiv 2005.10242), section 4.1, with exponent 2.

    Example:
        >>> align_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]]))
        tensor(1.)
    """
    return within_reach(x - y).square().sum(-1).mean()


@full_precision
def uniform_loss(
    x: Tensor, y: Tensor, own: Tensor, *, t: float = 2.0, implementation: Implementation = "auto"
) -> Tensor:
    """Log of the mean Gaussian potential between rows and all others: low where they are spread out.

    Formula: ``log mean_{i, j != own_i} exp(-t |x_i - y_j|^2)``. With y = x this is the uniformity of x, the
    mean over i < j being that over i != j.

    Args:
        x: (B, D).
        y: (N, D).
        own: (B,) int64, the row of y to leave out for each row of x.
        t: Sharpness > 0.
        implementation: As for :func:`~hypvl.losses.info_nce.info_nce`.

    Returns:
        0-dim, <= 0. Without any pair (N = 1): 0 with gradient 0. Rows farther than 1e15 (fp64: 1e140) from the mean of
        all count as lying there.

    Source: Wang & Isola 2020 (arXiv 2005.10242), section 4.1, there for y = x.

    Example:
        >>> x = torch.eye(2)
        >>> uniform_loss(x, x, torch.arange(2)).round()  # -t |x - y|^2
        tensor(-4.)
    """
    if y.shape[0] == 1:
        return 0.0 * (x.sum() + y.sum())

    def value(similarity: Tensor, own: Tensor) -> Tensor:
        potentials = (t * similarity).scatter(1, own[:, None], -math.inf)
        return torch.logsumexp(potentials, dim=(0, 1)) - math.log(len(similarity) * (len(y) - 1))

    return mean_over_queries(
        value,
        negative_squared_distances(x, y),
        rows=[own],
        combine="log_mean_exp",
        implementation=implementation,
    )


@configurable("train")
class Align(PairTerm):
    """:func:`align_loss` of paired views, in flat coordinates.

    Flat coordinates are the embeddings themselves on the sphere and in flat space, else tangent vectors at the root.

    Source: Wang & Isola 2020 (arXiv 2005.10242); with images and texts: I0T (2412.14384), "Unif-Align".
    """

    rings = True

    def forward(self, ctx: PairContext) -> Tensor:
        return align_loss(_flat(ctx, self.first), _flat(ctx, self.second))


@configurable("train")
class Uniform(LossTerm):
    """:func:`uniform_loss` of one view, over the rows of every rank, in flat coordinates (see :class:`Align`).

    Args:
        view: View whose rows should spread out.
        t: Sharpness > 0.
        implementation: As for :func:`~hypvl.losses.info_nce.info_nce`.

    Source: Wang & Isola 2020 (arXiv 2005.10242), section 4.1.
    Differs: the published I0T takes the pairs of one rank only.
    """

    def __init__(self, view: str | View, *, t: float = 2.0, implementation: Implementation = "auto") -> None:
        super().__init__()
        self.implementation = one_of("implementation", implementation, Implementation)
        (self.view,) = self.declare(view)
        self.t = number("t", t, above=0)

    def forward(self, ctx: PairContext) -> Tensor:
        x, all_x = _flat(ctx, self.view), _flat(ctx, self.view, gathered=True)  # (B, D), (N, D)
        return _over_ranks(
            uniform_loss(x, all_x, ctx.targets(self.view), t=self.t, implementation=self.implementation)
        )


@configurable("train")
class CrossUniform(PairTerm):
    """:func:`uniform_loss` between the views of a pair: no image near the texts of others.

    In flat coordinates (see :class:`Align`), over the rows of every rank. Usually beside :class:`Align` and
    :class:`Uniform`.

    Args:
        first, second: As :class:`~hypvl.losses.base.PairTerm`.
        t: Sharpness > 0.
        implementation: As for :func:`~hypvl.losses.info_nce.info_nce`.

    Source: formula from summaries of published work on closing the modality gap; no code or numbers were seen.
    """

    def __init__(
        self,
        *,
        first: str | View = IMAGE,
        second: str | View = TEXT,
        t: float = 2.0,
        implementation: Implementation = "auto",
    ) -> None:
        super().__init__(first=first, second=second)
        self.implementation = one_of("implementation", implementation, Implementation)
        self.t = number("t", t, above=0)

    def forward(self, ctx: PairContext) -> Tensor:
        x, all_y = _flat(ctx, self.first), _flat(ctx, self.second, gathered=True)  # (B, D), (N, D)
        return self._value(ctx, x, all_y)

    def _value(self, ctx: PairContext, x: Tensor, y: Tensor) -> Tensor:
        own = ctx.targets(self.first)
        return _over_ranks(uniform_loss(x, y, own, t=self.t, implementation=self.implementation))


@configurable("train")
class CentreUniform(CrossUniform):
    """:func:`uniform_loss` of the centres (x_i + y_i) / 2 of pairs; with :class:`Align`, the terms of ModGap.

    As for :class:`CrossUniform`, in flat coordinates and over the rows of every rank. Centres are not normalised.

    Source: ModGap (ICLR 2026), formula from summaries; no code or numbers were seen.
    """

    def forward(self, ctx: PairContext) -> Tensor:
        local, everyone = (
            (_flat(ctx, self.first, gathered) + _flat(ctx, self.second, gathered)) / 2
            for gathered in (False, True)
        )  # (B, D), (N, D)
        return self._value(ctx, local, everyone)


def _flat(ctx: PairContext, view: View, gathered: bool = False) -> Tensor:
    return ctx.model.geometry.flatten(ctx.embeddings(view, gathered))


def _over_ranks(log_mean: Tensor) -> Tensor:
    """Log of the mean over ranks, from the log on each rank; the same on every rank."""
    parts = distributed.gather(log_mean[None])  # (W,)
    return torch.logsumexp(parts, dim=0) - math.log(len(parts))
