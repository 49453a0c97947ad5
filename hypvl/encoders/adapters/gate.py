"""UniPELT's gates: one number in (0, 1) for each row of tokens and each part of an adapter.

A gate has to know which tokens belong to a row, and which of them are padding: a :class:`Rows` says so. The attention
of each block, which precedes its gates, notes the rows in :class:`TokenRows` when it is entered, so that a block
which is recomputed in the backward pass has its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from hypvl.checks import one_of
from hypvl.encoders.adapters.linear import AdapterLinear

GateVariant: TypeAlias = Literal["masked", "published"]


class Rows(Protocol):
    """How the tokens that a block computes are arranged."""

    def mean(self, values: Tensor, *, masked: bool) -> Tensor:
        """Mean over the tokens of each row -> (R,); ``masked`` leaves padding out, 0 where all of it is padding."""

    def spread(self, factors: Tensor) -> Tensor:
        """Factors of rows (R,) in a shape that multiplies tokens (..., W)."""


@dataclass(frozen=True)
class PaddedRows:
    """Tokens (R, L, W); ``valid`` (R, L) or (1, L) is False at padding, None = there is none."""

    valid: Tensor | None = None

    def mean(self, values: Tensor, *, masked: bool) -> Tensor:
        """(R, L) -> (R,)."""
        if self.valid is None or not masked:
            return values.mean(1)
        weights = self.valid.expand_as(values).to(values.dtype)
        return (values * weights).sum(1) / weights.sum(1).clamp(min=1)

    def spread(self, factors: Tensor) -> Tensor:
        """(R,) -> (R, 1, 1)."""
        return factors[:, None, None]


@dataclass(frozen=True)
class GroupedRows:
    """Tokens (T, W) of groups of rows, each ``(rows, length)``, one after the other; ``valid`` (T,) as above."""

    groups: Sequence[tuple[int, int]]
    valid: Tensor

    def mean(self, values: Tensor, *, masked: bool) -> Tensor:
        """(T,) -> (R,)."""
        weights = self.valid.to(values.dtype) if masked else torch.ones_like(values)
        return torch.cat(
            [
                (v * w).sum(1) / w.sum(1).clamp(min=1)
                for v, w in zip(self._split(values), self._split(weights), strict=True)
            ]
        )

    def spread(self, factors: Tensor) -> Tensor:
        """(R,) -> (T, 1)."""
        parts = factors.split([rows for rows, _ in self.groups])
        return torch.cat(
            [part.repeat_interleave(length) for part, (_, length) in zip(parts, self.groups, strict=True)]
        )[:, None]

    def _split(self, x: Tensor) -> list[Tensor]:
        parts = x.split([rows * length for rows, length in self.groups])
        return [part.view(group) for part, group in zip(parts, self.groups, strict=True)]


@dataclass
class TokenRows:
    """The rows of the block that is running; the gates of an encoder share one."""

    rows: Rows


class Gate(nn.Module):
    """``mean over the tokens of a row of sigmoid(w x + s)``.

    Args:
        width: W of x.
        tokens: Where the running block notes its rows.
        variant: ``"masked"`` averages over tokens that are not padding; ``"published"`` over padding too, so that a
            result depends on how far its row was padded.
        zero_bias: s starts at 0; else it is drawn as a linear layer draws it, U(+-1 / sqrt(W)).

    Source: UniPELT, Mao et al. 2022 (arXiv 2110.07577), section 3.2.
    """

    def __init__(self, width: int, *, tokens: TokenRows, variant: GateVariant, zero_bias: bool) -> None:
        one_of("variant", variant, GateVariant)
        super().__init__()
        self.variant = variant
        self.tokens = tokens
        linear = AdapterLinear(width, 1)
        nn.init.normal_(linear.weight, std=0.02)
        self.weight, self.bias = linear.weight, linear.bias
        if zero_bias:
            nn.init.zeros_(self.bias)

    no_weight_decay: frozenset[str] = frozenset({"bias"})

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (R, L, W) or, of groups, (T, W) -> (R,)."""
        opened = torch.sigmoid(nn.functional.linear(x, self.weight, self.bias))
        return self.tokens.rows.mean(opened[..., 0], masked=self.variant == "masked")

    def factor(self, x: Tensor) -> Tensor:
        """The gate in a shape that multiplies the tokens."""
        gates: Tensor = self(x)
        return self.tokens.rows.spread(gates)
