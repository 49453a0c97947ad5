"""Learned vectors in place of the words of a prompt (CoOp)."""

import torch
from torch import Tensor, nn

from hypvl.checks import whole_number


class PromptVectors(nn.Module):
    """``count`` vectors that stand between the start token and the rest of every text.

    In a row of tokens, id -1 - i stands for vector i; a vocabulary has no negative ids. So a prompted text goes the
    way of any other: cut into groups, given positions, read out.

    Args:
        count: Number of vectors, >= 1.
        width: W, channels of a token.

    Parameters: ``vectors`` (count, W), drawn from N(0, 0.02^2).

    Source: CoOp, Zhou et al. 2022 (arXiv 2109.01134), section 3.2: one context for all classes, the class at the end.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.count = whole_number("prompt_vectors", count, least=1, most=2**20)
        self.vectors = nn.Parameter(torch.empty(self.count, width))
        nn.init.normal_(self.vectors, std=0.02)

    def insert(self, tokens: Tensor) -> Tensor:
        """Ids of the vectors after the first token of each row: (B, L) -> (B, L + count)."""
        ids = -1 - torch.arange(self.count, dtype=tokens.dtype, device=tokens.device)
        return torch.cat((tokens[:, :1], ids.expand(tokens.shape[0], -1), tokens[:, 1:]), dim=1)

    def embed(self, ids: Tensor, table: nn.Embedding) -> Tensor:
        """Vectors for negative ids, rows of the table for the others: (T,) -> (T, W)."""
        words = table(ids.clamp(min=0))  # (T, W)
        return torch.where(ids[:, None] < 0, self.vectors[(-1 - ids).clamp(min=0)].to(words.dtype), words)

    def extra_repr(self) -> str:
        return f"count={self.count}"
