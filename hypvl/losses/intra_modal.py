"""Intra-modal contrastive loss (IMC): captions keep away from the hard negatives, which are texts as they are."""

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from hypvl import distributed
from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.losses.base import IMAGE, TEXT, LossTerm, PairContext, View
from hypvl.losses.contrastive import contrastive_loss
from hypvl.losses.hard_negative import NEGATIVE_TEXT, Invalid, own_logits, valid_negatives

Form: TypeAlias = Literal["fixed", "own_negatives", "first_release", "head"]


def intra_modal_loss(positive: Tensor | None, negatives: Tensor, *, form: Form = "fixed") -> Tensor:
    """Cross entropy of captions whose negatives are texts and whose positive is their image.

    Formula: ``mean_i ( logsumexp([p_i, z_i1, ..., z_iM]) - p_i )``. By name, the published faults: ``first_release``
    has ``- z_i1`` in place of ``- p_i``, and ``head`` leaves ``p_i`` out of the sum as well. Both pull every caption
    to the first negative.

    Args:
        positive: p, (B,) scaled score of each caption with its image; None for ``"head"``, which has none.
        negatives: z, (B, M) scaled scores of each caption with M negatives; -inf = left out.
        form: ``"fixed"`` (``"own_negatives"`` is the same formula) or a published fault.

    Returns:
        0-dim.

    Raises:
        ValueError: when a positive is missing, or given for ``"head"``.

    Source: CE-CLIP (Zhang et al. 2024, arXiv 2306.08832), section 3, in the form of its repaired code.
    """
    one_of("form", form, Form)
    if (positive is None) != (form == "head"):
        raise ValueError(
            f"positive: {'missing' if positive is None else 'given'} with form={form!r}; only 'head' has none."
        )
    scores = negatives if positive is None else torch.cat([positive[:, None], negatives], dim=1)
    target = 1 if form == "first_release" else 0
    return contrastive_loss(
        scores, torch.full((len(scores),), target, dtype=torch.int64, device=scores.device)
    )


@configurable("train")
class IntraModal(LossTerm):
    """Each caption against hard negatives; its score with its image is the positive, see :func:`intra_modal_loss`.

    Text-text scores are the scorer's for two texts, the positive is the scorer's for the image and its caption. On
    the sphere both are cosines. Where they are not the same measure (ATMG: an angle and a distance) the loss is
    defined, but compares unlike numbers. Captions are local, negatives come from every rank. ``"first_release"``
    and ``"head"`` depend on the order of the batch: their target is the first negative of its first sample.

    Args:
        form: ``"fixed"``: against all negatives of all ranks. ``"own_negatives"``: against the K of its own sample.
            ``"first_release"`` and ``"head"``: what the published code computed at those times, for comparison.
        invalid: ``"kept"`` as published: invalid negatives count like the others, so their texts should be neutral
            (empty, never the caption itself). ``"masked"``: left out.
        image: View of the images.
        text: View of the captions.
        negatives: View of the hard negatives, any number K per sample, sample-major.
        mask: Entry of the batch with their validity, (B, K); read only when ``invalid`` is ``"masked"``.

    Raises:
        ValueError: for an unknown form or ``invalid``, or a published fault with masked negatives.

    Source: CE-CLIP (arXiv 2306.08832), section 3.
    Differs: the default is the published code's repaired form, not its last one, whose target is a negative.
    """

    def __init__(
        self,
        form: Form = "fixed",
        *,
        invalid: Invalid = "kept",
        image: str | View = IMAGE,
        text: str | View = TEXT,
        negatives: str | View = NEGATIVE_TEXT,
        mask: str = "negative_mask",
    ) -> None:
        super().__init__()
        if form not in get_args(Form):
            raise ValueError(f"form: got {form!r}; expected one of {', '.join(get_args(Form))}.")
        if invalid not in get_args(Invalid):
            raise ValueError(f"invalid: got {invalid!r}; expected 'kept' or 'masked'.")
        if invalid == "masked" and form in ("first_release", "head"):
            raise ValueError(
                f"invalid: got 'masked' with form={form!r}, whose target is a negative; expected 'kept'."
            )
        self.form, self.invalid, self.mask = form, invalid, mask
        self.image, self.text, self.negatives = (View.parse(view) for view in (image, text, negatives))
        self.needs = frozenset({self.text, self.negatives} | (set() if form == "head" else {self.image}))

    def forward(self, ctx: PairContext) -> Tensor:
        model = ctx.model
        positive = None if self.form == "head" else own_logits(ctx, self.image, self.text).squeeze(1)  # (B,)
        if self.form == "own_negatives":
            scores = own_logits(ctx, self.text, self.negatives)  # (B, K)
        else:
            scores = model.scorer.logits(
                model.geometry,
                ctx.embeddings(self.text),
                ctx.embeddings(self.negatives, gathered=True),
                query_modality=self.text.modality,
                key_modality=self.negatives.modality,
            )  # (B, N*K)
        if self.invalid == "masked":
            valid = valid_negatives(ctx, self.mask, self.negatives)  # (B, K)
            if self.form != "own_negatives":
                valid = distributed.gather(valid).flatten()  # (N*K,)
            scores = scores.masked_fill(~valid, -torch.inf)
        return intra_modal_loss(positive, scores, form=self.form)
