"""Encoders that have nothing but a size and perhaps prototypes, for what terms refuse."""

from torch import nn


class Sized:
    """As much of a model as ``LossTerm.check`` looks at."""

    def __init__(self, embed_dim: int, prototypes: nn.Module | None = None) -> None:
        self.embed_dim = embed_dim
        self._prototypes = prototypes

    def prototypes(self, modality: str) -> nn.Module | None:
        return self._prototypes
