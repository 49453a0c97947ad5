"""A model that is only a geometry and a scorer: losses are tested on given features."""

import torch
from torch import Tensor, nn

from hypvl.geometry.base import Geometry
from hypvl.geometry.scorers import Scorer
from hypvl.losses.base import PairContext, View


class GeometryOnly(nn.Module):
    """Geometry and scorer in double precision, without encoders."""

    def __init__(self, geometry: Geometry, scorer: Scorer) -> None:
        super().__init__()
        self.geometry = geometry.double()
        self.scorer = scorer.double()

    def embed(self, features: Tensor, *, modality: str) -> Tensor:
        return self.geometry.lift(features)


def context(model: GeometryOnly, views: dict[View, Tensor], **batch: object) -> PairContext:
    return PairContext(views, batch=batch, model=model)


def random_features(rows: int, dim: int = 4, *, seed: int = 0, scale: float = 0.7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, dim, generator=generator, dtype=torch.float64)
