"""Shortest ways between two points."""

import torch
from torch import Tensor

from hypvl.geometry.lorentz import dist
from hypvl.geometry.precision import full_precision, working_dtype


@full_precision
def lorentz_geodesic(x: Tensor, y: Tensor, weights: Tensor, *, curv: float | Tensor) -> Tensor:
    """Points on the geodesic of the Lorentz model, at even distances for even weights.

    (sinh((1 - w) d) x + sinh(w d) y) / sinh(d) with d = sqrt(c) times the distance: of points with their time
    components, and so of their space components, too.

    Args:
        x: Space components of the start, (..., D).
        y: Of the end, (..., D).
        weights: w in [0, 1], (T,): 0 is ``x``, 1 is ``y``.
        curv: c > 0, a float or a tensor that broadcasts against (..., 1).

    Returns:
        (T, ..., D).

    Raises:
        ValueError, TypeError: an argument is not as described.
    """
    work = working_dtype(x.device)
    c = torch.as_tensor(curv, dtype=work, device=x.device)
    d = (dist(x, y, curv=curv).to(work)[..., None] * c.sqrt()).clamp(max=700.0)  # (..., 1); sinh stays finite
    w = weights.to(device=x.device, dtype=work).reshape(-1, *[1] * x.dim())  # (T, 1 ...)
    near = d < 1e-8  # sinh is linear there
    safe = torch.where(near, 1.0, d)
    first = torch.where(near, 1 - w, torch.sinh((1 - w) * safe) / torch.sinh(safe))
    second = torch.where(near, w, torch.sinh(w * safe) / torch.sinh(safe))
    return (first * x.to(work) + second * y.to(work)).to(torch.promote_types(x.dtype, y.dtype))
