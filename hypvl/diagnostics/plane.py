"""Embeddings in two dimensions, to be looked at: the projection, and what it keeps.

Points are given in flat coordinates (tangent vectors at the root, whose length is the distance to the root), and the
result is in flat coordinates of a hyperbolic plane through the root, (N, 2). Everything is computed in fp64.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from hypvl.checks import one_of
from hypvl.diagnostics.structure import check_rows
from hypvl.geometry.base import Geometry
from hypvl.numerics import working_dtype

Method: TypeAlias = Literal["tangent-pca", "horopca"]
_ROUNDS = 3  # over both directions
_STEPS = 20  # of the ascent of one
_SAMPLE = 128  # points whose pairs the ascent looks at, evenly spread


@dataclass(frozen=True)
class Plane:
    """Points in the plane."""

    points: Tensor  # (N, 2), flat coordinates
    method: Method
    variance_kept: float  # in [0, 1], as the method counts it; 1 where all points coincide
    root_distance_kept: float  # mean of |projected| / |original|; NaN for points about their mean
    centre: Literal["root", "mean"]  # what lies at the origin


@torch.no_grad()
def project(geometry: Geometry, embeddings: Tensor, *, method: Method = "tangent-pca") -> Plane:
    """Project embeddings (N, D), N >= 2, onto a plane through the root.

    Where the geometry has no root (sphere) the plane goes through the mean, a plain projection.

    Raises:
        ValueError: for ``"horopca"`` in a space that is not one hyperbolic factor.

    Example:
        >>> import torch
        >>> from hypvl.diagnostics.plane import project
        >>> from hypvl.geometry.lorentz import Lorentz
        >>> geometry = Lorentz(curv_init=1.0)
        >>> rows = geometry.lift(torch.tensor([[0.3, 0.1, 0.0], [-0.2, 0.4, 0.0], [0.1, -0.3, 0.0]]))
        >>> round(project(geometry, rows).variance_kept, 3)
        1.0
    """
    one_of("method", method, Method)
    check_rows(embeddings, least=2)
    flat = geometry.flatten(embeddings.to(working_dtype(embeddings.device))).cpu().double()
    rooted = geometry.root(embeddings.shape[-1]) is not None
    if method == "horopca":
        curv = geometry.curvature
        if curv is None or curv.numel() != 1:
            raise ValueError("method: got 'horopca', which needs one hyperbolic space; use 'tangent-pca'.")
        points, kept = horopca(flat, curv=float(curv))
    else:
        points, kept = tangent_pca(flat if rooted else flat - flat.mean(0))
    lengths = torch.linalg.vector_norm(flat, dim=-1)
    shorter = torch.linalg.vector_norm(points, dim=-1) / lengths
    ratio = float(shorter[lengths > 0].mean()) if rooted else math.nan
    return Plane(points, method, kept, ratio, "root" if rooted else "mean")


def tangent_pca(flat: Tensor) -> tuple[Tensor, float]:
    """The two principal axes of flat coordinates, (N, D) -> (N, 2), and the share of the variance on them.

    The axes are those of the largest variance about the mean; the coordinates are counted from the origin, which stays
    the origin: geodesics through it stay straight, and no point moves away from it.

    Source: Fletcher et al. 2004, "Principal Geodesic Analysis", with the root as the base point.

    Example:
        >>> axes, share = tangent_pca(torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]))
        >>> axes.shape, round(share, 3)
        (torch.Size([3, 2]), 1.0)
    """
    axes, kept = principal_axes(flat, count=2)
    return flat @ axes.mT, kept


def principal_axes(flat: Tensor, *, count: int) -> tuple[Tensor, float]:
    """Orthonormal axes of the largest variance about the mean: (N, D) -> (count, D), and the share of variance on them.

    Each points to the side where its entry of the largest size is positive, so that a result can be compared. Where D
    is less than ``count``, the missing axes are zeros.

    Example:
        >>> axes, share = principal_axes(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), count=1)
        >>> axes.abs(), round(share, 3)
        (tensor([[1., 0.]]), 1.0)
    """
    rows = flat - flat.mean(0)
    _, values, axes = torch.linalg.svd(rows, full_matrices=False)
    total = float(values.square().sum())
    kept = float(values[:count].square().sum()) / total if total > 0 else 1.0
    axes = axes[:count]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    axes = axes * torch.where(largest < 0, -1.0, 1.0)
    missing = count - len(axes)
    return torch.cat((axes, axes.new_zeros(missing, axes.shape[1]))) if missing else axes, kept


@torch.inference_mode(False)
def horopca(flat: Tensor, *, curv: float) -> tuple[Tensor, float]:
    """Two principal geodesic directions, found through horospherical projections: (N, D) -> (N, 2), and what is kept.

    The two orthogonal ideal points make the mean squared distance of the points projected onto the plane of both
    (:func:`horospherical_projection`) as large as gradient ascent finds it: from the tangent axes, with the signs that
    keep most, one direction after the other. What is kept: the mean squared distance of pairs in the plane over that
    in the space, distances as the space measures them.

    Source: Chami et al. 2021, "HoroPCA" (arXiv 2106.03306).
    Differs: both directions are chosen for the plane, and orthogonal; the base point is the root, not the mean.

    Example:
        >>> directions, kept = horopca(torch.eye(3, dtype=torch.float64), curv=1.0)
        >>> directions.shape
        torch.Size([3, 2])
    """
    flat = flat.detach().clone()  # gradients can pass through it, wherever it was computed
    space = hyperboloid(flat * math.sqrt(curv))
    start, _ = principal_axes(flat, count=2)
    if start.shape[1] < 2 or not bool(start[1].any()):
        raise ValueError(f"flat: got shape {tuple(flat.shape)}; expected at least 2 directions.")
    few = space[torch.linspace(0, len(space) - 1, min(_SAMPLE, len(space))).long()]

    def spread(first: Tensor, second: Tensor) -> Tensor:
        return squared_distances(horospherical_projection(few, torch.stack((first, second)))).mean()

    signs = [(a * start[0], b * start[1]) for a in (1, -1) for b in (1, -1)]
    first, second = max(signs, key=lambda pair: float(spread(*pair)))
    for _ in range(_ROUNDS):
        first = _ascend(first, partial(spread, second=second), away_from=second)
        second = _ascend(second, partial(spread, first), away_from=first)
    plane = horospherical_projection(space, torch.stack((first, second)))
    whole = float(squared_distances(space).mean())
    kept = float(squared_distances(plane).mean()) / whole if whole > 0 else 1.0
    return unroll(plane) / math.sqrt(curv), kept


def hyperboloid(flat: Tensor) -> Tensor:
    """Tangent vectors at the root of the space of curvature -1, (N, D) -> points (N, 1 + D), time first.

    Example:
        >>> hyperboloid(torch.tensor([[0.0, 0.0]]))  # the root
        tensor([[1., 0., 0.]])
    """
    length = torch.linalg.vector_norm(flat, dim=-1, keepdim=True)
    scale = torch.where(length > 1e-12, torch.sinh(length) / length.clamp(min=1e-12), 1.0)
    return torch.cat((torch.cosh(length), scale * flat), dim=-1)


def unroll(points: Tensor) -> Tensor:
    """Inverse of :func:`hyperboloid`: (N, 1 + D) -> (N, D).

    Example:
        >>> unroll(hyperboloid(torch.tensor([[1.0, 0.0]])))
        tensor([[1.0000, 0.0000]])
    """
    space = points[:, 1:]
    length = torch.linalg.vector_norm(space, dim=-1, keepdim=True)
    return torch.where(length > 1e-12, torch.asinh(length) / length.clamp(min=1e-12), 1.0) * space


def busemann(points: Tensor, direction: Tensor) -> Tensor:
    """Signed distance to the horosphere through the root about an ideal point: (N, 1 + D), unit (D,) -> (N,).

    Negative towards the ideal point. On the geodesic from the root to it, minus the distance to the root.

    Example:
        >>> busemann(hyperboloid(torch.tensor([[1.0, 0.0]])), torch.tensor([1.0, 0.0]))  # straight towards it
        tensor([-1.0000])
    """
    return (points[:, 0] - points[:, 1:] @ direction).clamp(min=1e-300).log()


def horospherical_projection(points: Tensor, directions: Tensor) -> Tensor:
    """The points of a plane on the same horospheres: (N, 1 + D), two orthonormal directions (2, D) -> (N, 3).

    Of the two points of the plane that have a point's Busemann coordinates about both ideal points, the one on the
    root's side of the geodesic between them. With ``a = exp(Busemann)`` and lightlike ``l_i = (1, p_i)`` it is
    ``a_2 l_1 + a_1 l_2 + w n``, n the unit normal of the l_i that points to the root, and ``w^2 = 2 a_1 a_2 - 1`` from
    its place on the hyperboloid. A rotation about that geodesic: the distance to it is kept, and so is the root.

    Example:
        >>> horospherical_projection(hyperboloid(torch.eye(3)), torch.eye(3)[:2]).shape
        torch.Size([3, 3])
    """
    a = points[:, :1] - points[:, 1:] @ directions.mT  # (N, 2): exp of the Busemann coordinates
    first, second = a.unbind(1)
    # n = -(1, 1, 1): <n, n> = 1 and <n, l_i> = 0; the root (1, 0, 0) has <root, n> = 1, so that w >= 0 is its side.
    w = (2 * first * second - 1).clamp(min=1e-18).sqrt()
    return torch.stack((first + second - w, second - w, first - w), dim=1)


def squared_distances(points: Tensor) -> Tensor:
    """Squared distances of all pairs on the hyperboloid, (N, 1 + D) -> (N (N - 1) / 2,).

    Example:
        >>> squared_distances(hyperboloid(torch.tensor([[0.0, 0.0], [2.0, 0.0]])))
        tensor([4.0000])
    """
    i, j = torch.triu_indices(len(points), len(points), 1)
    # cosh d - 1 = <x - y, x - y> / 2, which loses no digits of close pairs
    difference = points[i] - points[j]
    chord = difference[:, 1:].square().sum(1) - difference[:, 0].square()
    return (2 * torch.asinh((chord.clamp(min=1e-30) / 4).sqrt())).square()


def _ascend(start: Tensor, value: Callable[[Tensor], Tensor], *, away_from: Tensor) -> Tensor:
    """The unit vector near ``start``, orthogonal to another, where ``value`` is largest; no step goes down."""

    def unit(x: Tensor) -> Tensor:
        x = x - (x * away_from).sum() * away_from
        return x / torch.linalg.vector_norm(x)

    place = unit(start)
    with torch.enable_grad():
        best, step = float(value(place)), 0.5
        for _ in range(_STEPS):
            leaf = place.detach().clone().requires_grad_(True)
            (slope,) = torch.autograd.grad(value(unit(leaf)), leaf)
            size = float(torch.linalg.vector_norm(slope))
            if size < 1e-9 * max(best, 1e-30) or step < 1e-6:
                break
            moved = unit(place + step * slope / size)
            now = float(value(moved))
            if now > best:
                place, best, step = moved.detach(), now, min(1.0, 1.5 * step)
            else:
                step /= 2
    return place
