"""Comparison by cosine, whatever a model's own score is."""

from typing import Any

import torch
from torch import Tensor

from hypvl.embedding.protocol import EvaluableModel, evaluating
from hypvl.geometry.sphere import Sphere, normalize

_ROWS = 1 << 16  # flattened at once


class ByCosine:
    """A model whose score of any two rows is their cosine."""

    def __init__(self, model: EvaluableModel) -> None:
        self._model = model
        self._sphere = Sphere()

    def scores(self, query: Tensor, key: Tensor, *, query_modality: str, key_modality: str) -> Tensor:
        """Rows (Q, W), (K, W) -> (Q, K), in [-1, 1]."""
        return self._sphere.pairwise_similarity(normalize(query), normalize(key))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def flat_embeddings(model: EvaluableModel, embeddings: Tensor) -> Tensor:
    """``geometry.flatten`` of embeddings (N, D), block by block on the model's device; the result is on the CPU.

    Unit vectors stay as they are, points of a hyperboloid become tangent vectors at the root. Their cosines depend on
    directions but not on radii.
    """
    with evaluating(model) as device:
        blocks = [model.geometry.flatten(block.to(device)).cpu() for block in embeddings.split(_ROWS)]
    return torch.cat(blocks)
