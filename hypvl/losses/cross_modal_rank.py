"""Cross-modal rank loss (CMR): an image prefers its caption to its hard negatives by an adaptive margin."""

from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from hypvl import distributed
from hypvl.allowlist import configurable
from hypvl.checks import number, one_of
from hypvl.losses.base import IMAGE, TEXT, PairContext, View
from hypvl.losses.hard_negative import NEGATIVE_TEXT, NegativesTerm

AdaptiveKind: TypeAlias = Literal["mean", "max"]
Kind: TypeAlias = Literal["mean", "max", "fixed"]
Share: TypeAlias = Literal["valid", "all"]
_SHARE_OF_MAX = 0.2  # the published 1/5 of the largest difference


def cross_modal_rank_loss(
    positive: Tensor, negatives: Tensor, *, valid: Tensor, thresholds: Tensor, count: Tensor | float
) -> Tensor:
    """Hinges between a sample's caption and its hard negatives.

    Formula: ``(1 / count) sum_{ik valid} max(0, thr_k + n_ik - p_i)``.

    Args:
        positive: p, (B,) scaled score of each image with its caption.
        negatives: n, (B, K) scaled scores of each image with its own negatives.
        valid: (B, K) bool; the others add nothing.
        thresholds: thr, (K,) or (1,), the margin of each type of negative, in units of the scores.
        count: What the sum is divided by, 0-dim or a number; below 1 counts as 1.

    Returns:
        0-dim; 0, with gradient 0, when nothing is valid.

    Source: CE-CLIP (Zhang et al. 2024, arXiv 2306.08832), section 3.

    Example:
        >>> p, n = torch.tensor([2.0]), torch.tensor([[1.5, -3.0]])
        >>> valid = torch.tensor([[True, True]])
        >>> cross_modal_rank_loss(p, n, valid=valid, thresholds=torch.ones(1), count=1.0)  # 1 + 1.5 - 2
        tensor(0.5000)
    """
    hinges = (thresholds + negatives - positive[:, None]).clamp(min=0)
    total = torch.where(valid, hinges, torch.zeros_like(hinges)).sum()
    return total / torch.as_tensor(count, dtype=total.dtype, device=total.device).clamp(min=1)


def adaptive_thresholds(
    positive: Tensor,
    negatives: Tensor,
    *,
    valid: Tensor,
    kind: AdaptiveKind,
    previous: Tensor,
    positives: Share = "valid",
) -> Tensor:
    """Margins for the next step from the scores of this one, before they are clamped.

    Formula: ``mean``: ``mean_i p_i - mean_{i valid} n_ik``; ``max``: ``(1/5) max_{i valid} (p_i - n_ik)``.

    Args:
        positive: p, (N,).
        negatives: n, (N, K).
        valid: (N, K) bool.
        kind: Which formula.
        previous: (K,) or (1,), the margins of types without a valid negative.
        positives: Samples of the mean of p: those whose negative of that type is valid, or all.

    Returns:
        (K,).

    Source: CE-CLIP (arXiv 2306.08832), section 3.

    Example:
        >>> p, n = torch.tensor([2.0]), torch.tensor([[1.5, -3.0]])
        >>> valid = torch.tensor([[True, True]])
        >>> adaptive_thresholds(p, n, valid=valid, kind="mean", previous=torch.zeros(2))
        tensor([0.5000, 5.0000])
    """
    one_of("kind", kind, AdaptiveKind)
    one_of("positives", positives, Share)
    present, counts = valid.any(0), valid.sum(0).clamp(min=1)
    scores = positive[:, None].expand_as(negatives)  # (N, K)
    if kind == "max":
        new = _SHARE_OF_MAX * (scores - negatives).masked_fill(~valid, -torch.inf).amax(0)
    else:
        wrong = torch.where(valid, negatives, torch.zeros_like(negatives)).sum(0) / counts
        right = torch.where(valid, scores, torch.zeros_like(scores)).sum(0) / counts
        new = (positive.mean() if positives == "all" else right) - wrong
    return torch.where(present, new, previous.to(new.dtype))


@configurable("train")
class CrossModalRank(NegativesTerm):
    """:func:`cross_modal_rank_loss` with one threshold per type of negative, taken from the step before.

    Any number K of negatives per sample, in the same order of types in every sample; thresholds start at 0.

    Args:
        kind: ``"mean"`` or ``"max"``: see :func:`adaptive_thresholds`, over all ranks. ``"fixed"``: a constant.
        fixed_threshold: That constant, in units of the logits; published default 2, published script 10.
        upper_bound: Adaptive thresholds are clamped into [0, upper_bound].
        denominator: Of the mean: ``"valid"`` negatives of all ranks, or ``"all"``, B K, as published.
        positives: Mean threshold: over ``"valid"`` samples of a type, or ``"all"``, as published.
        reset: Adaptive thresholds return to 0 at the begin of each ``"epoch"``, as published, or ``"never"``.
        image, text, negatives, mask: As :class:`~hypvl.losses.hard_negative.NegativesTerm`.

    Raises:
        ValueError: for arguments out of range; later, for a K that is not that of the thresholds.

    Source: CE-CLIP (arXiv 2306.08832), section 3.
    Differs: negatives are valid by the mask; published: by a score other than 0. A type absent from a batch keeps
        its threshold; published: NaN from there on. Thresholds are computed after the optimizer's step from that
        step's embeddings, so with the scale as it is then.
    """

    thresholds: Tensor  # (K,), or (1,) before the first step; the same on every rank

    def __init__(
        self,
        kind: Kind = "mean",
        *,
        fixed_threshold: float = 2.0,
        upper_bound: float = 10.0,
        denominator: Share = "valid",
        positives: Share = "valid",
        reset: Literal["epoch", "never"] = "epoch",
        image: str | View = IMAGE,
        text: str | View = TEXT,
        negatives: str | View = NEGATIVE_TEXT,
        mask: str = "negative_mask",
    ) -> None:
        super().__init__(image=image, text=text, negatives=negatives, mask=mask)
        self.kind = one_of("kind", kind, Kind)
        self.denominator = one_of("denominator", denominator, Share)
        self.positives = one_of("positives", positives, Share)
        self.reset = one_of("reset", reset, ("epoch", "never"))
        self.upper_bound = number("upper_bound", upper_bound, above=0)
        number("fixed_threshold", fixed_threshold)
        start = torch.full((1,), float(fixed_threshold) if kind == "fixed" else 0.0)
        self.register_buffer("thresholds", start, persistent=kind != "fixed")

    def forward(self, ctx: PairContext) -> Tensor:
        positive, negatives, valid = self._scores(ctx)
        if len(self.thresholds) not in (1, negatives.shape[1]):
            raise ValueError(
                f"{self.negatives}: got {negatives.shape[1]} negatives per sample, but the thresholds are of "
                f"{len(self.thresholds)} types; train on with the types of before, or from new thresholds."
            )
        count: Tensor | float = negatives.numel()
        if self.denominator == "valid":  # of all ranks, so that the mean over ranks is the joined batch's
            count = distributed.all_reduce_mean(valid.sum().to(negatives.dtype))
        return cross_modal_rank_loss(
            positive, negatives, valid=valid, thresholds=self.thresholds.to(negatives.dtype), count=count
        )

    def update_(self, ctx: PairContext) -> None:
        """Thresholds for the next step, from the samples of every rank."""
        if self.kind == "fixed":
            return
        positive, negatives, valid = (distributed.gather(x) for x in self._scores(ctx))
        new = adaptive_thresholds(
            positive,
            negatives,
            valid=valid,
            kind=self.kind,
            previous=self.thresholds,
            positives=self.positives,
        )
        self.thresholds = new.detach().clamp(0.0, self.upper_bound).to(self.thresholds.dtype)

    def begin_epoch_(self) -> None:
        """Adaptive thresholds back to 0, unless they are never reset."""
        if self.kind != "fixed" and self.reset == "epoch":
            self.thresholds = torch.zeros_like(self.thresholds)

    def _scores(self, ctx: PairContext) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of the local images with caption (B,) and negatives (B, K), and which negatives are valid."""
        positive, negatives = (
            ctx.own_logits(self.image, self.text),
            ctx.own_logits(self.image, self.negatives),
        )
        return positive.squeeze(1), negatives, self.valid_negatives(ctx)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """A run tells the number of types only by its thresholds."""
        saved = state_dict.get(f"{prefix}thresholds")
        if isinstance(saved, Tensor) and self.kind != "fixed":
            self.thresholds = self.thresholds.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)
