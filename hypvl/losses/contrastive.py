"""The contrastive term: with the cosine the loss of CLIP, with the negative Lorentz distance that of MERU.

With the exterior angle it is ATMG's.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hypvl import distributed
from hypvl.allowlist import configurable
from hypvl.checks import number, one_of
from hypvl.losses.base import IMAGE, TEXT, LossTerm, Model, PairContext, View, check_scale
from hypvl.losses.info_nce import Implementation, check_implementation, group_directions, info_nce
from hypvl.losses.owners import Over, owner_entry


@configurable("train")
class Contrastive(LossTerm):
    """Mean of :func:`~hypvl.losses.info_nce.softmax_cross_entropy` over pairs of views.

    Queries are local, keys come from every rank. Samples may have any number of
    boxes: each weighs the same.

    Args:
        pairs: (query, key) views; default image -> text and text -> image. Strings as in :meth:`View.parse`, so that
            configs can name them. Each pair has the same weight.
        label_smoothing: In [0, 1), over the keys of every rank.
        labels: Entry of the batch with a label of each sample, (B,) int64: all keys of a query's label are its
            positives; -1 = no label, the only positive is its own key.
        scale: Name of the scorer's scale that multiplies the scores; None = its own.
        over: With any number of boxes for each sample: ``"gathered"``: every box of every rank weighs the same;
            ``"local"``: the mean over this rank's boxes.
        implementation, tile: As for :func:`~hypvl.losses.info_nce.info_nce`.

    Raises:
        ValueError: for no pairs, or a smoothing outside [0, 1).

    Source: CLIP arXiv 2103.00020; MERU arXiv 2304.09172; ATMG (Accept the Modality Gap, CVPR 2025), angles as
        scores; CyCLIP (2205.14459), section 3: with image -> augmented_image and text -> augmented_text besides;
        UniCL (2204.03610): with labels.
    """

    uneven = True
    rings = True

    def __init__(
        self,
        pairs: Sequence[Sequence[str | View]] = ((IMAGE, TEXT), (TEXT, IMAGE)),
        *,
        label_smoothing: float = 0.0,
        labels: str | None = None,
        scale: str | None = None,
        over: Over = "gathered",
        implementation: Implementation = "auto",
        tile: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.over = one_of("over", over, Over)
        number("label_smoothing", label_smoothing, least=0, below=1)
        check_implementation(implementation, tile)
        self.directions = group_directions(pairs)
        self.label_smoothing, self.labels, self.scale = label_smoothing, labels, scale
        self.implementation, self.tile = implementation, tile
        self.needs = frozenset(view for direction in self.directions for view in direction[:2])
        self.entries = frozenset() if labels is None else frozenset({labels})

    def check(self, models: Mapping[str, Model]) -> None:
        super().check(models)
        check_scale(models, self.scale)

    def check_batch(self, samples: int) -> None:
        """Refuse a batch of one sample, whose loss is 0 whatever the model, unless its boxes may be told apart."""
        if samples == 1 and all(owner_entry(view) is None for view in self.needs):
            raise ValueError(
                "batch: got 1 sample over all ranks, whose loss is 0 whatever the model, as it has no other to be told "
                "from; expected 2 or more (train.total_batch_size / train.naive_accumulate)."
            )

    def forward(self, ctx: PairContext) -> Tensor:
        losses = [
            info_nce(
                ctx,
                query,
                key,
                both_directions=both,
                labels=self._labels(ctx, query),
                smoothing=self.label_smoothing,
                scale=self.scale,
                over=self.over,
                implementation=self.implementation,
                tile=self.tile,
            )
            for query, key, both in self.directions
        ]
        return torch.cat(losses).mean()

    def _labels(self, ctx: PairContext, query: View) -> tuple[Tensor, Tensor] | None:
        """Labels of the local samples and of all; each sample without one gets a label of its own."""
        if self.labels is None:
            return None
        if ctx.owner(query) is not None:
            raise ValueError(
                f"labels: got {self.labels!r}, a label of each sample, for {query}, of which a sample has any number; "
                "set labels=None, or leave these pairs to a term of their own."
            )
        given = ctx.entry(self.labels, meaning="the labels of its samples", otherwise="or set labels=None")
        targets = ctx.targets(query)
        if not isinstance(given, Tensor):
            raise ValueError(
                f"{self.labels}: got a {type(given).__name__}; expected an int64 tensor with the label of each sample."
            )
        if given.shape != targets.shape:
            raise ValueError(
                f"{self.labels}: got shape {tuple(given.shape)} for {len(targets)} samples; expected one label each."
            )
        local = torch.where(given < 0, -1 - targets, given)
        return local, distributed.gather(local)
