"""A layer that is narrow in the middle, and how it is put at the end of a sub-layer."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn

from hypvl.checks import number, one_of
from hypvl.encoders.adapters.gate import Gate

Nonlinearity: TypeAlias = Literal["relu", "gelu"]
NONLINEARITIES: dict[Nonlinearity, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


class Bottleneck(nn.Module):
    """``scale g(x) (up f(down x))``: what an adapter adds to a sub-layer.

    Args:
        down: (..., W) -> (..., M), with M below W.
        up: (..., M) -> (..., W).
        nonlinearity: f, exact GELU or ReLU.
        scale: A constant factor, of the bias of ``up`` too.
        gate: Makes a factor of each token from x, see :class:`~hypvl.encoders.adapters.gate.Gate`; None = 1.
        dropout: Of the middle, in [0, 1).

    Source: Houlsby et al. 2019 (arXiv 1902.00751); the scale: He et al. 2022 (arXiv 2110.04366).
    Differs: no LayerNorm is added, and none of the encoder is trained.
    """

    def __init__(
        self,
        down: nn.Module,
        up: nn.Module,
        *,
        nonlinearity: Nonlinearity = "relu",
        scale: float = 1.0,
        gate: Gate | None = None,
        dropout: float = 0.0,
    ) -> None:
        one_of("nonlinearity", nonlinearity, Nonlinearity)
        super().__init__()
        self.scale = number("scale", scale, above=0)
        self.dropout = number("dropout", dropout, least=0, below=1)
        self.nonlinearity = nonlinearity
        self.down, self.up = down, up
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """What is added: (..., W) -> (..., W)."""
        middle = NONLINEARITIES[self.nonlinearity](self.down(x))
        added: Tensor = self.up(F.dropout(middle, self.dropout, self.training)) * self.scale
        return added if self.gate is None else added * self.gate.factor(x).to(added.dtype)


# Forward hooks of the modules of a block; functions with their part in front, so that copies of an encoder copy both.


def after(part: nn.Module, module: nn.Module, args: Any, output: Tensor) -> Tensor:
    """Hook at the end h of a sub-layer: ``h + part(h)``."""
    added: Tensor = part(output)
    return output + added


def before_norm(part: nn.Module, norm: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    """Hook before a LayerNorm of a sum s: ``norm(s + part(norm(s)))``; the norm is used twice."""
    (total,) = args
    return (total + part(norm.forward(total)),)


def beside(part: nn.Module, module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
    """Hook of a module that maps x to h: ``h + part(x)``."""
    added: Tensor = part(args[0])
    return output + added


def beside_residual(part: nn.Module, module: nn.Module, args: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Hook before a module that adds its second input x: it adds ``x + part(x)``."""
    hidden, residual = args
    return hidden, residual + part(residual)
