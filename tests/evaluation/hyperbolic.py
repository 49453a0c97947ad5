"""The colour model of fakes.py in a hyperbolic space, with cones whose members are known."""

from types import SimpleNamespace

import torch
from torch import Tensor

from hypvl.geometry.base import Geometry
from hypvl.geometry.lorentz import Lorentz
from tests.evaluation.fakes import FakeModel

SHAPE = (0.2, 0.2, 0.2)


class Hyperbolic(FakeModel):
    """Images at radius 2 along their colour, colour words at radius 1, anything else at 0.35 between them.

    With cones of minimum radius 0.5 a word holds what lies behind it, and "shape" every colour beyond about 0.6.
    """

    def __init__(self) -> None:
        super().__init__()
        self.geometry: Geometry = Lorentz(curv_init=1.0, min_radius=0.5)
        self.scorer = SimpleNamespace(ranks_by_distance=True)
        with torch.no_grad():
            self.table[-1] = torch.tensor(SHAPE)

    def encode_image(self, images: Tensor, stage: str = "embeddings") -> Tensor:
        return self.geometry.lift(2.0 * super().encode_image(images))

    def encode_text(self, tokens: Tensor, stage: str = "embeddings") -> Tensor:
        return self.geometry.lift(super().encode_text(tokens))

    def scores(self, query: Tensor, key: Tensor, *, query_modality: str, key_modality: str) -> Tensor:
        return self.geometry.ranking_similarity(query, key)
