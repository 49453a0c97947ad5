"""Heads of distillation and self-supervision: the identity, multi-layer heads, and heads with prototypes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypvl.allowlist import configurable
from hypvl.checks import MOST_FEATURES, one_of, whole_number
from hypvl.numerics import full_precision

_SHORTEST = 1e-25  # a row of this length or less has no direction


@configurable("model")
class IdentityHead(nn.Module):
    """No head: the features are the output of the encoder, (B, in_features)."""

    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.out_features = in_features

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features), unchanged."""
        return x


@configurable("model")
class MLPHead(nn.Module):
    """``Linear, BatchNorm, ReLU`` for each hidden layer, then ``Linear``: (B, in_features) -> (B, out_features).

    Args:
        in_features: Width of the encoder.
        out_features: Size D of the features.
        layers: Number of linear layers, >= 1; 1 = one linear layer, with a bias.
        hidden: Width of the hidden layers.
        batch_norm: Whether the hidden layers are followed by a batch norm.

    Source: the projection heads of ProtoCLIP (arXiv 2206.10996): hidden width 2048, features of 128.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        layers: int = 2,
        hidden: int = 2048,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.out_features = whole_number("out_features", out_features, least=1, most=MOST_FEATURES)
        whole_number("layers", layers, least=1, most=64)
        whole_number("hidden", hidden, least=1, most=MOST_FEATURES)
        one_of("batch_norm", batch_norm, (True, False))
        parts: list[nn.Module] = []
        for _ in range(layers - 1):
            parts += [
                nn.Linear(in_features, hidden),
                *([nn.BatchNorm1d(hidden)] if batch_norm else []),
                nn.ReLU(),
            ]
            in_features = hidden
        self.layers = nn.Sequential(*parts, nn.Linear(in_features, self.out_features))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_features) -> (B, out_features)."""
        return self.layers(x)


class Prototypes(nn.Module):
    """A linear layer without a bias whose rows have length 1: ``x -> x W^T``, (..., D) -> (..., K).

    Args:
        in_features: D.
        count: K, the number of prototypes.

    Parameters: ``weight_v`` (K, D), the rows before they are normalised.
    """

    def __init__(self, in_features: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.weight_v = nn.Parameter(torch.empty(count, in_features))
        nn.init.trunc_normal_(self.weight_v, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Inner products with the K directions."""
        return F.linear(x, _unit_rows(self.weight_v).to(x.dtype))


@configurable("model")
class DINOHead(nn.Module):
    """``Linear, GELU`` for each hidden layer, ``Linear``, then rows of length 1; optionally prototypes on top.

    Features are the normalised rows, (B, out_features). Losses that compare them with prototypes (DINO, ProtoCPC) take
    the logits of ``prototypes``, (B, K).

    Args:
        in_features: Width of the encoder.
        out_features: Size D of the features (the bottleneck); with ``layers=0`` it must be ``in_features``, or None.
        layers: Number of linear layers, >= 0; 0 only normalises.
        hidden: Width of the hidden layers.
        prototypes: Number K of prototypes; None = no prototype layer.

    Raises:
        ValueError: for numbers out of range, or a width that no layer makes.

    Source: DINO (Caron et al. 2021, arXiv 2104.14294), section 3 and appendix C: 3 layers, hidden 2048, bottleneck 256,
        65536 prototypes, weights from a truncated normal with deviation 0.02, the length of prototypes fixed at 1.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int | None = 256,
        *,
        layers: int = 3,
        hidden: int = 2048,
        prototypes: int | None = None,
    ) -> None:
        super().__init__()
        whole_number("layers", layers, least=0, most=64)
        whole_number("hidden", hidden, least=1, most=MOST_FEATURES)
        if out_features is None:
            out_features = in_features
        self.out_features = whole_number("out_features", out_features, least=1, most=MOST_FEATURES)
        if layers == 0 and self.out_features != in_features:
            raise ValueError(
                f"out_features: got {out_features} with layers=0, but the encoder's width is {in_features}; expected "
                "that width, or at least one layer."
            )
        parts: list[nn.Module] = []
        for i in range(layers):
            width = self.out_features if i == layers - 1 else hidden
            parts += [nn.Linear(in_features, width), *([nn.GELU()] if i < layers - 1 else [])]
            in_features = width
        self.mlp = nn.Sequential(*parts)
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = (
            None
            if prototypes is None
            else Prototypes(self.out_features, whole_number("prototypes", prototypes, least=2, most=2**24))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_features) -> (B, out_features), rows of length 1."""
        return _unit_rows(self.mlp(x))


@full_precision
def _unit_rows(x: Tensor) -> Tensor:
    """Rows divided by their length, in fp32 or better; a row of zeros stays 0, with gradient 0."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    usable = ~(length.detach() <= _SHORTEST)  # so that NaN stays NaN
    return torch.where(usable, x / torch.where(usable, length, 1.0), 0.0)
