"""A model whose answers are known: colours of images against words for colours."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
WORDS = {
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "yellow": (0.7, 0.7, 0.0),
}


class FakeTokenizer:
    """A text becomes the numbers of the colour words in it, padded with 0."""

    def __call__(self, texts: Sequence[str]) -> Tensor:
        rows = [[1 + i for i, word in enumerate(WORDS) if word in text] or [len(WORDS) + 1] for text in texts]
        width = max(map(len, rows))
        return torch.tensor([row + [0] * (width - len(row)) for row in rows])


class FakeModel:
    """Embeds an image as its mean colour and a text as the sum of its colour words; scores = dot products."""

    image_size = 8
    context_length = 7
    geometry: Any = None

    def __init__(self, words: Mapping[str, Sequence[float]] = WORDS) -> None:
        rows = [(0.0, 0.0, 0.0), *words.values(), (0.0, 0.0, 0.0)]
        self.table = nn.Parameter(torch.tensor(rows))  # (1 + words + unknown, 3)
        self.training = True
        self.image_batches: list[tuple[int, ...]] = []
        self.text_batches: list[int] = []
        self.score_blocks: list[tuple[int, int]] = []

    def encode_image(self, images: Tensor, stage: str = "embeddings") -> Tensor:
        assert images.dtype == torch.uint8 and not self.training
        self.image_batches.append(tuple(images.shape))
        return images.float().mean(dim=(2, 3)) / 255.0

    def encode_text(self, tokens: Tensor, stage: str = "embeddings") -> Tensor:
        assert not self.training
        self.text_batches.append(len(tokens))
        return self.table[tokens].sum(dim=1)

    def scores(self, query: Tensor, key: Tensor, *, query_modality: str, key_modality: str) -> Tensor:
        assert query_modality != key_modality
        self.score_blocks.append((len(query), len(key)))
        return query @ key.T

    def class_scores(self, image_embeddings: Tensor, prompt_features: Sequence[Tensor]) -> Tensor:
        pooled = torch.stack([self.pool(features, modality="text") for features in prompt_features])
        return image_embeddings @ pooled.T

    def pool(self, features: Tensor, *, modality: str) -> Tensor:
        return features.mean(dim=-2)

    def parameters(self) -> Iterator[nn.Parameter]:
        return iter([self.table])

    def train(self, mode: bool = True) -> None:
        self.training = mode


def image(path: Path, color: tuple[int, int, int], *, size: tuple[int, int] = (9, 7)) -> Path:
    """Write an image of one colour; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, format="PNG")
    return path


def broken(path: Path) -> Path:
    """Write a file that is not an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\xff\xd8\xffnot an image")
    return path
