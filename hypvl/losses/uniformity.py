"""Alignment and uniformity on the sphere, also across modalities and for the centres of pairs."""

import math

import torch
from torch import Tensor

from hypvl import distributed
from hypvl.allowlist import configurable
from hypvl.checks import number
from hypvl.geometry.kernels import about_common_centre, within_reach
from hypvl.losses.base import IMAGE, TEXT, LossTerm, PairContext, PairTerm, View
from hypvl.numerics import full_precision, inner_products


@full_precision
def align_loss(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared distance of paired rows.

    Formula: ``mean_i |x_i - y_i|^2``.

    Args:
        x, y: (B, D).

    Returns:
        0-dim, >= 0 (<= 4 for unit rows). Pairs farther apart than 1e15 (fp64: 1e140) count as that far.

    Source: Wang & Isola 2020 (arXiv 2005.10242), section 4.1, with exponent 2.
    """
    return within_reach(x - y).square().sum(-1).mean()


@full_precision
def uniform_loss(x: Tensor, y: Tensor, own: Tensor, *, t: float = 2.0) -> Tensor:
    """Log of the mean Gaussian potential between rows and all others: low where they are spread out.

    Formula: ``log mean_{i, j != own_i} exp(-t |x_i - y_j|^2)``. With y = x this is the uniformity of x, the
    mean over i < j being that over i != j.

    Args:
        x: (B, D).
        y: (N, D).
        own: (B,) int64, the row of y to leave out for each row of x.
        t: Sharpness > 0.

    Returns:
        0-dim, <= 0. Without any pair (N = 1): 0 with gradient 0. Rows farther than 1e15 (fp64: 1e140) from the mean of
        all count as lying there.

    Source: Wang & Isola 2020 (arXiv 2005.10242), section 4.1, there for y = x.
    """
    if y.shape[0] == 1:
        return 0.0 * (x.sum() + y.sum())
    x, y = about_common_centre(x, y)
    squares = x.square().sum(-1, keepdim=True) + y.square().sum(-1) - 2 * inner_products(x, y)  # (B, N)
    potentials = (-t * squares).scatter(1, own[:, None], -math.inf)
    return torch.logsumexp(potentials, dim=(0, 1)) - math.log(x.shape[0] * (y.shape[0] - 1))


@configurable("train")
class Align(PairTerm):
    """:func:`align_loss` of paired views, in flat coordinates.

    Flat coordinates are the embeddings themselves on the sphere and in flat space, else tangent vectors at the root.

    Source: Wang & Isola 2020 (arXiv 2005.10242); with images and texts: I0T (2412.14384), "Unif-Align".
    """

    def forward(self, ctx: PairContext) -> Tensor:
        return align_loss(_flat(ctx, self.first), _flat(ctx, self.second))


@configurable("train")
class Uniform(LossTerm):
    """:func:`uniform_loss` of one view, over the rows of every rank, in flat coordinates (see :class:`Align`).

    Args:
        view: View whose rows should spread out.
        t: Sharpness > 0.

    Source: Wang & Isola 2020 (arXiv 2005.10242), section 4.1.
    Differs: the published I0T takes the pairs of one rank only.
    """

    def __init__(self, view: str | View, *, t: float = 2.0) -> None:
        super().__init__()
        (self.view,) = self.declare(view)
        self.t = number("t", t, above=0)

    def forward(self, ctx: PairContext) -> Tensor:
        x, all_x = _flat(ctx, self.view), _flat(ctx, self.view, gathered=True)  # (B, D), (N, D)
        return _over_ranks(uniform_loss(x, all_x, ctx.targets(self.view), t=self.t))


@configurable("train")
class CrossUniform(PairTerm):
    """:func:`uniform_loss` between the views of a pair: no image near the texts of others.

    In flat coordinates (see :class:`Align`), over the rows of every rank. Usually beside :class:`Align` and
    :class:`Uniform`.

    Args:
        first, second: As :class:`~hypvl.losses.base.PairTerm`.
        t: Sharpness > 0.

    Source: formula from summaries of published work on closing the modality gap; no code or numbers were seen.
    """

    def __init__(self, *, first: str | View = IMAGE, second: str | View = TEXT, t: float = 2.0) -> None:
        super().__init__(first=first, second=second)
        self.t = number("t", t, above=0)

    def forward(self, ctx: PairContext) -> Tensor:
        x, all_y = _flat(ctx, self.first), _flat(ctx, self.second, gathered=True)  # (B, D), (N, D)
        return _over_ranks(uniform_loss(x, all_y, ctx.targets(self.first), t=self.t))


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
        return _over_ranks(uniform_loss(local, everyone, ctx.targets(self.first), t=self.t))


def _flat(ctx: PairContext, view: View, gathered: bool = False) -> Tensor:
    return ctx.model.geometry.flatten(ctx.embeddings(view, gathered))


def _over_ranks(log_mean: Tensor) -> Tensor:
    """Log of the mean over ranks, from the log on each rank; the same on every rank."""
    parts = distributed.gather(log_mean[None])  # (W,)
    return torch.logsumexp(parts, dim=0) - math.log(len(parts))
