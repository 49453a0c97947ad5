"""Agreement of K-Means clusters of image features with the classes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, TypeAlias

from hypvl.allowlist import configurable
from hypvl.checks import one_of, whole_number, whole_number_or_none
from hypvl.datasets.classification.splits import shuffled
from hypvl.datasets.images import joined
from hypvl.datasets.protocol import ClassificationSet, check_set
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel, Stage, evaluating
from hypvl.errors import DataError
from hypvl.evaluation.labelled_images import (
    check_features,
    check_labels,
    classes_of,
    encode_labelled,
    is_multi_label,
)
from hypvl.evaluation.probes.kmeans import Clustering, best_kmeans
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.geometry.sphere import normalize
from hypvl.metrics import clustering

Rows: TypeAlias = Literal["flat", "unit"]
_Metric: TypeAlias = Callable[[Sequence[int], Sequence[int]], float]
_METRICS: dict[str, _Metric] = {
    "ami": clustering.adjusted_mutual_info,
    "nmi": clustering.normalized_mutual_info,
    "ari": clustering.adjusted_rand,
    "fowlkes_mallows": clustering.fowlkes_mallows,
    "purity": clustering.purity,
}
_SHUFFLES = 5


@configurable("evaluate")
@dataclass
class KMeansClustering(Evaluator):
    """K-Means of image features, and the agreement of its clusters with the classes.

    Images are resized (shorter side, bicubic) and cropped in the centre. Each seed runs K-Means from several starts
    (k-means++) and keeps the clustering of least inertia; metrics are means over the seeds, and
    ``meta["by_seed"]`` has those of each seed.

    Metrics: ``ami`` (the main one), ``nmi`` (both with the arithmetic mean) and ``ari``, ``homogeneity``,
    ``completeness``, ``fowlkes_mallows``, in [0, 1] or [-1, 1]; in percent ``purity`` and ``hungarian_accuracy``,
    clusters standing for classes one to one. ``nmi``, ``purity`` and ``hungarian_accuracy`` have ``_chance`` beside
    them: their mean over shuffles of the clusters among the images; for ``ami`` and ``ari`` it is 0 by definition.
    An unreadable image is in no cluster: it is left out, and wrong for ``hungarian_accuracy``.

    Items, one per image: ``key``, ``label``, ``cluster`` of the first seed, None for an unreadable image.

    Args:
        clusters: K; None = as many as there are classes with images.
        stage: Stage of the model whose output is clustered. Embeddings are flattened first: unit vectors of a sphere
            stay, points of a hyperboloid go to the tangent space at its root.
        rows: ``flat``, unchanged, or ``unit``, divided by their length.
        iterations: Of K-Means, at most.
        restarts: Starts of each seed.
        seeds: One clustering each, at least one.

    Raises:
        ValueError: for settings that do not fit, more clusters than images, or images with several labels.
        DataError: for a label that is not a class.

    Source: ProtoCLIP (Chen et al. 2022, arXiv 2206.10996), clustering of zero-shot features: K = number of classes,
        100 iterations, 5 starts; ARI and AMI.
    Differs: starts by k-means++ (faiss: random images).
    """

    dataset: ClassificationSet
    _: KW_ONLY
    clusters: int | None = None
    stage: Stage = "embeddings"
    rows: Rows = "flat"
    iterations: int = 100
    restarts: int = 5
    seeds: Sequence[int] = (0, 1, 2)

    main_metric = "ami"

    def __post_init__(self) -> None:
        one_of("stage", self.stage, Stage)
        one_of("rows", self.rows, Rows)
        whole_number_or_none("clusters", self.clusters, least=1)
        whole_number("iterations", self.iterations, least=1)
        whole_number("restarts", self.restarts, least=1)
        if not self.seeds:
            raise ValueError("seeds: got none; expected at least one.")
        check_set(self.dataset, ClassificationSet)
        self._images = joined(self.dataset)
        if is_multi_label(self._images.labels):
            raise ValueError(
                "labels: got several an image; expected one, since an image lies in one cluster."
            )
        check_labels(self._images.labels, self._images.keys, num_classes=len(self.dataset.classes))
        self._labels = [classes_of(label)[0] for label in self._images.labels]
        self._count = len(set(self._labels)) if self.clusters is None else self.clusters

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        encoded = encode_labelled(encoder, self._images, stage=self.stage, label="images")
        positions = encoded.positions
        if self._count > len(positions):
            raise DataError(
                f"clusters: {self._count} for {len(positions)} readable images; expected at least one image each."
            )
        with evaluating(model):
            points = encoded.features
            points = model.geometry.flatten(points) if self.stage == "embeddings" else points
            points = normalize(points) if self.rows == "unit" else points
            check_features(points)
            clusterings = [
                best_kmeans(
                    points, self._count, seed=seed, iterations=self.iterations, restarts=self.restarts
                )
                for seed in self.seeds
            ]
        truth = [self._labels[i] for i in positions]
        measured = [self._measure(truth, one) for one in clusterings]
        names = list(measured[0])
        metrics = {name: sum(one[name] for one in measured) / len(measured) for name in names}
        hits = [clustering.matched_hits(truth, one.labels.tolist()) for one in clusterings]
        accuracy = dict.fromkeys(range(len(self._labels)), 0.0)
        accuracy |= {i: 100.0 * sum(row[n] for row in hits) / len(hits) for n, i in enumerate(positions)}
        metrics["hungarian_accuracy"] = math.fsum(accuracy.values()) / len(accuracy)
        cluster = dict(zip(positions, clusterings[0].labels.tolist(), strict=True))
        return EvaluationResult(
            metrics={**metrics, **self._chance(truth, clusterings[0].labels.tolist())},
            items={
                "key": list(self.dataset.keys),
                "label": self._labels,
                "cluster": [cluster.get(i) for i in range(len(self._labels))],
            },
            meta=self._meta(measured, clusterings),
            samples={"hungarian_accuracy": [accuracy[i] for i in range(len(self._labels))]},
        )

    def _measure(self, truth: list[int], one: Clustering) -> dict[str, float]:
        clusters = one.labels.tolist()
        homogeneity, completeness, _ = clustering.homogeneity_completeness_v(truth, clusters)
        return {
            **{name: metric(truth, clusters) for name, metric in _METRICS.items()},
            "homogeneity": homogeneity,
            "completeness": completeness,
        }

    def _chance(self, truth: list[int], clusters: list[int]) -> dict[str, float]:
        """Mean over shuffles of the clusters among the images, the same ones on every machine."""
        metrics: dict[str, _Metric] = {name: _METRICS[name] for name in ("nmi", "purity")}
        metrics["hungarian_accuracy"] = clustering.hungarian_accuracy
        orders = [shuffled(len(truth), key=f"clustering chance {i}") for i in range(_SHUFFLES)]
        mixed = [[clusters[i] for i in order] for order in orders]
        return {
            f"{name}_chance": sum(metric(truth, one) for one in mixed) / _SHUFFLES
            for name, metric in metrics.items()
        }

    def _meta(self, measured: list[dict[str, float]], clusterings: list[Clustering]) -> dict[str, Any]:
        return {
            "images": len(self._labels),
            "clusters": self._count,
            "stage": self.stage,
            "rows": self.rows,
            "iterations": self.iterations,
            "restarts": self.restarts,
            "by_seed": {
                str(seed): {**one, "inertia": run.inertia}
                for seed, one, run in zip(self.seeds, measured, clusterings, strict=True)
            },
        }
