"""Votes of nearest neighbours: a pure function."""

import torch
from torch import Tensor

from hypvl.checks import number


def neighbour_votes(
    similarity: Tensor, neighbour_labels: Tensor, *, num_classes: int, temperature: float = 0.07
) -> Tensor:
    """Votes of each query's neighbours for their classes, each with weight exp(similarity / T).

    Args:
        similarity: (Q, k), of each neighbour.
        neighbour_labels: (Q, k) int64, its class.
        num_classes: C.
        temperature: T > 0. Adding a number to a row of similarities scales its votes and keeps their order.

    Returns:
        (Q, C) fp64; 0 for a class without a neighbour.

    Raises:
        ValueError: for other shapes or labels, T <= 0, or votes that are too large for fp64, or NaN.

    Source: Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", section 3.4.

    Example:
        >>> votes = neighbour_votes(torch.tensor([[0.9, 0.8]]), torch.tensor([[2, 1]]), num_classes=3)
        >>> votes.argmax(1)
        tensor([2])
    """
    if similarity.ndim != 2 or similarity.shape != neighbour_labels.shape:
        raise ValueError(
            f"similarity, neighbour_labels: got shapes {tuple(similarity.shape)} and "
            f"{tuple(neighbour_labels.shape)}; expected one shape (Q, k)."
        )
    number("temperature", temperature, above=0)
    if (
        neighbour_labels.numel()
        and not 0 <= int(neighbour_labels.min()) <= int(neighbour_labels.max()) < num_classes
    ):
        raise ValueError(f"neighbour_labels: got a class outside 0 … {num_classes - 1}.")
    weights = (similarity.double() / temperature).exp()
    if not bool(weights.isfinite().all()):
        raise ValueError(
            f"similarity: gives votes that are not finite at temperature {temperature:g}; expected numbers, none far "
            "above 0 (subtract the largest of each row)."
        )
    return torch.zeros(len(weights), num_classes, dtype=torch.float64, device=weights.device).scatter_add_(
        1, neighbour_labels, weights
    )  # (Q, C)
