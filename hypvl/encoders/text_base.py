"""What text encoders of other libraries have in common: tokens are checked, padding is found and cut off."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hypvl.checks import whole_number


class TextEncoder(nn.Module, ABC):
    """Base of text encoders: tokens in, one feature vector per text out, whatever padding stands after it.

    A text ends before the ids that equal ``pad_token`` at the end of its row. The network sees ids and a mask, and no
    column in which every text has ended (where that is known on the host: on a CPU, or by ``lengths``). An exported
    graph, which must work for any texts, sees all columns.

    Args:
        context_length: Longest text in tokens.
        vocab_size: Number of token ids.
        pad_token: Id that fills rows at the end; -1 is none of the vocabulary.
        vocabulary: Names the meaning of the ids; a tokenizer must have the same.
        fill_id: Id that the network gets in place of padding, which the mask hides.
    """

    width: int

    def __init__(
        self, *, context_length: int, vocab_size: int, pad_token: int, vocabulary: str | None, fill_id: int
    ) -> None:
        super().__init__()
        self.context_length = whole_number("context_length", context_length, least=2, most=2**20)
        self.vocab_size = whole_number("vocab_size", vocab_size, least=1)
        self.pad_token = whole_number("pad_token", pad_token, least=-1)
        self.vocabulary = vocabulary
        self.fill_id = whole_number("fill_id", fill_id, least=0)

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """The tokenizer whose ids this encoder takes."""

    @abstractmethod
    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The network: ids (B, L), int64, and which of them are a text's, bool (B, L) -> trunk features (B, width)."""

    def forward(self, tokens: Tensor, lengths: Sequence[int] | np.ndarray | None = None) -> Tensor:
        """Encode token ids.

        Args:
            tokens: Integers (B, L) with 1 <= L, padded with ``pad_token`` at the end; no text is longer than
                ``context_length``.
            lengths: (B,) tokens of each text on the host; only used to cut off columns of padding.

        Returns:
            Trunk features (B, width).

        Raises:
            TypeError: When tokens are not a tensor of integers: texts go through the tokenizer first.
            ValueError: When the shape is not (B, L), or a text is longer than ``context_length``.
        """
        if not isinstance(tokens, Tensor) or tokens.dtype not in (torch.int64, torch.int32):
            got = (
                f"have dtype {tokens.dtype}"
                if isinstance(tokens, Tensor)
                else f"are a {type(tokens).__name__}"
            )
            raise TypeError(
                f"tokens {got}, but a tensor (B, L) of int64 is expected: texts go through the model's tokenizer."
            )
        if tokens.ndim != 2 or tokens.shape[1] == 0:
            raise ValueError(f"tokens have shape {tuple(tokens.shape)}, but (B, L) with L >= 1 is expected.")
        places = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        ends = torch.where(tokens != self.pad_token, places, 0).amax(dim=1)  # (B,)
        longest = tokens.shape[1]
        if lengths is not None and len(lengths):
            longest = min(longest, int(max(lengths)))
        elif tokens.device.type == "cpu" and not torch.compiler.is_exporting() and len(tokens):
            longest = max(1, int(ends.max()))
        if longest > self.context_length:
            raise ValueError(
                f"tokens are {longest} long, but the context length is {self.context_length}: truncate them (the "
                f"tokenizer's context_length) or build the model with a longer context."
            )
        tokens, places = tokens[:, :longest], places[:longest]
        mask = places <= ends[:, None]  # (B, L)
        return self.encode(torch.where(mask, tokens, self.fill_id).long(), mask)


def last_of(states: Tensor, mask: Tensor) -> Tensor:
    """The state of the last token of each text: (B, L, W), bool (B, L) -> (B, W); of an empty one the first."""
    last = (mask.sum(dim=1) - 1).clamp(min=0)  # (B,)
    return states[
        torch.arange(states.shape[0], device=states.device), last
    ]  # len() would fix B in a recorded graph


def mean_of(states: Tensor, mask: Tensor) -> Tensor:
    """The mean state of the tokens of each text: (B, L, W), bool (B, L) -> (B, W); of an empty one 0."""
    weights = mask[..., None].to(states.dtype)  # (B, L, 1)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)
