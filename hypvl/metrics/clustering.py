"""Agreement of clusters with classes, and shape of clusters: pure functions, most of them scikit-learn's.

Classes and clusters are any integers. Indices are in [0, 1] or [-1, 1]; ``purity`` and ``hungarian_accuracy``, which
count items, are in percent.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from hypvl.checks import one_of

Average: TypeAlias = Literal["arithmetic", "geometric", "max", "min"]
AVERAGES: tuple[Average, ...] = ("arithmetic", "geometric", "max", "min")


def adjusted_mutual_info(
    truth: Sequence[int], clusters: Sequence[int], *, average: Average = "arithmetic"
) -> float:
    """Mutual information over the mean entropy, both adjusted for chance; 0 = chance, 1 = equal.

    Source: Vinh et al. 2010, "Information theoretic measures for clusterings comparison".

    Example:
        >>> adjusted_mutual_info([0, 0, 1, 1], [5, 5, 2, 2])
        1.0
    """
    one_of("average", average, Average)
    from sklearn.metrics import adjusted_mutual_info_score

    _check(truth, clusters)
    return float(adjusted_mutual_info_score(truth, clusters, average_method=average))


def normalized_mutual_info(
    truth: Sequence[int], clusters: Sequence[int], *, average: Average = "arithmetic"
) -> float:
    """Mutual information over a mean of the two entropies, in [0, 1]; it grows with the number of clusters alone.

    Example:
        >>> normalized_mutual_info([0, 0, 1, 1], [5, 5, 2, 2])
        1.0
    """
    one_of("average", average, Average)
    from sklearn.metrics import normalized_mutual_info_score

    _check(truth, clusters)
    return float(normalized_mutual_info_score(truth, clusters, average_method=average))


def mutual_info(truth: Sequence[int], clusters: Sequence[int]) -> float:
    """Mutual information in nats.

    Example:
        >>> round(mutual_info([0, 0, 1, 1], [5, 5, 2, 2]), 4)  # log 2
        0.6931
    """
    from sklearn.metrics import mutual_info_score

    _check(truth, clusters)
    return float(mutual_info_score(truth, clusters))


def adjusted_rand(truth: Sequence[int], clusters: Sequence[int]) -> float:
    """Share of pairs of items that both partitions join or both separate, adjusted for chance; 0 = chance, 1 = equal.

    Source: Hubert and Arabie 1985, "Comparing partitions".

    Example:
        >>> adjusted_rand([0, 0, 1, 1], [5, 5, 2, 2])
        1.0
    """
    from sklearn.metrics import adjusted_rand_score

    _check(truth, clusters)
    return float(adjusted_rand_score(truth, clusters))


def homogeneity_completeness_v(truth: Sequence[int], clusters: Sequence[int]) -> tuple[float, float, float]:
    """Homogeneity (one class a cluster), completeness (one cluster a class), and their harmonic mean.

    Source: Rosenberg and Hirschberg 2007, "V-measure".

    Example:
        >>> [round(value, 3) for value in homogeneity_completeness_v([0, 0, 1, 1], [0, 0, 0, 0])]
        [0.0, 1.0, 0.0]
    """
    from sklearn.metrics import homogeneity_completeness_v_measure

    _check(truth, clusters)
    first, second, third = homogeneity_completeness_v_measure(truth, clusters)
    return float(first), float(second), float(third)


def fowlkes_mallows(truth: Sequence[int], clusters: Sequence[int]) -> float:
    """Geometric mean of precision and recall over pairs of items, in [0, 1]; 0 without a pair in one class and cluster.

    Source: Fowlkes and Mallows 1983.

    Example:
        >>> fowlkes_mallows([0, 0, 1, 1], [5, 5, 2, 2])
        1.0
    """
    from sklearn.metrics import fowlkes_mallows_score

    _check(truth, clusters)
    return float(fowlkes_mallows_score(truth, clusters))


def contingency(truth: Sequence[int], clusters: Sequence[int]) -> np.ndarray:
    """Counts of items by class (rows, sorted) and cluster (columns, sorted).

    Example:
        >>> contingency([0, 0, 1], [5, 2, 2])
        array([[1, 1],
               [1, 0]])
    """
    _check(truth, clusters)
    from sklearn.metrics.cluster import contingency_matrix

    return np.asarray(contingency_matrix(truth, clusters), dtype=np.int64)


def purity(truth: Sequence[int], clusters: Sequence[int]) -> float:
    """Percent of items in the most frequent class of their cluster; it grows with the number of clusters alone.

    Example:
        >>> purity([0, 0, 1, 1], [0, 0, 0, 1])
        75.0
    """
    table = contingency(truth, clusters)
    return 100.0 * float(table.max(0).sum()) / float(table.sum())


def matched_hits(truth: Sequence[int], clusters: Sequence[int]) -> list[bool]:
    """Whether each item is right under the best one-to-one matching of clusters and classes.

    Of several best matchings one is taken, always the same one for the same table. Surplus clusters match no class.

    Source: Kuhn 1955, "The Hungarian method for the assignment problem".

    Example:
        >>> matched_hits([0, 0, 1, 1], [5, 5, 5, 2])
        [True, True, False, True]
    """
    from scipy.optimize import linear_sum_assignment

    table = contingency(truth, clusters)
    classes, names = np.unique(np.asarray(truth)), np.unique(np.asarray(clusters))
    rows, columns = linear_sum_assignment(table, maximize=True)
    class_of = {names[column]: classes[row] for row, column in zip(rows, columns, strict=True)}
    return [bool(class_of.get(cluster) == label) for label, cluster in zip(truth, clusters, strict=True)]


def hungarian_accuracy(truth: Sequence[int], clusters: Sequence[int]) -> float:
    """Percent of :func:`matched_hits`.

    Example:
        >>> hungarian_accuracy([0, 0, 1, 1], [5, 5, 5, 2])
        75.0
    """
    hits = matched_hits(truth, clusters)
    return 100.0 * sum(hits) / len(hits)


def label_metrics(truth: Sequence[int], clusters: Sequence[int]) -> dict[str, float]:
    """Every metric that compares the clusters of items with their classes, by name; ``ami`` and ``nmi`` by average.

    Raises:
        ValueError: for lists of different length, or none.

    Example:
        >>> round(label_metrics([0, 0, 1, 1], [5, 5, 5, 2])["purity"], 1)
        75.0
    """
    homogeneity, completeness, v_measure = homogeneity_completeness_v(truth, clusters)
    metrics: dict[str, Callable[[Sequence[int], Sequence[int]], float]] = {
        **{f"ami_{name}": partial(adjusted_mutual_info, average=name) for name in AVERAGES},
        **{f"nmi_{name}": partial(normalized_mutual_info, average=name) for name in AVERAGES},
        "mutual_info_nats": mutual_info,
        "ari": adjusted_rand,
        "fowlkes_mallows": fowlkes_mallows,
        "purity": purity,
        "hungarian_accuracy": hungarian_accuracy,
    }
    return {
        **{name: metric(truth, clusters) for name, metric in metrics.items()},
        "homogeneity": homogeneity,
        "completeness": completeness,
        "v_measure": v_measure,
    }


def shape_metrics(points: ArrayLike, clusters: Sequence[int]) -> dict[str, float]:
    """How compact and how far apart clusters are, without classes; Euclidean.

    ``silhouette`` in [-1, 1] and ``calinski_harabasz`` > 0, higher is better; ``davies_bouldin`` >= 0, lower is.

    Raises:
        ValueError: for anything but points (N, D) and N clusters, at least 2 different ones and fewer than N.

    Source: Rousseeuw 1987; Davies and Bouldin 1979; Calinski and Harabasz 1974.

    Example:
        >>> sorted(shape_metrics([[0.0], [0.1], [5.0], [5.1]], [0, 0, 1, 1]))
        ['calinski_harabasz', 'davies_bouldin', 'silhouette']
    """
    from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score, silhouette_score

    table, count = np.asarray(points), len(set(clusters))
    if len(table) != len(clusters) or not 2 <= count < len(table):
        raise ValueError(
            f"clusters: got {len(clusters)} labels of {count} clusters for {len(table)} points; expected one each, "
            "of at least 2 clusters and fewer than points."
        )
    return {
        "silhouette": float(silhouette_score(table, clusters)),
        "davies_bouldin": float(davies_bouldin_score(table, clusters)),
        "calinski_harabasz": float(calinski_harabasz_score(table, clusters)),
    }


def _check(truth: Sequence[int], clusters: Sequence[int]) -> None:
    if len(truth) != len(clusters) or len(truth) == 0:
        raise ValueError(
            f"truth, clusters: got {len(truth)} and {len(clusters)} labels; expected one of each per item, at least 1."
        )
