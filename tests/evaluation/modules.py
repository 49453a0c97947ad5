"""The known model of the fakes as a module, so that it has an identity and embeddings of it can be kept."""

from typing import Any

import torch
from torch import Tensor, nn

from tests.evaluation.fakes import WORDS


class FakeModule(nn.Module):
    """As :class:`tests.evaluation.fakes.FakeModel`; counts what it encodes."""

    image_size = 8
    context_length = 7
    geometry: Any = None

    def __init__(self, *, gain: float = 1.0) -> None:
        super().__init__()
        rows = [(0.0, 0.0, 0.0), *WORDS.values(), (0.0, 0.0, 0.0)]
        self.table = nn.Parameter(torch.tensor(rows))  # (1 + words + unknown, 3)
        self.gain = gain
        self._image_batches: list[int] = []
        self._text_batches: list[int] = []

    @property
    def counts(self) -> tuple[int, int]:
        """Images and texts encoded so far."""
        return sum(self._image_batches), sum(self._text_batches)

    def encode_image(self, images: Tensor, stage: str = "embeddings") -> Tensor:
        self._image_batches.append(len(images))
        return self.gain * images.float().mean(dim=(2, 3)) / 255.0

    def encode_text(self, tokens: Tensor, stage: str = "embeddings") -> Tensor:
        self._text_batches.append(len(tokens))
        return self.table[tokens].sum(dim=1)

    def scores(self, query: Tensor, key: Tensor, *, query_modality: str, key_modality: str) -> Tensor:
        return query @ key.T

    def pool(self, features: Tensor, *, modality: str) -> Tensor:
        return features.mean(dim=-2)

    def class_scores(self, image_embeddings: Tensor, prompt_features: Any) -> Tensor:
        return image_embeddings @ torch.stack([self.pool(f, modality="text") for f in prompt_features]).T
