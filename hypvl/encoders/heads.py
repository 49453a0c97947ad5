"""Heads between an encoder and the geometry: trunk features (B, in) -> features (B, D)."""

import math

import torch
from torch import Tensor, nn

from hypvl.allowlist import configurable
from hypvl.checks import MOST_FEATURES, number, whole_number


@configurable("model")
class ProjectionHead(nn.Module):
    """Linear projection without a bias, weights drawn with standard deviation ``in_features^-0.5``.

    Args:
        in_features: Width of the encoder.
        out_features: Size D of the embedding.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        out_features = whole_number("out_features", out_features, least=1, most=MOST_FEATURES)
        self.out_features = out_features
        self.projection = nn.Linear(in_features, out_features, bias=False)
        nn.init.normal_(self.projection.weight, std=in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Project (..., in_features) -> (..., out_features)."""
        return self.projection(x)


@configurable("model")
class ScaledProjectionHead(nn.Module):
    """``exp(log_scale) * projection(x)``: tangent vectors that start near the root.

    ``log_scale`` (the published alpha) is learned, starts at ``log(out_features^-0.5)`` so that a projected
    feature of unit variance per channel has norm 1, and is kept at or below 0 by :meth:`constrain_`.

    Args:
        in_features: Width of the encoder.
        out_features: Size D of the embedding.
        log_scale_init: Another start, <= 0; None = -0.5 log(out_features). In a product of spaces,
            -0.5 log(factor_dim) gives each factor's part the norm 1.

    Raises:
        ValueError: for a start above 0.

    Source: MERU (Desai et al. 2023), section 3.
    """

    no_weight_decay: frozenset[str] = frozenset({"log_scale"})
    log_scale: nn.Parameter

    def __init__(self, in_features: int, out_features: int, *, log_scale_init: float | None = None) -> None:
        super().__init__()
        out_features = whole_number("out_features", out_features, least=1, most=MOST_FEATURES)
        start = -0.5 * math.log(out_features)
        if log_scale_init is not None:
            start = number("log_scale_init", log_scale_init, least=-80, most=0)
        self.out_features = out_features
        self.log_scale = nn.Parameter(torch.tensor(start))
        self.projection = nn.Linear(in_features, out_features, bias=False)
        nn.init.normal_(self.projection.weight, std=in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Project and scale (..., in_features) -> (..., out_features), in fp32 or better."""
        projected = self.projection(x)
        # A 0-dim factor does not promote: under autocast the product itself would be rounded to 16 bits.
        return self.log_scale.exp() * projected.to(torch.promote_types(projected.dtype, torch.float32))

    @torch.no_grad()
    def constrain_(self) -> None:
        """Keep the scale at or below 1, in place."""
        self.log_scale.clamp_(max=0.0)
