"""What an image shows of a text: its patch tokens, attended to by the text."""

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from hypvl.allowlist import configurable
from hypvl.checks import MOST_FEATURES, number, one_of, whole_number
from hypvl.numerics import full_precision

PoolingMode: TypeAlias = Literal["conditioned", "mean"]


@configurable("model")
class QueryPooling(nn.Module):
    """Pools the patch tokens of an image for each of its queries, in training only.

    Formula: ``z = attention(q = W h, k = v = tokens)``, ``v = z + MLP(LN(z))``; h are the trunk features of a query.

    Args:
        visual_width: W, of the image encoder; a multiple of ``heads``.
        textual_width: Of the text encoder.
        heads: Attention heads.
        mlp_ratio: Width of the hidden layer of the MLP (exact GELU), in units of W.
        mode: ``"conditioned"``, or as a control ``"mean"``: the mean of the patch tokens, whatever the query says; it
            has no parameters.

    Raises:
        ValueError: for sizes that do not fit together.

    Source: Hyper3-CLIP (arXiv 2608.29313).
    """

    def __init__(
        self,
        visual_width: int,
        textual_width: int,
        *,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        mode: PoolingMode = "conditioned",
    ) -> None:
        super().__init__()
        self.mode = one_of("mode", mode, PoolingMode)
        heads = whole_number("heads", heads, least=1, most=MOST_FEATURES)
        mlp_ratio = number("mlp_ratio", mlp_ratio, least=1 / visual_width, most=100)
        if visual_width % heads:
            raise ValueError(
                f"heads: got {heads}; expected a divisor of the width {visual_width} of the image encoder."
            )
        if mode == "mean":
            return
        hidden = int(mlp_ratio * visual_width)
        self.text_query_proj = nn.Linear(textual_width, visual_width)
        self.cross_attention = nn.MultiheadAttention(visual_width, heads, batch_first=True)
        self.mlp_norm = nn.LayerNorm(visual_width)
        self.pool_mlp = nn.Sequential(
            nn.Linear(visual_width, hidden), nn.GELU(), nn.Linear(hidden, visual_width)
        )

    @full_precision
    def forward(self, tokens: Tensor, queries: Tensor, owner: Tensor) -> Tensor:
        """Pool, in fp32 or better.

        Args:
            tokens: (B, P, W) patch tokens of the images, without a class token.
            queries: (Q, V) trunk features of the queries.
            owner: (Q,) int64, the image of each, 0 to B - 1, in any order.

        Returns:
            (Q, W). Where Q is 0 all parameters get the gradient 0.
        """
        if self.mode == "mean":
            return tokens.mean(1)[owner]
        order = owner.argsort(stable=True)  # (Q,) queries of an image together
        counts = torch.zeros(len(tokens), dtype=owner.dtype, device=owner.device)
        counts = counts.scatter_add(0, owner, torch.ones_like(owner))  # (B,)
        most = max(1, int(counts.max()))  # waits for the device; without it keys are copied for every query
        places = torch.arange(len(owner), device=owner.device) - (counts.cumsum(0) - counts)[owner[order]]
        slots = owner[order] * most + places  # (Q,) in the matrix of `most` queries for each image
        projected = self.text_query_proj(queries)  # (Q, W)
        padded = projected.new_zeros(len(tokens) * most, projected.shape[1])
        padded = padded.index_copy(0, slots, projected[order]).unflatten(0, (-1, most))  # (B, most, W)
        z, _ = self.cross_attention(padded, tokens, tokens, need_weights=False)
        z = z.flatten(0, 1)[slots[order.argsort()]]  # (Q, W)
        return z + self.pool_mlp(self.mlp_norm(z))
