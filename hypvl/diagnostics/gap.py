"""How far apart two modalities lie: pure metrics of embeddings, and the shift that changes it.

The published figures are about unit vectors. Cosines ignore the lengths of rows; distances depend on them, so give
unit rows (embeddings on a sphere) or ``geometry.flatten`` of other embeddings.

Source: Liang et al. 2022, "Mind the Gap" (arXiv 2203.02053); I0T, An et al. 2024 (arXiv 2412.14384).
"""

import math

import torch
from torch import Tensor

from hypvl.diagnostics.structure import check_rows
from hypvl.geometry.base import Geometry
from hypvl.geometry.sphere import normalize
from hypvl.numerics import full_precision

# Outputs of the linear classifier (targets +1 and -1) closer to 0 than this are on neither side.
_UNDECIDED = 1e-9
_ROWS = 256  # compared with all others at once


@full_precision
def centroid_distance(x: Tensor, y: Tensor) -> Tensor:
    """The modality gap ``|mean x - mean y|``: (N, D), (M, D) -> 0-dim.

    Example:
        >>> centroid_distance(torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]]))
        tensor(2.)
    """
    return torch.linalg.vector_norm(x.mean(0) - y.mean(0))


@full_precision
def centroid_cosine(x: Tensor, y: Tensor) -> Tensor:
    """Cosine of the two mean vectors, in [-1, 1]: (N, D), (M, D) -> 0-dim; 0 where a mean is 0.

    Example:
        >>> centroid_cosine(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]]))
        tensor(0.)
    """
    return (normalize(x.mean(0)) * normalize(y.mean(0))).sum()


@full_precision
def gap_direction(x: Tensor, y: Tensor) -> Tensor:
    """Unit vector from the mean of ``y`` to the mean of ``x``: (N, D), (M, D) -> (D,); 0 where they coincide.

    Example:
        >>> gap_direction(torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
        tensor([1., 0.])
    """
    return normalize(x.mean(0) - y.mean(0))


@full_precision
def signed_centroid_distance(x: Tensor, y: Tensor, *, direction: Tensor) -> Tensor:
    """Centroid distance, negative where the modalities have passed each other.

    Formula: ``|mean x - mean y| sign(u . (mean x - mean y))``.

    u is ``direction``, (D,): the :func:`gap_direction` before anything was moved. (N, D), (M, D) -> 0-dim.

    Source: Liang et al. 2022, section 4 (figures over the shift).

    Example:
        >>> x, y = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0]])
        >>> signed_centroid_distance(y, x, direction=gap_direction(x, y))
        tensor(-2.)
    """
    difference = x.mean(0) - y.mean(0)
    return torch.linalg.vector_norm(difference) * torch.sign((direction * difference).sum())


@full_precision
def mean_paired_cosine(x: Tensor, y: Tensor) -> Tensor:
    """Mean cosine of row i of x with row i of y: (N, D), (N, D) -> 0-dim.

    Example:
        >>> mean_paired_cosine(torch.eye(2), torch.eye(2))
        tensor(1.)
    """
    _check_paired(x, y)
    return (normalize(x) * normalize(y)).sum(-1).mean()


@full_precision
def mean_unpaired_cosine(x: Tensor, y: Tensor) -> Tensor:
    """Mean cosine of rows of x with the others' rows of y, i != j: (N, D), (N, D), N >= 2 -> 0-dim.

    Example:
        >>> mean_unpaired_cosine(torch.eye(2), torch.eye(2))
        tensor(0.)
    """
    _check_paired(x, y)
    check_rows(x, least=2)
    x, y = normalize(x), normalize(y)
    return ((x.sum(0) * y.sum(0)).sum() - (x * y).sum()) / (len(x) * (len(x) - 1))  # no (N, N)


@full_precision
def mean_intra_cosine(x: Tensor) -> Tensor:
    """Mean cosine of different rows of one modality: (N, D), N >= 2 -> 0-dim.

    Example:
        >>> mean_intra_cosine(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
        tensor(1.)
    """
    check_rows(x, least=2)
    x = normalize(x)
    return (x.sum(0).square().sum() - x.square().sum()) / (len(x) * (len(x) - 1))  # no (N, N)


@full_precision
def align(x: Tensor, y: Tensor, *, alpha: float = 2.0) -> Tensor:
    """``mean_i |x_i - y_i|^alpha`` of pairs: (N, D), (N, D) -> 0-dim.

    Source: Wang and Isola 2020 (arXiv 2005.10242), section 4.

    Example:
        >>> align(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]]))
        tensor(1.)
    """
    _check_paired(x, y)
    return torch.linalg.vector_norm(x - y, dim=-1).pow(alpha).mean()


@full_precision
def uniform(x: Tensor, *, t: float = 2.0) -> Tensor:
    """``log mean_{i<j} exp(-t |x_i - x_j|^2)``, low where rows are spread out: (N, D), N >= 2 -> 0-dim, <= 0.

    One block of rows against all at a time, so that memory does not grow with N^2.

    Source: Wang and Isola 2020 (arXiv 2005.10242), section 4.

    Example:
        >>> uniform(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))  # -t |x - y|^2 = -4
        tensor(-4.0000)
    """
    check_rows(x, least=2)
    parts = []
    for start in range(0, len(x), _ROWS):
        rows = x[start : start + _ROWS]
        squares = torch.cdist(rows, x, compute_mode="donot_use_mm_for_euclid_dist").square()  # (b, N)
        own = torch.arange(start, start + len(rows), device=x.device)[:, None]
        parts.append((-t * squares).scatter(1, own, -math.inf).logsumexp(dim=(0, 1)))
    return torch.stack(parts).logsumexp(0) - math.log(len(x) * (len(x) - 1))


@full_precision
def relative_modality_gap(x: Tensor, y: Tensor) -> Tensor:
    """Distance within pairs relative to that between rows of one modality: 0 = no gap, 0.5 = equal.

    Formula: ``P / (W + P)``, P the mean of ``(1 - cos(x_i, y_i)) / 2``, W the mean of ``(1 - cos) / 2`` over the
    different rows within each modality, averaged over the two.

    (N, D), (N, D), N >= 2, row by row partners -> 0-dim in [0, 1]; 0 where all rows coincide, NaN where a row is not
    finite.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> relative_modality_gap(x, x)
        tensor(0.)
    """
    paired = (1 - mean_paired_cosine(x, y)).clamp(min=0) / 2
    within = (2 - mean_intra_cosine(x) - mean_intra_cosine(y)).clamp(min=0) / 4
    total = paired + within
    together = total == 0  # NaN is not
    return torch.where(together, 0.0, paired / torch.where(together, 1.0, total))


@torch.no_grad()
@full_precision
def linear_separability(x: Tensor, y: Tensor) -> float:
    """Share of rows that a linear classifier puts on their modality's side: 1 = apart, 0.5 = mixed.

    The classifier is the least-squares fit of shortest length, with an intercept, of +1 for x and -1 for y; its
    threshold is 0. Nothing is random. A row whose output is 0 (identical rows) counts one half.

    (N, D), (M, D) -> in [0, 1]; NaN where a row is not finite.

    Example:
        >>> x = torch.tensor([[1.0, 0.1], [1.0, -0.1], [1.0, 0.2], [1.0, -0.2]])
        >>> linear_separability(x, -x)
        1.0
    """
    rows = torch.cat((x, y)).double().cpu()
    if not bool(rows.isfinite().all()):
        return math.nan
    rows = torch.cat((rows, rows.new_ones(len(rows), 1)), dim=1)  # (N + M, D + 1)
    target = torch.cat((rows.new_ones(len(x)), -rows.new_ones(len(y))))
    weights = torch.linalg.lstsq(rows, target[:, None], driver="gelsd").solution
    side = (rows @ weights)[:, 0] * target
    right = (side > _UNDECIDED).double() + 0.5 * (side.abs() <= _UNDECIDED).double()
    return float(right.mean())


@torch.no_grad()
@full_precision
def gap_metrics(x: Tensor, y: Tensor) -> dict[str, float]:
    """Every metric of this file for images and their texts, (N, D) each, N >= 2, by name.

    Distances are in units of the rows, cosines in [-1, 1], shares in [0, 1].

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> round(gap_metrics(x, x)["mean_paired_cosine"], 3)
        1.0
    """
    distance = centroid_distance(x, y)
    values = {
        "centroid_distance": distance,
        "centroid_distance_squared": distance.square(),
        "centroid_cosine": centroid_cosine(x, y),
        "image_centroid_norm": torch.linalg.vector_norm(x.mean(0)),
        "text_centroid_norm": torch.linalg.vector_norm(y.mean(0)),
        "mean_paired_distance": align(x, y, alpha=1.0),
        "align": align(x, y),
        "mean_paired_cosine": mean_paired_cosine(x, y),
        "mean_unpaired_cosine": mean_unpaired_cosine(x, y),
        "mean_intra_image_cosine": mean_intra_cosine(x),
        "mean_intra_text_cosine": mean_intra_cosine(y),
        "uniform_image": uniform(x),
        "uniform_text": uniform(y),
        "relative_modality_gap": relative_modality_gap(x, y),
    }
    metrics = {name: float(value) for name, value in values.items()}
    return {**metrics, "linear_separability": linear_separability(x, y)}


def shift_offsets(mean_x: Tensor, mean_y: Tensor, *, delta: float) -> tuple[Tensor, Tensor]:
    """Vectors (D,) to subtract from x and y so that the gap between the modalities shrinks by ``delta``.

    Formula: ``delta / 2 u`` and ``-delta / 2 u``, u the unit vector from mean y to mean x, (D,) each.

    Example:
        >>> x, y = shift_offsets(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 0.0]), delta=1.0)
        >>> x - y
        tensor([1., 0.])
    """
    offset = 0.5 * delta * normalize(mean_x - mean_y)
    return offset, -offset


@full_precision
def move_features(
    x: Tensor, y: Tensor, *, delta: float, geometry: Geometry, direction: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Move two modalities towards each other, or apart, along the line between their means.

    Formula: ``x <- lift(flat x - delta/2 u)``, ``y <- lift(flat y + delta/2 u)``; on the sphere ``lift``
    normalises and ``flat`` is the identity; elsewhere the line is in flat coordinates.

    Args:
        x: Embeddings, (N, D).
        y: Embeddings, (M, D).
        delta: Positive closes the gap, negative widens it; any number.
        direction: u, (D,); None = :func:`gap_direction` of these rows.

    Source: Liang et al. 2022 (arXiv 2203.02053), section 4.
    Differs: one direction from all rows given; I0T estimates it anew in each pair of batches and takes whole
        numbers only.

    Example:
        >>> from hypvl.geometry.euclidean import Euclidean
        >>> x, y = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]])
        >>> moved = move_features(x, y, delta=1.0, geometry=Euclidean())
        >>> centroid_distance(*moved)
        tensor(1.)
    """
    x, y = geometry.flatten(x), geometry.flatten(y)
    u = gap_direction(x, y) if direction is None else direction
    return geometry.lift(x - 0.5 * delta * u), geometry.lift(y + 0.5 * delta * u)


def _check_paired(x: Tensor, y: Tensor) -> None:
    if x.shape != y.shape or x.ndim != 2 or len(x) == 0:
        raise ValueError(
            f"x, y: got shapes {tuple(x.shape)} and {tuple(y.shape)}; expected one shape (N, D), N >= 1, with "
            "partners in the same row."
        )
