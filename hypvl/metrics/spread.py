"""Spread of the rows of one modality: pure functions of (N, D) tensors, each a number.

Uniformity, the distance between modalities and the alignment of pairs are in :mod:`hypvl.diagnostics.gap`.
"""

import torch
from torch import Tensor

_BLOCK = 2048


def positive_self_similarity(x: Tensor) -> float:
    """Mean of the positive cosines of all pairs of rows, each row with itself included, in [0, 1].

    (N, D), N >= 1. Source: the feature analysis of ITRA; cosines <= 0 are left out.

    Example:
        >>> positive_self_similarity(torch.eye(2))  # each row with itself
        1.0
    """
    unit = torch.nn.functional.normalize(_checked(x, 1), dim=-1)
    total, count = 0.0, 0
    for block in unit.split(_BLOCK):
        cosines = block @ unit.mT
        positive = cosines > 0
        total += float(cosines[positive].double().sum())
        count += int(positive.sum())
    return total / count if count else 0.0


def mean_deviation(x: Tensor) -> float:
    """Standard deviation of each dimension (N - 1), mean over dimensions: (N, D), N >= 2.

    Example:
        >>> round(mean_deviation(torch.tensor([[0.0, 0.0], [2.0, 0.0]])), 4)
        0.7071
    """
    return float(_checked(x, 2).std(dim=0, unbiased=True).mean())


def _checked(x: Tensor, least: int) -> Tensor:
    if x.ndim != 2 or len(x) < least or not bool(x.isfinite().all()):
        raise ValueError(f"x: got shape {tuple(x.shape)}; expected (N, D) of finite numbers, N >= {least}.")
    return x
