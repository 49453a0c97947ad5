"""Contrastive loss with hard negatives (false captions of the same image) as further keys of the images.

What the terms about hard negatives share is here as well: scores of samples against their own texts, and the mask.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from hypvl import distributed
from hypvl.allowlist import configurable
from hypvl.losses.base import IMAGE, TEXT, LossTerm, PairContext, View
from hypvl.losses.contrastive import contrastive_loss
from hypvl.losses.form import Implementation, Tiling
from hypvl.losses.tiled import contrastive_losses

#: What happens to negatives that the mask calls invalid: they stay keys like the others, or are left out.
InvalidNegatives: TypeAlias = Literal["keep", "mask"]
NEGATIVE_TEXT = View("text", "negative_text")
_AT_ONCE = 64  # samples scored against each other's texts to get the scores against their own


def own_logits(ctx: PairContext, query: View, key: View) -> Tensor:
    """Logits of each local sample against its own texts only.

    Args:
        ctx: The step.
        query: A view with one row per sample, (B, D).
        key: A view with K rows per sample, sample-major, (B*K, D).

    Returns:
        (B, K); cost and memory grow with B K, not with their square.

    Raises:
        ValueError: when the rows of ``key`` are no multiple of those of ``query``.
    """
    model, queries, keys = ctx.model, ctx.embeddings(query), ctx.embeddings(key)
    count = _per_sample(queries, keys, key)
    blocks = []
    for some, theirs in zip(queries.split(_AT_ONCE), keys.split(_AT_ONCE * count), strict=True):
        logits = model.scorer.logits(
            model.geometry, some, theirs, query_modality=query.modality, key_modality=key.modality
        )  # (b, b*K)
        blocks.append(logits.unflatten(1, (-1, count)).diagonal().mT)  # (b, K)
    return torch.cat(blocks)


def valid_negatives(ctx: PairContext, name: str, negatives: View) -> Tensor:
    """The mask of the local negatives, (B, K) bool.

    Raises:
        MissingInputError: when the batch has no entry of this name.
        ValueError: when it does not fit the negatives.
    """
    meaning = f"which says which rows of {negatives} are valid"
    mask: Tensor = ctx.entry(name, meaning=meaning, otherwise="all true if all are valid")
    rows = len(ctx.features(negatives))
    if mask.dim() != 2 or mask.numel() != rows:
        raise ValueError(
            f"{name}: got shape {tuple(mask.shape)} for {rows} rows of {negatives}; expected (B, K) with B K = {rows}."
        )
    return mask.bool()


def hard_negative_loss(logits: Tensor, targets: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Mean cross entropy of images against all captions and all hard negatives.

    Formula: ``mean_i ( logsumexp_j z_ij - z_{i, t_i} )`` over the captions and the (valid) negatives j.

    Args:
        logits: (B, N + M) scaled scores: N captions, then M negatives.
        targets: (B,) int64, column of each image's caption.
        valid: (M,) bool; negatives that are not are left out. None = all count.

    Returns:
        0-dim.

    Source: NegCLIP (Yuksekgonul et al. 2023, arXiv 2210.01936), section 4; CE-CLIP (Zhang et al. 2024,
        arXiv 2306.08832), section 3.
    """
    if valid is not None:
        captions = logits.shape[1] - len(valid)
        left_out = torch.cat([valid.new_zeros(captions), ~valid])
        logits = logits.masked_fill(left_out, -torch.inf)
    return contrastive_loss(logits, targets)


@configurable("train")
class HardNegativeContrastive(LossTerm):
    """``(CE(s X [T; H]) + CE(s T X)) / 2``: CLIP's loss whose images also see every rank's hard negatives H.

    Texts see images only: no image belongs to a false caption. Queries are local, keys come from every rank.

    Args:
        image: View of the images.
        text: View of the captions.
        negatives: View of the hard negatives, any number K per sample, sample-major.
        invalid_negatives: ``"keep"`` as published: they are keys, too, so their texts should be neutral (empty, never
            the caption itself, which would be a second positive in the denominator). ``"mask"``: left out.
        mask: Entry of the batch with their validity, (B, K); read only when ``invalid_negatives`` is ``"mask"``.
        implementation: "auto", "dense" or "tiled", see :class:`~hypvl.losses.form.Tiling`.
        tile: Rows and columns of a tile; None = what suits the device.

    Raises:
        ValueError: for an unknown ``invalid_negatives`` or implementation.

    Source: CE-CLIP (arXiv 2306.08832), section 3; NegCLIP (arXiv 2210.01936), section 4, which has it both ways.
    """

    def __init__(
        self,
        *,
        image: str | View = IMAGE,
        text: str | View = TEXT,
        negatives: str | View = NEGATIVE_TEXT,
        invalid_negatives: InvalidNegatives = "keep",
        mask: str = "negative_mask",
        implementation: Implementation = "auto",
        tile: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if invalid_negatives not in get_args(InvalidNegatives):
            raise ValueError(f"invalid_negatives: got {invalid_negatives!r}; expected 'keep' or 'mask'.")
        self.tiling = Tiling(implementation, tile)
        self.image, self.text, self.negatives = (View.parse(view) for view in (image, text, negatives))
        self.invalid_negatives, self.mask = invalid_negatives, mask
        self.needs = frozenset({self.image, self.text, self.negatives})

    def forward(self, ctx: PairContext) -> Tensor:
        model, targets = ctx.model, ctx.targets(self.image)
        keys = torch.cat([ctx.embeddings(view, gathered=True) for view in (self.text, self.negatives)])
        valid = None
        if self.invalid_negatives == "mask":
            valid = distributed.gather(valid_negatives(ctx, self.mask, self.negatives)).flatten()  # (N*K,)
        tiled = self._tiled(ctx, keys, valid)
        if tiled is not None:
            return tiled
        by_image = model.scorer.logits(
            model.geometry,
            ctx.embeddings(self.image),
            keys,
            query_modality=self.image.modality,
            key_modality=self.text.modality,
        )  # (B, N + N*K)
        by_text = model.scorer.logits(
            model.geometry,
            ctx.embeddings(self.text),
            ctx.embeddings(self.image, gathered=True),
            query_modality=self.text.modality,
            key_modality=self.image.modality,
        )  # (B, N)
        of_images = hard_negative_loss(by_image, targets, valid=valid)
        return (of_images + contrastive_loss(by_text, targets)) / 2

    def _tiled(self, ctx: PairContext, keys: Tensor, valid: Tensor | None) -> Tensor | None:
        """The same from tiles, None where the dense form is chosen."""
        images, targets = ctx.embeddings(self.image), ctx.targets(self.image)
        if not self.tiling.chosen(len(images), len(keys)):
            return None
        tiling = Tiling("tiled", self.tiling.tile)  # also where there are fewer keys
        if valid is not None:  # only here: a device is waited for to count them
            others = len(keys) - len(valid)
            keys = torch.cat([keys[:others], keys[others:][valid]])
        scores = tiling.scores(ctx.model, images, keys, query=self.image, key=self.text)
        if scores is None:
            return None
        losses = contrastive_losses(scores, targets, both_ways=scores.symmetric, tile=tiling.size)
        if not scores.symmetric:
            texts, every_image = ctx.embeddings(self.text), ctx.embeddings(self.image, gathered=True)
            scores = tiling.scores(ctx.model, texts, every_image, query=self.text, key=self.image)
            assert scores is not None
            losses += contrastive_losses(scores, targets, tile=tiling.size)
        return torch.stack(losses).mean()


def _per_sample(queries: Tensor, keys: Tensor, view: View) -> int:
    """How many rows of ``keys`` belong to each query."""
    count, rest = divmod(len(keys), len(queries))
    if rest or not count:
        raise ValueError(
            f"{view}: got {len(keys)} rows for {len(queries)} samples; expected the same number K for each."
        )
    return count
