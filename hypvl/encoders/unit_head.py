"""A head that starts with every feature at one length: directions of a pretrained model, radii to be learned."""

import math

import torch
from torch import Tensor, nn

from hypvl.allowlist import configurable
from hypvl.checks import MOST_FEATURES, number, whole_number

_SHORTEST = 1e-25  # a feature of this length or less has no direction: it becomes 0, with gradient 0


@configurable("model")
class UnitProjectionHead(nn.Module):
    """``exp(log_scale) |f|^norm_power f / |f|`` with f = projection(x): a direction, and a learned length.

    At the start ``norm_power`` is 0 and every feature has the length ``radius_init``. Lifted onto a hyperboloid, the
    distances between two sets of such features then have exactly the order of their cosines, so that a model trained
    with cosines ranks as before. In training the power moves away from 0, and items take a radius of their own from
    the length of f, which a cosine ignores.

    Parameters: ``projection.weight``, which a head trained with cosines has, too, and two new 0-dim ones.

    Args:
        in_features: Width of the encoder.
        out_features: Size D of the embedding.
        radius_init: Length of every feature at the start, > 0; for Lorentz the geodesic distance to the root.
        radius_max: Bound of exp(log_scale), kept by :meth:`constrain_`.

    Raises:
        ValueError: unless 0 < radius_init <= radius_max.
    """

    no_weight_decay: frozenset[str] = frozenset({"log_scale", "norm_power"})
    log_scale: nn.Parameter
    norm_power: nn.Parameter

    def __init__(
        self, in_features: int, out_features: int, *, radius_init: float = 1.0, radius_max: float = 4.0
    ) -> None:
        super().__init__()
        out_features = whole_number("out_features", out_features, least=1, most=MOST_FEATURES)
        number("radius_init", radius_init, above=0)
        number("radius_max", radius_max, above=0)
        if not radius_init <= radius_max:
            raise ValueError(
                f"radius_init: got {radius_init}, expected above 0 and at most radius_max = {radius_max}."
            )
        self.out_features = out_features
        self.radius_max = radius_max
        self.log_scale = nn.Parameter(torch.tensor(math.log(radius_init)))
        self.norm_power = nn.Parameter(torch.zeros(()))
        self.projection = nn.Linear(in_features, out_features, bias=False)
        nn.init.normal_(self.projection.weight, std=in_features**-0.5)

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
