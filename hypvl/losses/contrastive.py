"""Contrastive loss over (query, key) pairs of views, for any geometry and scorer.

CLIP, MERU and ATMG are this term with the cosine, the negative Lorentz distance and the exterior angle.
"""

from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hypvl.losses.base import IMAGE, TEXT, LossTerm, PairContext, View
from hypvl.losses.form import Form, Tiling
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


class Contrastive(LossTerm):
    """Mean of :func:`contrastive_loss` over pairs; queries are local, keys come from every rank.

    Args:
        pairs: (query, key) views; default image -> text and text -> image. Strings as in
            :meth:`View.parse`, so that configs can name them. Each pair weighs the same.
        label_smoothing: In [0, 1), see :func:`contrastive_loss`; over the keys of every rank.
        form: "auto", "dense" or "tiled", see :class:`~hypvl.losses.form.Tiling`.
        tile: Rows and columns of a tile; None = what suits the device.

    Raises:
        ValueError: for no pairs, or a smoothing outside [0, 1).

    Source: CLIP arXiv 2103.00020; MERU arXiv 2304.09172; ATMG (Accept the Modality Gap, CVPR 2025), angles as
        scores; CyCLIP (2205.14459), section 3: with image -> augmented_image and text -> augmented_text besides.
    """

    def __init__(
        self,
        pairs: Sequence[Sequence[str | View]] = ((IMAGE, TEXT), (TEXT, IMAGE)),
        *,
        label_smoothing: float = 0.0,
        form: Form = "auto",
        tile: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing: got {label_smoothing}; expected a number in [0, 1).")
        if not pairs:
            raise ValueError(
                "pairs: got none; give at least one (query, key) pair such as ('image', 'text')."
            )
        self.label_smoothing = label_smoothing
        self.tiling = Tiling(form, tile)
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
                logits = self._logits(ctx, query, key)  # (B, N)
                values.append(
                    contrastive_loss(logits, ctx.targets(query), label_smoothing=self.label_smoothing)
                )
                continue
            both_ways = factored.symmetric and query != key and left[key, query] > 0
            if both_ways:
                left[key, query] -= 1
                done[key, query] += 1
            values += contrastive_losses(
                factored,
                ctx.targets(query),
                both_ways=both_ways,
                label_smoothing=self.label_smoothing,
                tile=self.tiling.size,
            )
        return torch.stack(values).mean()

    def _logits(self, ctx: PairContext, query: View, key: View) -> Tensor:
        return ctx.model.scorer.logits(
            ctx.model.geometry,
            ctx.embeddings(query),
            ctx.embeddings(key, gathered=True),
            query_modality=query.modality,
            key_modality=key.modality,
        )
