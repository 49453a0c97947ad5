"""Changes of a linear projection: LoRA adds a matrix of low rank, (IA)3 scales the outputs."""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypvl.checks import MOST_FEATURES, number, whole_number
from hypvl.encoders.adapters.gate import Gate


class ProjectionChange(nn.Module, ABC):
    """Changes y = W x + b; what is linear can be merged into W and b."""

    mergeable = True

    @abstractmethod
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The input (..., I) and output (..., O) of the projection -> another output (..., O)."""

    @abstractmethod
    def merge_(self, weight: Tensor, bias: Tensor | None) -> None:
        """Change the weight (O, I) and bias (O,) in place, so that they do the same without this part."""


class LowRank(ProjectionChange):
    """LoRA: ``y + factor B A x``, the factor being alpha / rank or, with a gate, g(x).

    Args:
        in_features, out_features: I and O of the projection.
        rank: Rows of A, columns of B.
        alpha: Numerator of the factor; with a gate it has no effect, as published.
        dropout: Of x on its way to A, in [0, 1).
        gate: Makes a factor of each token from x, see :class:`~hypvl.encoders.adapters.gate.Gate`.

    Source: Hu et al. 2022 (arXiv 2106.09685), section 4.1; gate: UniPELT, Mao et al. 2022 (arXiv 2110.07577).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        rank: int = 8,
        alpha: float = 16.0,
        dropout: float = 0.0,
        gate: Gate | None = None,
    ) -> None:
        super().__init__()
        rank = whole_number("rank", rank, least=1, most=MOST_FEATURES)
        self.scale = number("alpha", alpha, above=0) / rank
        self.dropout = number("dropout", dropout, least=0, below=1)
        self.lora_A = nn.Parameter(torch.empty(rank, in_features))
        self.lora_B = nn.Parameter(torch.zeros(out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))  # U(+-1 / sqrt(I))
        self.gate = gate
        self.mergeable = gate is None

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The input (..., I) and output (..., O) of the projection -> another output (..., O)."""
        narrow = F.linear(F.dropout(x, self.dropout, self.training), self.lora_A)
        added = F.linear(narrow, self.lora_B)
        factor = self.scale if self.gate is None else self.gate.factor(x).to(added.dtype)
        return y + factor * added

    @torch.no_grad()
    def merge_(self, weight: Tensor, bias: Tensor | None) -> None:
        """Add ``alpha / rank B A`` to the weight (O, I), in place; the bias stays."""
        weight += (self.scale * self.lora_B @ self.lora_A).to(weight)


class Scaling(ProjectionChange):
    """(IA)3: ``scale * y``, one learned number for each output, 1 at the start and never decayed.

    Args:
        out_features: O of the projection.

    Source: Liu et al. 2022 (arXiv 2205.05638), section 3.3.
    Differs: in a feed-forward sub-layer the paper scales after the activation; here, as the published adapters do,
        before it, so that the scale can be merged.
    """

    no_weight_decay: frozenset[str] = frozenset({"scale"})

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(
            torch.ones(out_features, 1)
        )  # Parity: two axes, as the published names have it

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The input (..., I) and output (..., O) of the projection -> another output (..., O)."""
        return y * self.scale[:, 0].to(y.dtype)

    @torch.no_grad()
    def merge_(self, weight: Tensor, bias: Tensor | None) -> None:
        """Multiply the rows of the weight (O, I) and the bias (O,), in place."""
        weight *= self.scale.to(weight)
        if bias is not None:
            bias *= self.scale[:, 0].to(bias)


def at_projection(
    part: ProjectionChange, third: int | None, module: nn.Module, args: tuple[Tensor, ...], output: Tensor
) -> Tensor:
    """Hook of a module whose first input is x and whose output is y, or holds y as one of three equal parts."""
    x: Any = args[0]
    if third is None:
        changed: Tensor = part(x, output)
        return changed
    parts = list(output.chunk(3, dim=-1))
    parts[third] = part(x, parts[third])
    return torch.cat(parts, dim=-1)
