"""Intra-modal contrastive loss (IMC): captions against the hard negatives, which are texts as well."""

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from hypvl import distributed
from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.losses.base import IMAGE, TEXT, PairContext, View
from hypvl.losses.hard_negative import NEGATIVE_TEXT, InvalidNegatives, NegativesTerm
from hypvl.losses.info_nce import softmax_cross_entropy

Variant: TypeAlias = Literal["fixed", "own_negatives", "first_release", "head"]


def intra_modal_loss(positive: Tensor | None, negatives: Tensor, *, variant: Variant = "fixed") -> Tensor:
    """Cross entropy of captions whose negatives are texts and whose positive is their image.

    Formula: ``mean_i ( logsumexp([p_i, z_i1, ..., z_iM]) - p_i )``. By name, the published faults: ``first_release``
    subtracts ``z_i1`` instead of ``p_i``, and ``head`` also leaves ``p_i`` out of the sum. Both pull every caption
    towards the first negative.

    Args:
        positive: p, (B,) scaled score of each caption with its image; None for ``"head"``, which has none.
        negatives: z, (B, M) scaled scores of each caption with M negatives; -inf = left out.
        variant: ``"fixed"`` (``"own_negatives"`` is the same formula) or a published fault.

    Returns:
        0-dim.

    Raises:
        ValueError: when a positive is missing, or given for ``"head"``.

    Source: CE-CLIP (Zhang et al. 2024, arXiv 2306.08832), section 3, as its repaired code computes it.

    Example:
        >>> intra_modal_loss(torch.zeros(1), torch.zeros(1, 3))  # log 4
        tensor(1.3863)
    """
    one_of("variant", variant, Variant)
    if (positive is None) != (variant == "head"):
        raise ValueError(
            f"positive: {'missing' if positive is None else 'given'} with variant={variant!r}; only 'head' has none."
        )
    scores = negatives if positive is None else torch.cat([positive[:, None], negatives], dim=1)
    target = 1 if variant == "first_release" else 0
    return softmax_cross_entropy(
        scores, torch.full((len(scores),), target, dtype=torch.int64, device=scores.device)
    )


@configurable("train")
class IntraModal(NegativesTerm):
    """Each caption against hard negatives; its score with its image is the positive, see :func:`intra_modal_loss`.

    Text-text scores are the scorer's for two texts, the positive is the scorer's for the image and its caption. On
    the sphere both are cosines. Where they are not the same measure (ATMG: an angle and a distance) the loss is
    defined, but compares unlike numbers. Captions are local, negatives come from every rank. ``"first_release"``
    and ``"head"`` depend on the order of the batch: their target is the first negative of its first sample.

    Args:
        variant: ``"fixed"``: against all negatives of all ranks. ``"own_negatives"``: against the K of its own sample.
            ``"first_release"`` and ``"head"``: what the published code computed at those times, for comparison.
        invalid_negatives: ``"keep"`` as published: they count like the others, so their texts should be neutral (empty,
            never the caption itself). ``"mask"``: left out.
        image, text, negatives: As :class:`~hypvl.losses.hard_negative.NegativesTerm`.
        mask: Likewise; read only when ``invalid_negatives`` is ``"mask"``.

    Raises:
        ValueError: for an unknown variant or ``invalid_negatives``, or a published fault with masked negatives.

    Source: CE-CLIP (arXiv 2306.08832), section 3.
    Differs: the default is the repaired formula of the published code, not its last one, whose target is a negative.
    """

    def __init__(
        self,
        variant: Variant = "fixed",
        *,
        invalid_negatives: InvalidNegatives = "keep",
        image: str | View = IMAGE,
        text: str | View = TEXT,
        negatives: str | View = NEGATIVE_TEXT,
        mask: str = "negative_mask",
    ) -> None:
        super().__init__(image=image, text=text, negatives=negatives, mask=mask)
        self.variant = one_of("variant", variant, Variant)
        self.invalid_negatives = one_of("invalid_negatives", invalid_negatives, InvalidNegatives)
        if invalid_negatives == "mask" and variant in ("first_release", "head"):
            raise ValueError(
                f"invalid_negatives: got 'mask' with variant={variant!r}, whose target is a negative; expected 'keep'."
            )
        if variant == "head":  # has no positive
            self.needs -= {self.image}

    def forward(self, ctx: PairContext) -> Tensor:
        head = self.variant == "head"
        positive = None if head else ctx.own_logits(self.image, self.text).squeeze(1)  # (B,)
        if self.variant == "own_negatives":
            scores = ctx.own_logits(self.text, self.negatives)  # (B, K)
        else:
            scores = ctx.logits(self.text, self.negatives)  # (B, N*K)
        if self.invalid_negatives == "mask":
            valid = self.valid_negatives(ctx)  # (B, K)
            if self.variant != "own_negatives":
                valid = distributed.gather(valid).flatten()  # (N*K,)
            scores = scores.masked_fill(~valid, -torch.inf)
        return intra_modal_loss(positive, scores, variant=self.variant)
