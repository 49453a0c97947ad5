"""Heads between an encoder and the geometry: trunk features (B, in) -> features (B, D)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hypvl.allowlist import configurable
from hypvl.checks import MOST_FEATURES, number, one_of, whole_number

_SHORTEST = 1e-25  # a feature of this length or less has no direction: it becomes 0, with gradient 0


@configurable("model")
class ProjectionHead(nn.Module):
    """Linear projection, weights drawn with standard deviation ``in_features^-0.5``.

    Args:
        in_features: Width of the encoder.
        out_features: Size D of the embedding.
        bias: Whether to add a learned bias, which starts at 0 (SigLIP's texts, EVA, MobileCLIP, ResNets of CLIP).
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = False) -> None:
        super().__init__()
        out_features = whole_number("out_features", out_features, least=1, most=MOST_FEATURES)
        one_of("bias", bias, (True, False))
        self.out_features = out_features
        self.projection = nn.Linear(in_features, out_features, bias=bias)
        nn.init.normal_(self.projection.weight, std=in_features**-0.5)
        if bias:
            nn.init.zeros_(self.projection.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Project (..., in_features) -> (..., out_features)."""
        return self.projection(x)


@configurable("model")
class TwoLayerProjectionHead(nn.Module):
    """``fc2(gelu(fc1(x)))``: a hidden layer with a bias, then a projection (ConvNeXt-Large-D of open_clip).

    Args:
        in_features: Width of the encoder.
        out_features: Size D of the embedding.
        hidden: Width of the hidden layer; None = 2 D.
        bias: Whether ``fc2`` has a bias, too.
    """

    def __init__(
        self, in_features: int, out_features: int, *, hidden: int | None = None, bias: bool = False
    ) -> None:
        super().__init__()
        self.out_features = whole_number("out_features", out_features, least=1, most=MOST_FEATURES)
        one_of("bias", bias, (True, False))
        hidden = (
            2 * self.out_features
            if hidden is None
            else whole_number("hidden", hidden, least=1, most=MOST_FEATURES)
        )
        self.fc1 = nn.Linear(in_features, hidden)
        self.fc2 = nn.Linear(hidden, self.out_features, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Project (..., in_features) -> (..., out_features)."""
        return self.fc2(F.gelu(self.fc1(x)))


@configurable("model")
class ScaledProjectionHead(ProjectionHead):
    """``exp(log_scale) * projection(x)``: tangent vectors that start near the root.

    ``log_scale`` (the published alpha) is learned, starts at ``log(out_features^-0.5)`` so that a projected
    feature of unit variance per channel has norm 1, and is kept at or below 0 by :meth:`constrain_`.

    Args:
        in_features, out_features, bias: As :class:`ProjectionHead`.
        log_scale_init: Another start, <= 0; None = -0.5 log(out_features), with factors -0.5 log(out_features / F).
        factors: None = one scale, 0-dim. F >= 1 = one scale for each of F equal blocks of features, (F,), as a
            :class:`~hypvl.geometry.product.Product` of F factors divides them; each block then starts with norm 1.

    Raises:
        ValueError: for a start above 0, or factors that do not divide ``out_features``.

    Source: MERU (Desai et al. 2023), section 3; one scale for each factor: PHyCLIP (ICLR 2026).
    """

    no_weight_decay: frozenset[str] = frozenset({"log_scale"})
    log_scale: nn.Parameter

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        log_scale_init: float | None = None,
        factors: int | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.factors = factors
        if factors is not None:
            self.factors = whole_number("factors", factors, least=1, most=self.out_features)
            if self.out_features % self.factors:
                raise ValueError(
                    f"factors: got {factors}, which does not divide out_features = {self.out_features}; expected equal "
                    "parts, give both the numbers of the geometry."
                )
        start = -0.5 * math.log(self.out_features / (self.factors or 1))
        if log_scale_init is not None:
            start = number("log_scale_init", log_scale_init, least=-80, most=0)
        self.log_scale = nn.Parameter(torch.full(() if self.factors is None else (self.factors,), start))

    def forward(self, x: Tensor) -> Tensor:
        """Project and scale (..., in_features) -> (..., out_features), in fp32 or better."""
        projected = self.projection(x)
        # A 0-dim factor does not promote: under autocast the product itself would be rounded to 16 bits.
        projected = projected.to(torch.promote_types(projected.dtype, torch.float32))
        if self.factors is None:
            return self.log_scale.exp() * projected
        blocks = projected.unflatten(-1, (self.factors, -1))  # (..., F, d)
        return (self.log_scale.exp()[:, None] * blocks).flatten(-2)

    @torch.no_grad()
    def constrain_(self) -> None:
        """Keep the scale at or below 1, in place."""
        self.log_scale.clamp_(max=0.0)


@configurable("model")
class UnitProjectionHead(ProjectionHead):
    """``exp(log_scale) |f|^norm_power f / |f|`` with f = projection(x): a direction, and a learned length.

    At the start ``norm_power`` is 0 and every feature has the length ``radius_init``. Lifted onto a hyperboloid, the
    distances between two sets of such features then have exactly the order of their cosines, so that a model trained
    with cosines ranks as before. In training the power moves away from 0, and items take a radius of their own from
    the length of f, which a cosine ignores.

    Parameters: those of ``projection``, which a head trained with cosines has, too, and two new 0-dim ones.

    Args:
        in_features, out_features, bias: As :class:`ProjectionHead`.
        radius_init: Length of every feature at the start, > 0; for Lorentz the geodesic distance to the root.
        radius_max: Bound of exp(log_scale), kept by :meth:`constrain_`.

    Raises:
        ValueError: unless 0 < radius_init <= radius_max.
    """

    no_weight_decay: frozenset[str] = frozenset({"log_scale", "norm_power"})
    log_scale: nn.Parameter
    norm_power: nn.Parameter

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        radius_init: float = 1.0,
        radius_max: float = 4.0,
        bias: bool = False,
    ) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.radius_max = number("radius_max", radius_max, above=0)
        number("radius_init", radius_init, above=0)
        if not radius_init <= radius_max:
            raise ValueError(
                f"radius_init: got {radius_init}, expected above 0 and at most radius_max = {radius_max}."
            )
        self.log_scale = nn.Parameter(torch.tensor(math.log(radius_init)))
        self.norm_power = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Project (..., in_features) -> (..., out_features), in fp32 or better; a feature of length 0 stays 0."""
        projected = self.projection(x)
        with torch.autocast(x.device.type, enabled=False):
            f = projected.to(torch.promote_types(projected.dtype, torch.float32))
            length = torch.linalg.vector_norm(f, dim=-1, keepdim=True)
            usable = ~(length.detach() <= _SHORTEST)  # so that NaN stays NaN
            length = torch.where(usable, length, 1.0)
            scale = torch.exp(self.log_scale + self.norm_power * length.log())
            return scale * torch.where(usable, f / length, 0.0)

    @torch.no_grad()
    def constrain_(self) -> None:
        """Keep exp(log_scale) at or below ``radius_max``, in place."""
        self.log_scale.clamp_(max=math.log(self.radius_max))
