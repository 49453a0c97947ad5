"""NICE: an invertible block that changes one half of the channels by the other, twice."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypvl.encoders.adapters.linear import AdapterLinear


class CouplingNet(nn.Module):
    """Two linear layers with a ReLU between them: (..., I) -> (..., O)."""

    def __init__(self, in_features: int, inner: int, out_features: int) -> None:
        super().__init__()
        self.linear1 = AdapterLinear(in_features, inner, std=0.02)
        self.linear2 = AdapterLinear(inner, out_features, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        return self.linear2(F.relu(self.linear1(x)))


class Nice(nn.Module):
    """``a' = a + F(b); b' = b + G(a')`` of the halves a, b of the channels.

    Args:
        width: W, at least 2.
        reduction: The middle of F and G is ``width // 2 // reduction`` wide, at least 1.

    Source: Dinh et al. 2015 (arXiv 1410.8516); for adapters Pfeiffer et al. 2020 (arXiv 2005.00052), section 4.3.
    """

    def __init__(self, width: int, *, reduction: int = 2) -> None:
        super().__init__()
        self.first = width // 2
        inner = max(1, self.first // reduction)
        self.F = CouplingNet(width - self.first, inner, self.first)
        self.G = CouplingNet(self.first, inner, width - self.first)

    def forward(self, x: Tensor) -> Tensor:
        """(..., W) -> (..., W)."""
        a, b = x[..., : self.first], x[..., self.first :]
        a = a + self.F(b)
        return torch.cat((a, b + self.G(a)), dim=-1)

    def inverse(self, y: Tensor) -> Tensor:
        """The x that :meth:`forward` maps to y: (..., W) -> (..., W)."""
        a, b = y[..., : self.first], y[..., self.first :]
        b = b - self.G(a)
        return torch.cat((a - self.F(b), b), dim=-1)


def at_entry(part: nn.Module, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Hook before the first block: its tokens, the embeddings, go through ``part``."""
    if args:
        return (part(args[0]), *args[1:]), kwargs
    return args, kwargs | {"hidden_states": part(kwargs["hidden_states"])}
