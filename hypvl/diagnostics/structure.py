"""The shape of a set of embeddings: distances, how tree-like and how curved they are, how many directions they fill.

Coordinates are the geometry's own matter: distances and radii are asked of it (``pairwise_distance``, ``flatten``,
``curvature``), so that the same points give the same numbers in every model of a space.
"""

import math

import torch
from torch import Tensor

from hypvl.geometry.base import Geometry
from hypvl.numerics import full_precision, working_dtype

# Entries of a block of (rows, N, N) that the four-point condition looks at together.
_BLOCK_ENTRIES = 1 << 24


@torch.no_grad()
def unit_radii(geometry: Geometry, embeddings: Tensor) -> Tensor:
    """u = sinh(sqrt(c) r) of each factor, r its distance to the root: (..., D) -> (..., F).

    On the hyperboloid this is sqrt(c) |x| of the space components. Near 0 the space is as good as flat. Without
    curvature these are plain lengths, F = 1.

    Example:
        >>> from hypvl.geometry.lorentz import Lorentz
        >>> space = Lorentz(curv_init=1.0)
        >>> unit_radii(space, space.lift(torch.tensor([[1.0, 0.0]]))).detach()  # sinh(1)
        tensor([[1.1752]], dtype=torch.float64)
    """
    flat = geometry.flatten(embeddings.to(working_dtype(embeddings.device)))
    curv = geometry.curvature
    if curv is None:
        return torch.linalg.vector_norm(flat, dim=-1, keepdim=True)
    lengths = torch.linalg.vector_norm(flat.unflatten(-1, (len(curv), -1)), dim=-1)
    return torch.sinh(lengths * curv.to(lengths).sqrt())


@torch.no_grad()
def pairwise_distances(geometry: Geometry, x: Tensor) -> Tensor:
    """Distances between embeddings as the geometry measures them: (N, D) -> (N, N), symmetric, 0 on the diagonal.

    Example:
        >>> from hypvl.geometry.euclidean import Euclidean
        >>> pairwise_distances(Euclidean(), torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
        tensor([[0., 5.],
                [5., 0.]], dtype=torch.float64)
    """
    x = x.to(working_dtype(x.device))
    distances = geometry.pairwise_distance(x, x)
    distances = (distances + distances.mT) / 2
    return distances.fill_diagonal_(0.0)


@torch.no_grad()
def flat_distortion(geometry: Geometry, x: Tensor) -> float:
    """How much curvature changes distances: mean over pairs of ``|d(x, y) / |flat x - flat y| - 1|``.

    0 = a flat space would do. Flattening keeps lengths and angles at the root; only the sides between points differ.
    In a product the flat distance is taken factor by factor, as its own is (``geometry.flat_distance``).

    Embeddings (N, D), N >= 2 -> at least 0; identical rows do not count. 0 where all coincide, NaN where one is not
    finite.

    Example:
        >>> from hypvl.geometry.euclidean import Euclidean
        >>> flat_distortion(Euclidean(), torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
        0.0
    """
    check_rows(x, least=2)
    if not bool(x.isfinite().all()):
        return math.nan
    curved = pairwise_distances(geometry, x)
    flat = geometry.flatten(x.to(curved))
    straight = geometry.flat_distance(flat, flat)
    apart = torch.triu(straight > 1e-6 * straight.max(), diagonal=1)
    if not bool(apart.any()):
        return 0.0
    return float((curved[apart] / straight[apart] - 1).abs().mean())


@torch.no_grad()
def delta_hyperbolicity(distances: Tensor) -> float:
    """Relative Gromov delta: 0 = the metric of a tree, 1 = as far from one as can be.

    Formula: ``2 delta / diameter``, ``delta = max min((a|b), (b|c)) - (a|c)`` over triples, with the Gromov products
    ``(a|b) = (d(a, w) + d(b, w) - d(a, b)) / 2`` about the first point w.

    Args:
        distances: Of a metric, (N, N), N >= 1.

    Returns:
        In [0, 1]; 0 where all points coincide, NaN where a distance is not finite. Time grows with N^3: give a sample,
        a few hundred points.

    Source: Fournier et al. 2015, "Computing the Gromov hyperbolicity of a discrete metric space"; Khrulkov et al.
        2020, "Hyperbolic Image Embeddings" (arXiv 1904.02239), section 3. One base point gives delta up to a factor 2.

    Example:
        >>> path = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]])
        >>> delta_hyperbolicity(path)  # a path is a tree
        0.0
    """
    if distances.ndim != 2 or distances.shape[0] != distances.shape[1] or len(distances) == 0:
        raise ValueError(f"distances: got shape {tuple(distances.shape)}; expected (N, N), N >= 1.")
    if not bool(distances.isfinite().all()):
        return math.nan
    diameter = float(distances.max())
    if diameter == 0.0:
        return 0.0
    to_base = distances[0]
    products = (to_base[:, None] + to_base - distances) / 2  # (N, N)
    rows = max(1, _BLOCK_ENTRIES // len(distances) ** 2)
    worst = 0.0
    for block in products.split(rows):
        # (rows, N): max over b of min((a|b), (b|c))
        widest = torch.minimum(block[:, :, None], products).amax(1)
        worst = max(worst, float((widest - block).max()))
    return 2 * worst / diameter


@torch.no_grad()
@full_precision
def effective_rank(x: Tensor) -> float:
    """Number of directions that rows fill: exp of the entropy of the shares of the singular values about the mean.

    Flat rows (N, D), N >= 2 -> from 1 (one direction) to min(N - 1, D); 0 where all rows coincide (collapse), NaN
    where one is not finite.

    Source: Roy and Vetterli 2007, "The effective rank".

    Example:
        >>> round(effective_rank(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])), 3)
        2.0
    """
    check_rows(x, least=2)
    if not bool(x.isfinite().all()):
        return math.nan
    rows = x.to(working_dtype(x.device))
    scale = torch.linalg.vector_norm(rows, dim=-1).max()
    values = torch.linalg.svdvals(rows - rows.mean(0))
    values = values[values > 1e-9 * scale]
    if len(values) == 0:
        return 0.0
    share = values / values.sum()
    return float(torch.exp(-(share * share.log()).sum()))


def check_rows(x: Tensor, *, least: int) -> None:
    """Raises ValueError for anything but rows (N, D), N >= ``least``.

    Example:
        >>> check_rows(torch.zeros(3, 2), least=2)
    """
    if x.ndim != 2 or len(x) < least:
        raise ValueError(f"x: got shape {tuple(x.shape)}; expected (N, D), N >= {least}.")
