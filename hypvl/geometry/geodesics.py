"""Shortest ways between two points."""

import torch
from torch import Tensor

from hypvl.numerics import working_dtype


def hyperboloid_way(x: Tensor, y: Tensor, weights: Tensor, *, angle: Tensor) -> Tensor:
    """Points of the Lorentz model between two, at even distances for even weights.

    (sinh((1 - w) d) x + sinh(w d) y) / sinh(d): of points with their time components, and so of their space
    components, too.

    Args:
        x: Space components of the start, (..., D).
        y: Of the end, (..., D).
        weights: w in [0, 1], (T,): 0 is ``x``, 1 is ``y``.
        angle: d, sqrt(c) times their distance, (...).

    Returns:
        (T, ..., D).
    """
    work = working_dtype(x.device)
    d = angle.to(work)[..., None].clamp(max=700.0)  # (..., 1); sinh stays finite
    w = weights.to(device=x.device, dtype=work).reshape(-1, *[1] * x.dim())  # (T, 1 ...)
    near = d < 1e-8  # sinh is linear there
    safe = torch.where(near, 1.0, d)
    first = torch.where(near, 1 - w, torch.sinh((1 - w) * safe) / torch.sinh(safe))
    second = torch.where(near, w, torch.sinh(w * safe) / torch.sinh(safe))
    return (first * x.to(work) + second * y.to(work)).to(torch.promote_types(x.dtype, y.dtype))
