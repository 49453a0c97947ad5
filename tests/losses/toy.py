"""A model that is only a geometry and a scorer: losses are tested on given features."""

import torch
from torch import Tensor, nn

from hypvl.encoders.mlp_heads import Prototypes
from hypvl.geometry.base import Geometry
from hypvl.geometry.scorers import Cosine, Scorer
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import PairContext, View
from hypvl.losses.ring import Gather


class GeometryOnly(nn.Module):
    """Geometry and scorer in double precision, without encoders."""

    def __init__(self, geometry: Geometry, scorer: Scorer) -> None:
        super().__init__()
        self.geometry = geometry.double()
        self.scorer = scorer.double()

    def embed(self, features: Tensor, *, modality: str) -> Tensor:
        return self.geometry.lift(features)


def context(
    model: GeometryOnly, views: dict[View, Tensor], *, gather: Gather = "all", **batch: object
) -> PairContext:
    """The features are also what stands before the heads."""
    teachers = getattr(model, "teachers", None)
    return PairContext(views, batch=batch, model=model, teachers=teachers, trunks=views, gather=gather)


def random_features(rows: int, dim: int = 4, *, seed: int = 0, scale: float = 0.7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, dim, generator=generator, dtype=torch.float64)


class Prototyped(GeometryOnly):
    """Heads with prototypes: 5 for each modality, of features of size 4; its teacher "ema" has others."""

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__(Sphere(), Cosine())
        torch.manual_seed(seed)
        self.layers = nn.ModuleDict({name: Prototypes(4, 5).double() for name in ("image", "text")})
        self.embed_dim = 4
        if seed == 0:
            self.teachers = {"ema": Prototyped(seed=1).requires_grad_(False)}

    def prototypes(self, modality: str) -> nn.Module:
        return self.layers[modality]
