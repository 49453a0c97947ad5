"""Contrastive loss with hard negatives (false captions of the same image) as further keys of the images.

What the terms about hard negatives share is here as well.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from torch import Tensor

from hypvl import distributed
from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.losses.base import IMAGE, TEXT, LossTerm, PairContext, View
from hypvl.losses.info_nce import Implementation, check_implementation, info_nce

#: Whether negatives that the mask calls invalid are keys like the others, or are left out.
InvalidNegatives: TypeAlias = Literal["keep", "mask"]
NEGATIVE_TEXT = View("text", "negative_text")


class NegativesTerm(LossTerm):
    """A term about views of images, captions (``text``) and their hard negatives, K per sample, sample-major.

    ``mask`` is the entry of the batch with the validity of the negatives, (B, K).
    """

    def __init__(self, *, image: str | View, text: str | View, negatives: str | View, mask: str) -> None:
        super().__init__()
        self.image, self.text, self.negatives = self.declare(image, text, negatives)
        self.mask = mask
        self.entries = frozenset({mask})

    def valid_negatives(self, ctx: PairContext) -> Tensor:
        """The mask of the local negatives, (B, K) bool. Raises MissingInputError, or ValueError if it does not fit."""
        meaning = f"which says which rows of {self.negatives} are valid"
        mask: Tensor = ctx.entry(self.mask, meaning=meaning, otherwise="all true if all are valid")
        rows = len(ctx.features(self.negatives))
        if mask.dim() != 2 or mask.numel() != rows:
            raise ValueError(
                f"{self.mask}: got shape {tuple(mask.shape)} for {rows} rows of {self.negatives}; expected (B, K) with "
                f"B K = {rows}."
            )
        return mask.bool()


@configurable("train")
class HardNegativeContrastive(NegativesTerm):
    """``(CE(s X [T; H]) + CE(s T X)) / 2``: CLIP's loss whose images also see every rank's hard negatives H.

    Texts have images as keys only, since no image belongs to a false caption. Queries are local, keys come from every
    rank.

    Args:
        image, text, negatives: As :class:`NegativesTerm`.
        invalid_negatives: ``"keep"`` as published: they are keys, too, so their texts should be neutral (empty, never
            the caption itself, which would be a second positive in the denominator). ``"mask"``: left out.
        mask: As :class:`NegativesTerm`; read only when ``invalid_negatives`` is ``"mask"``.
        implementation, tile: As for :func:`~hypvl.losses.info_nce.info_nce`.

    Raises:
        ValueError: for an unknown ``invalid_negatives`` or implementation.

    Source: CE-CLIP (arXiv 2306.08832), section 3; NegCLIP (arXiv 2210.01936), section 4, which
        adds the negatives in both directions.
    """

    rings = True

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
        super().__init__(image=image, text=text, negatives=negatives, mask=mask)
        check_implementation(implementation, tile)
        self.implementation, self.tile = implementation, tile
        self.invalid_negatives = one_of("invalid_negatives", invalid_negatives, InvalidNegatives)

    def forward(self, ctx: PairContext) -> Tensor:
        valid = None
        if self.invalid_negatives == "mask":
            valid = distributed.gather(self.valid_negatives(ctx)).flatten()  # (N*K,)
        return info_nce(
            ctx,
            self.image,
            self.text,
            both_directions=True,
            extra_keys=self.negatives,
            valid=valid,
            implementation=self.implementation,
            tile=self.tile,
        ).mean()
