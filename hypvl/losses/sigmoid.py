"""SigLIP: each pair is classified as matching or not, without a softmax over the batch."""

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypvl.allowlist import configurable
from hypvl.checks import number, one_of
from hypvl.losses.base import IMAGE, TEXT, LossTerm, PairContext, View
from hypvl.losses.info_nce import Implementation
from hypvl.losses.pairwise import Pairs, logits, mean_over_queries, sum_over_ring
from hypvl.losses.ring import parameters_of
from hypvl.numerics import full_precision

Denominator = Literal["batch", "pairs"]


@full_precision
def sigmoid_loss(logits: Tensor, targets: Tensor, *, denominator: Denominator = "batch") -> Tensor:
    """Binary cross entropy over all pairs of queries and keys.

    Formula: ``1/B sum_ij -log sigmoid(z_ij l_ij)``, z = +1 where key j belongs to query i, else -1.

    Args:
        logits: (B, N) scores with scale and bias, higher = closer.
        targets: (B,) int64, column of each query's own key.
        denominator: "batch": the number of queries, as published; "pairs": queries times keys, the plain mean.

    Returns:
        0-dim, > 0.

    Raises:
        ValueError: for another denominator.

    Source: Zhai et al., SigLIP, 2023 (arXiv 2303.15343), section 3.2 and algorithm 1.

    Example:
        >>> sigmoid_loss(torch.zeros(2, 2), torch.tensor([0, 1]))  # 2 log 2: four pairs, two queries
        tensor(1.3863)
    """
    one_of("denominator", denominator, Denominator)
    own = targets[:, None]
    signed = (-logits).scatter_(1, own, logits.gather(1, own))  # (B, N)
    rows = -F.logsigmoid(signed).sum(-1)  # (B,)
    return rows.mean() if denominator == "batch" else rows.mean() / logits.shape[1]


@configurable("train")
class Sigmoid(LossTerm):
    """:func:`sigmoid_loss` of local queries against the keys of every rank.

    The logits need a bias, so that they can be above and below 0: that of the scorer (``Cosine(bias_init=-10)``, as
    published), or one learned here for scorers without a bias.

    Args:
        query, key: Views of the pairs.
        denominator: As :func:`sigmoid_loss`.
        bias_init: Starting value of a bias learned here; None = the scorer has one.
        implementation: As for :func:`~hypvl.losses.info_nce.info_nce`.

    Raises:
        ValueError: for another denominator or implementation; in ``forward``, when neither or both have a bias.

    Source: SigLIP (arXiv 2303.15343), section 3.2: scale and bias start at 10 and -10.
    Differs: keys are gathered at once, where the published code passes them around in chunks; same value. With
        ``train.gather="ring"`` they are passed around here, too.
    """

    rings = True
    no_weight_decay: frozenset[str] = frozenset({"logit_bias"})
    logit_bias: nn.Parameter | None

    def __init__(
        self,
        *,
        query: str | View = IMAGE,
        key: str | View = TEXT,
        denominator: Denominator = "batch",
        bias_init: float | None = None,
        implementation: Implementation = "auto",
    ) -> None:
        super().__init__()
        if bias_init is not None:
            number("bias_init", bias_init)
        self.query, self.key = self.declare(query, key)
        self.implementation = one_of("implementation", implementation, Implementation)
        self.denominator = one_of("denominator", denominator, Denominator)
        self.logit_bias = None if bias_init is None else nn.Parameter(torch.tensor(float(bias_init)))

    def forward(self, ctx: PairContext) -> Tensor:
        scorer = ctx.model.scorer
        if (getattr(scorer, "bias", None) is None) == (self.logit_bias is None):
            count = "no bias" if self.logit_bias is None else "a bias and this term another"
            raise ValueError(
                f"sigmoid: {type(scorer).__name__} has {count}; expected one: set either model.scorer.bias_init "
                "(cosine scorers) or this term's bias_init, e.g. -10."
            )
        if ctx.ring:
            total = sum_over_ring(
                partial(self._of_block, ctx), ctx, self.query, self.key, parameters=parameters_of(self)
            )
            return total if self.denominator == "batch" else total / ctx.count(self.key)
        return mean_over_queries(
            self._value,
            logits(ctx, self.query, self.key),
            rows=[ctx.targets(self.query)],
            others=[] if self.logit_bias is None else [self.logit_bias],
            implementation=self.implementation,
        )

    def _value(self, scores: Tensor, targets: Tensor, *bias: Tensor) -> Tensor:
        for b in bias:
            scores = scores + b.to(scores.dtype)
        return sigmoid_loss(scores, targets, denominator=self.denominator)

    def _of_block(self, ctx: PairContext, pairs: Pairs, here: bool) -> Tensor:
        """The part of the loss that is about the keys of one rank, over the number of queries."""
        own = (
            [torch.arange(len(ctx.embeddings(self.query)), device=ctx.embeddings(self.query).device)]
            if here
            else []
        )

        def value(scores: Tensor, *further: Tensor) -> Tensor:
            for b in further[len(own) :]:
                scores = scores + b.to(scores.dtype)
            if here:
                return sigmoid_loss(scores, further[0])
            return -F.logsigmoid(-scores).sum(-1).mean()  # negatives alone

        others = [] if self.logit_bias is None else [self.logit_bias]
        return mean_over_queries(value, pairs, rows=own, others=others, implementation=self.implementation)
