"""Two terms of the objective that hypvl 0.1.0 called UNCHA, so that its runs resume with the losses they had.

They were written from summaries of the paper, before its code was out; the published objective is made of the terms of
:mod:`hypvl.losses.uncertainty`, and ``configs/common/objective/uncha.py`` is that.
"""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.losses.base import IMAGE, TEXT, LossTerm, PairContext, View
from hypvl.losses.info_nce import Implementation, check_implementation, info_nce, parse_pairs
from hypvl.losses.uncertainty import AngledEntailment, uncertainty_entropy, uncertainty_of


@configurable("train")
class DraftContrastive(LossTerm):
    """``mean_i CE(z_i exp(-u_i / 2), t_i)``, mean over pairs, with a gradient to the uncertainty u of the query.

    The published one, :class:`~hypvl.losses.uncertainty.GlobalLocalContrastive`, has none, and compares only boxes with
    wholes that way.

    Args:
        pairs: (query, key) views; default image -> text and text -> image.
        implementation, tile: As for :func:`~hypvl.losses.info_nce.info_nce`.
    """

    rings = True

    def __init__(
        self,
        pairs: Sequence[Sequence[str | View]] = ((IMAGE, TEXT), (TEXT, IMAGE)),
        *,
        implementation: Implementation = "auto",
        tile: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_implementation(implementation, tile)
        warnings.warn(
            "UNCHA: this objective is the one that hypvl 0.1.0 wrote from summaries of the paper; to train the "
            "published one, start a new run of configs/train_uncha_vit_b.py.",
            stacklevel=2,
        )
        self.pairs = parse_pairs(pairs)
        self.implementation, self.tile = implementation, tile
        self.needs = frozenset(view for pair in self.pairs for view in pair)

    def forward(self, ctx: PairContext) -> Tensor:
        losses = [
            info_nce(
                ctx,
                query,
                key,
                row_scale=torch.exp(-uncertainty_of(ctx, ctx.embeddings(query)) / 2),
                implementation=self.implementation,
                tile=self.tile,
            )
            for query, key in self.pairs
        ]
        return torch.cat(losses).mean()


@configurable("train")
class DraftCalibration(AngledEntailment):
    """``mean_i ( sg(L_i) exp(-u_i) + u_i ) + H(softmax u)``, H over the general items of every rank.

    The published ones, :class:`~hypvl.losses.uncertainty.Calibration` and
    :class:`~hypvl.losses.uncertainty.UncertaintyEntropy`, have halves and other weights.
    """

    rings = False  # it takes the uncertainty of the wholes of every rank

    uneven = False

    def forward(self, ctx: PairContext) -> Tensor:
        own = uncertainty_of(ctx, ctx.embeddings(self.general))  # (B,)
        every = uncertainty_of(ctx, ctx.embeddings(self.general, gathered=True))  # (N,)
        with torch.no_grad():
            loss = self.per_pair(ctx)
        return (loss * torch.exp(-own) + own).mean() + uncertainty_entropy(every)
