"""K-Means in torch: Lloyd's iterations from given or drawn centroids, on any device.

Memory: the points twice, one block of distances of ``BLOCK`` points to all centroids, and the centroids.

Distances are computed from inner products about the mean of the points, so that their distance from the origin costs
no digits. Clusters closer to each other than about 1e-3 (fp32) of the largest distance from the mean are not resolved.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypvl.checks import whole_number
from hypvl.io.progress import counted

BLOCK = 4096


@dataclass(frozen=True)
class Clustering:
    """Result of K-Means."""

    centroids: Tensor  # (K, D)
    labels: Tensor  # (N,) int64, the nearest centroid of each point, the first of equally near ones
    inertia: float  # sum of squared distances of the points to their centroids
    objectives: list[float]  # inertia at the start of each iteration; it never rises


def kmeans(points: Tensor, centroids: Tensor, *, iterations: int = 100, label: str = "k-means") -> Clustering:
    """Lloyd's algorithm: assign points to the nearest centroid, move centroids to the mean of their points, repeat.

    A centroid without points stays. The algorithm ends early when no label changes. Labels and inertia are of the final
    centroids.

    Args:
        points: (N, D), fp32 or fp64, finite, at most 1e18 (fp32) from their mean.
        centroids: The start, (K, D).
        iterations: Limit, at least 0.
        label: What the progress bar says.

    Raises:
        ValueError: for other shapes, or points that are not finite.

    Source: Lloyd 1982, "Least squares quantization in PCM".
    """
    _check(points)
    if (
        centroids.ndim != 2
        or centroids.shape[1:] != points.shape[1:]
        or len(centroids) == 0
        or iterations < 0
    ):
        raise ValueError(
            f"centroids, iterations: got shape {tuple(centroids.shape)} and {iterations}; expected "
            f"(K, {points.shape[1]}) and a number >= 0."
        )
    points, centre = _centred(points)
    centroids = centroids - centre
    objectives: list[float] = []
    labels, inertia = nearest(points, centroids)
    for _ in counted(range(iterations), label):
        objectives.append(inertia)
        means, counts = cluster_means(points, labels, clusters=len(centroids))
        centroids = torch.where(counts[:, None] > 0, means, centroids.to(means.dtype))
        before = labels
        labels, inertia = nearest(points, centroids)
        if torch.equal(labels, before):
            break
    return Clustering(centroids + centre, labels, inertia, objectives)


def best_kmeans(
    points: Tensor, clusters: int, *, seed: int = 0, iterations: int = 100, restarts: int = 5
) -> Clustering:
    """The clustering of least inertia of at least one start, drawn by :func:`drawn_centroids`.

    The seed is that of the starts; nothing else is random, and the global generator is not used.

    Raises:
        ValueError: as :func:`kmeans`, for more clusters than points, or no starts.
    """
    whole_number("restarts", restarts, least=1)
    generator = torch.Generator().manual_seed(seed)
    starts = (drawn_centroids(points, clusters, generator=generator) for _ in range(restarts))
    runs = (
        kmeans(points, start, iterations=iterations, label=f"k-means, start {number} of {restarts}")
        for number, start in enumerate(starts, 1)
    )
    return min(runs, key=lambda one: one.inertia)  # the first of equal ones


def drawn_centroids(points: Tensor, clusters: int, *, generator: torch.Generator) -> Tensor:
    """Starts of K-Means, (K, D), of points (N, D): the first uniformly, others in proportion to squared distance.

    K = ``clusters`` is 1 ... N; the generator is on the CPU, whatever the device of the points.

    Source: Arthur and Vassilvitskii 2007, "k-means++".
    """
    _check(points)
    if not 1 <= clusters <= len(points):
        raise ValueError(f"clusters: got {clusters}; expected 1 … {len(points)}, the number of points.")
    given, (points, _) = points, _centred(points)
    draws = torch.rand(clusters, generator=generator, dtype=torch.float64).tolist()
    chosen = [min(int(draws[0] * len(points)), len(points) - 1)]
    lengths = points.square().sum(-1)
    least = _squares_to(points, lengths, chosen[0])  # (N,)
    for draw in counted(draws[1:], "centroids to start k-means from"):
        mass = least.cumsum(0)
        total = float(mass[-1])
        if total > 0:
            position = int(torch.searchsorted(mass, torch.tensor([draw * total]).to(mass), right=True))
            chosen.append(min(position, len(points) - 1))
        else:  # fewer distinct points than clusters: any point serves
            chosen.append(min(int(draw * len(points)), len(points) - 1))
        least = torch.minimum(least, _squares_to(points, lengths, chosen[-1]))
    return given[chosen]


def nearest(points: Tensor, centroids: Tensor) -> tuple[Tensor, float]:
    """Nearest centroid of each point, (N,) int64, and the sum of the squared distances to them."""
    labels, inertia = [], 0.0
    centre = centroids.double().mean(0).to(points)
    centroids = centroids - centre
    for block in points.split(BLOCK):
        block = block - centre
        # |x - c|^2 - |x|^2 has the order of the distances; their values come from the differences.
        scores = centroids.square().sum(-1) - 2 * block @ centroids.mT  # (b, K)
        own = scores.argmin(-1)
        labels.append(own)
        inertia += float((block - centroids[own]).double().square().sum())
    return torch.cat(labels), inertia


def cluster_means(points: Tensor, labels: Tensor, *, clusters: int) -> tuple[Tensor, Tensor]:
    """Mean of the points of each cluster: (N, D), (N,) int64 -> (K, D), zeros where there are none, and counts (K,).

    With the features of one modality and the clusters of another this is the prototype back translation of ProtoCLIP
    (Chen et al. 2022, arXiv 2206.10996). Means are not normalised again.

    Raises:
        ValueError: for a label outside 0 ... K - 1.
    """
    if labels.shape != points.shape[:1] or (
        len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < clusters
    ):
        raise ValueError(
            f"labels: got shape {tuple(labels.shape)}; expected ({len(points)},) of clusters 0 … {clusters - 1}."
        )
    counts = torch.bincount(labels, minlength=clusters)
    sums = points.new_zeros(clusters, points.shape[1]).index_add_(0, labels, points)
    return sums / counts.clamp(min=1)[:, None], counts


def _squares_to(points: Tensor, lengths: Tensor, one: int) -> Tensor:
    """Squared distances to one of the points from inner products, (N,) fp64: accurate enough to draw from."""
    return (lengths + lengths[one] - 2 * points @ points[one]).clamp(min=0).double()


def _centred(points: Tensor) -> tuple[Tensor, Tensor]:
    """Points minus their mean, and the mean, (D,)."""
    centre = sum(block.double().sum(0) for block in points.split(BLOCK)) / len(points)
    centre = torch.as_tensor(centre).to(points)
    centred = points - centre
    if not bool((4 * centred.square().sum(-1)).isfinite().all()):
        raise ValueError(
            f"points: lie up to {float(centred.abs().max()):.0e} from their mean; expected numbers whose squares are "
            f"finite in {points.dtype}, up to {1e18 if points.dtype == torch.float32 else 1e150:.0e}."
        )
    return centred, centre


def _check(points: Tensor) -> None:
    if points.ndim != 2 or len(points) == 0 or not points.is_floating_point():
        raise ValueError(
            f"points: got {points.dtype} {tuple(points.shape)}; expected floating-point (N, D), N >= 1."
        )
    if not bool(points.isfinite().all()):
        raise ValueError("points: hold NaN or infinity; expected finite numbers.")
