"""Contrastive loss over (query, key) pairs of views, for any geometry and scorer.

CLIP, MERU and ATMG are this term with the cosine, the negative Lorentz distance and the exterior angle.
"""

from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hypvl import distributed
from hypvl.allowlist import configurable
from hypvl.checks import number
from hypvl.losses.base import IMAGE, TEXT, LossTerm, PairContext, View
from hypvl.losses.form import Implementation, Tiling
from hypvl.losses.tiled import contrastive_losses


def contrastive_loss(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross entropy of each query's scores against its own key (InfoNCE).

    Formula: ``mean_i ( logsumexp_j z_ij - (1 - e) z_{i, t_i} - e mean_j z_ij )``.

    Args:
        logits: (Q, K) scaled scores, higher = closer; computed in fp32 or better.
        targets: (Q,) int64, column of each query's positive key.
        label_smoothing: e in [0, 1): the share of the target that is spread evenly over all K keys.

    Returns:
        0-dim.

    Source: Oord et al. 2018 (arXiv 1807.03748), eq. 4; Radford et al. 2021 (arXiv 2103.00020), fig. 3;
        smoothing: Szegedy et al. 2016 (arXiv 1512.00567), section 7.
    """
    return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)


def labelled_contrastive_loss(logits: Tensor, same: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross entropy of each query's scores against all keys of its label.

    Formula: ``mean_i ( logsumexp_j z_ij - (1 - e) mean_{j in P_i} z_ij - e mean_j z_ij )``, P_i the keys of i's label.

    Args:
        logits: (Q, K) scaled scores, higher = closer; computed in fp32 or better.
        same: (Q, K) bool, whether key j has the label of query i; at least one in each row.
        label_smoothing: e in [0, 1).

    Returns:
        0-dim.

    Source: UniCL, Yang et al. 2022 (arXiv 2204.03610), eq. 2 and 3; as "out" of SupCon (arXiv 2004.11362).
    """
    positive = torch.where(same, logits, 0.0).sum(1) / same.sum(1)
    loss = logits.logsumexp(1) - (1 - label_smoothing) * positive
    return (loss - label_smoothing * logits.mean(1)).mean() if label_smoothing else loss.mean()


@configurable("train")
class Contrastive(LossTerm):
    """Mean of :func:`contrastive_loss` over pairs; queries are local, keys come from every rank.

    Args:
        pairs: (query, key) views; default image -> text and text -> image. Strings as in
            :meth:`View.parse`, so that configs can name them. Each pair weighs the same.
        label_smoothing: In [0, 1), see :func:`contrastive_loss`; over the keys of every rank.
        labels: Entry of the batch with a label of each sample, (B,) int64: all keys of a query's label are its
            positives (:func:`labelled_contrastive_loss`); -1 = no label, the only positive is its own key.
        implementation: "auto", "dense" or "tiled", see :class:`~hypvl.losses.form.Tiling`.
        tile: Rows and columns of a tile; None = what suits the device.

    Raises:
        ValueError: for no pairs, or a smoothing outside [0, 1).

    Source: CLIP arXiv 2103.00020; MERU arXiv 2304.09172; ATMG (Accept the Modality Gap, CVPR 2025), angles as
        scores; CyCLIP (2205.14459), section 3: with image -> augmented_image and text -> augmented_text besides;
        UniCL (2204.03610): with labels.
    """

    def __init__(
        self,
        pairs: Sequence[Sequence[str | View]] = ((IMAGE, TEXT), (TEXT, IMAGE)),
        *,
        label_smoothing: float = 0.0,
        labels: str | None = None,
        implementation: Implementation = "auto",
        tile: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        number("label_smoothing", label_smoothing, least=0, below=1)
        if not pairs:
            raise ValueError(
                "pairs: got none; give at least one (query, key) pair such as ('image', 'text')."
            )
        self.label_smoothing = label_smoothing
        self.labels = labels
        self.tiling = Tiling(implementation, tile)
        self.pairs = tuple((View.parse(query), View.parse(key)) for query, key in pairs)
        self.needs = frozenset(view for pair in self.pairs for view in pair)

    def forward(self, ctx: PairContext) -> Tensor:
        values: list[Tensor] = []
        done: Counter[tuple[View, View]] = Counter()
        left = Counter(self.pairs)
        for query, key in self.pairs:
            if done[query, key]:  # came with the other direction
                done[query, key] -= 1
                continue
            left[query, key] -= 1
            factored = self.tiling.scores(
                ctx.model, ctx.embeddings(query), ctx.embeddings(key, gathered=True), query=query, key=key
            )
            if factored is None:
                values.append(self._dense(ctx, query, key))
                continue
            both_ways = factored.symmetric and query != key and left[key, query] > 0
            if both_ways:
                left[key, query] -= 1
                done[key, query] += 1
            values += contrastive_losses(
                factored,
                ctx.targets(query),
                labels=self._labels(ctx, query),
                both_ways=both_ways,
                label_smoothing=self.label_smoothing,
                tile=self.tiling.size,
            )
        return torch.stack(values).mean()

    def _labels(self, ctx: PairContext, query: View) -> tuple[Tensor, Tensor] | None:
        """Labels of the local samples and of all; the unlabelled have one of their own each."""
        if self.labels is None:
            return None
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

    def _dense(self, ctx: PairContext, query: View, key: View) -> Tensor:
        logits = self._logits(ctx, query, key)  # (B, N)
        labels = self._labels(ctx, query)
        if labels is None:
            return contrastive_loss(logits, ctx.targets(query), label_smoothing=self.label_smoothing)
        same = labels[0][:, None] == labels[1]
        return labelled_contrastive_loss(logits, same, label_smoothing=self.label_smoothing)

    def _logits(self, ctx: PairContext, query: View, key: View) -> Tensor:
        return ctx.model.scorer.logits(
            ctx.model.geometry,
            ctx.embeddings(query),
            ctx.embeddings(key, gathered=True),
            query_modality=query.modality,
            key_modality=key.modality,
        )
