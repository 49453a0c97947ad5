"""Prefix tuning: learned keys and values that every token of a layer attends to, before those of the tokens."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypvl.checks import MOST_FEATURES, whole_number
from hypvl.encoders.adapters.gate import Gate
from hypvl.encoders.adapters.linear import AdapterLinear


class Prefix(nn.Module):
    """``mlp2(tanh(mlp1(E)))``: the keys and values of all layers from one table E.

    Output channels are ordered layer, keys before values, head, channel of a head.

    Args:
        width: Of the rows of E.
        layers: Blocks of the encoder.
        attended: Channels of the keys of a layer, all heads together.
        length: P, rows of E.
        inner: Channels between the two linear layers.

    Source: Li and Liang 2021 (arXiv 2101.00190), section 4.3.
    """

    def __init__(self, width: int, *, layers: int, attended: int, length: int, inner: int) -> None:
        super().__init__()
        length = whole_number("length", length, least=1, most=MOST_FEATURES)
        inner = whole_number("inner", inner, least=1, most=MOST_FEATURES)
        self.attended = attended
        self.embedding = nn.Parameter(torch.randn(length, width))
        self.mlp1 = AdapterLinear(width, inner)
        self.mlp2 = AdapterLinear(inner, 2 * layers * attended)

    def forward(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values (P, attended) of a layer; only its own rows of ``mlp2`` are computed."""
        rows = slice(2 * layer * self.attended, 2 * (layer + 1) * self.attended)
        hidden = torch.tanh(self.mlp1(self.embedding))
        keys, values = F.linear(hidden, self.mlp2.weight[rows], self.mlp2.bias[rows]).chunk(2, dim=-1)
        return keys, values


class LayerPrefix:
    """The prefix of one layer, for its attention; no module, so that a state dict holds the prefix once.

    Args:
        prefix: Of the encoder.
        layer: Which one, from 0.
        heads: Attention heads.
        gate: Makes a factor of the keys and values of each row from the input of the layer; None = 1.
    """

    def __init__(self, prefix: Prefix, layer: int, heads: int, gate: Gate | None) -> None:
        self.prefix, self.layer, self.heads, self.gate = prefix, layer, heads, gate
        self._factor: Tensor | None = None

    def read_input(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Hook before the attention: the gate of its input."""
        assert self.gate is not None
        self._factor = self.gate(args[0] if args else kwargs["hidden_states"])

    def take(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values (A, P, W / A), and the factors (R, 1, 1, 1) of the running rows, or None."""
        keys, values = (x.unflatten(-1, (self.heads, -1)).transpose(0, 1) for x in self.prefix(self.layer))
        factor, self._factor = self._factor, None
        return keys, values, None if factor is None else factor[:, None, None, None]


def prepend(prefix: Tensor, tokens: Tensor, factor: Tensor | None) -> Tensor:
    """Keys or values with a prefix: (A, P, C), (R, A, L, C), factors (R, 1, 1, 1) -> (R, A, P + L, C)."""
    rows = prefix.to(tokens.dtype).expand(len(tokens), -1, -1, -1)
    if factor is not None:
        rows = rows * factor.to(tokens.dtype)
    return torch.cat((rows, tokens), dim=2)


def prefix_mask(
    mask: Tensor | None, *, causal: bool, queries: int, keys: int, prefix: int, device: torch.device
) -> Tensor | None:
    """A mask of attention with P more keys, which all queries see: (..., Q, K) -> (..., Q, P + K).

    Args:
        mask: Boolean (True = seen) or added to the scores; None = all keys are seen, or those that ``causal`` leaves.
        causal: Without a mask, a query sees the keys up to its own, counted from the end.
        queries, keys: Q and K.
        prefix: P.
        device: Of a mask that is made here.
    """
    if mask is None and not causal:
        return None
    if mask is None:
        mask = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
    return F.pad(mask, (prefix, 0), value=1 if mask.dtype == torch.bool else 0)
