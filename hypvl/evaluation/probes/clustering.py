"""Whether the images of a class lie together: K-Means of image features against the classes."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.datasets.classification.splits import shuffled
from hypvl.datasets.protocol import ClassificationSet, check_set
from hypvl.embedding.encode import CachedEncoder, Encoding
from hypvl.embedding.protocol import EvaluableModel, Stage, evaluating
from hypvl.errors import DataError
from hypvl.evaluation.probes.image_pool import Pool, encode_pool
from hypvl.evaluation.probes.kmeans import Clustering, best_kmeans
from hypvl.evaluation.probes.labelled import check_labels, classes_of, is_multi_label
from hypvl.evaluation.probes.logistic import check_features
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
class KMeansClustering(Evaluator):
    """K-Means of image features, without labels, and how well the clusters agree with the classes.

    Images are resized (shorter side, bicubic) and cropped in the centre. Each seed runs K-Means from several starts
    (k-means++) and keeps the clustering of least inertia; metrics are means over the seeds, those of each seed are in
    ``meta["by_seed"]``.

    Metrics: ``ami`` (the main one), ``nmi`` (both with the arithmetic mean) and ``ari``, ``homogeneity``,
    ``completeness``, ``fowlkes_mallows``, in [0, 1] or [-1, 1]; in percent ``purity`` and ``hungarian_accuracy``,
    clusters standing for classes one to one. ``nmi``, ``purity`` and ``hungarian_accuracy`` have ``_chance`` beside
    them: their mean over shuffles of the clusters among the images; of ``ami`` and ``ari`` it is 0 by their making.
    An image that cannot be read is in no cluster: left out, and wrong for ``hungarian_accuracy``.

    Items, one per image: ``key``, ``label``, ``cluster`` of the first seed, None for an unreadable image.

    Args:
        dataset: Labelled images.
        clusters: K; None = as many as there are classes with images.
        stage: What of the model is clustered. Embeddings are taken to flat coordinates first: unit vectors of a
            sphere as they are, points of a hyperboloid to the tangent space at its root.
        rows: ``flat``, as they come, or ``unit``, divided by their length.
        iterations: Of K-Means, at most.
        restarts: Starts of each seed.
        seeds: One clustering each, at least one.
        encoding: Batches, workers, precision.

    Raises:
        ValueError: for settings that do not fit, more clusters than images, or images with several labels.
        DataError: for a label that is no class.

    Source: ProtoCLIP (Chen et al. 2022, arXiv 2206.10996), clustering of zero-shot features: K = number of classes,
        100 iterations, 5 starts; ARI and AMI.
    Differs: starts by k-means++ (faiss: random images).
    """

    main_metric = "ami"

    def __init__(
        self,
        dataset: ClassificationSet,
        *,
        clusters: int | None = None,
        stage: Stage = "embeddings",
        rows: Rows = "flat",
        iterations: int = 100,
        restarts: int = 5,
        seeds: Sequence[int] = (0, 1, 2),
        encoding: Encoding | None = None,
    ) -> None:
        if stage not in ("trunk", "features", "embeddings") or rows not in ("flat", "unit"):
            raise ValueError(
                f"stage, rows: got {stage!r} and {rows!r}; expected 'trunk', 'features' or 'embeddings', and 'flat' "
                "or 'unit'."
            )
        if not seeds or (clusters is not None and clusters < 1) or iterations < 1 or restarts < 1:
            raise ValueError(
                f"clusters, iterations, restarts, seeds: got {clusters}, {iterations}, {restarts} and {len(seeds)} "
                "seeds; expected at least 1 of each."
            )
        check_set(dataset, ClassificationSet)
        self.dataset = dataset
        self.pool = Pool([dataset])
        if is_multi_label(self.pool.labels):
            raise ValueError("labels: got several an image; expected one, an image lies in one cluster.")
        check_labels(self.pool.labels, self.pool.keys, num_classes=len(dataset.classes))
        self.labels = [classes_of(label)[0] for label in self.pool.labels]
        self.clusters = len(set(self.labels)) if clusters is None else clusters
        self.stage: Stage = stage
        self.rows = rows
        self.iterations = iterations
        self.restarts = restarts
        self.seeds = list(seeds)
        self.encoding = encoding

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        """Encode, cluster and compare."""
        encoded = encode_pool(
            model, self.pool, None, stage=self.stage, encoding=encoder.encoding, label="images"
        )
        positions = encoded.positions
        if self.clusters > len(positions):
            raise DataError(
                f"clusters: {self.clusters} for {len(positions)} readable images; expected at least one image each."
            )
        with evaluating(model):
            points = self._points(model, encoded.features)
            found = [
                best_kmeans(
                    points, self.clusters, seed=seed, iterations=self.iterations, restarts=self.restarts
                )
                for seed in self.seeds
            ]
        truth = [self.labels[i] for i in positions]
        measured = [self._measure(truth, one) for one in found]
        names = list(measured[0])
        metrics = {name: sum(one[name] for one in measured) / len(measured) for name in names}
        hits = [clustering.matched_hits(truth, one.labels.tolist()) for one in found]
        accuracy = dict.fromkeys(range(len(self.labels)), 0.0)
        accuracy |= {i: 100.0 * sum(row[n] for row in hits) / len(hits) for n, i in enumerate(positions)}
        metrics["hungarian_accuracy"] = math.fsum(accuracy.values()) / len(accuracy)
        cluster = dict(zip(positions, found[0].labels.tolist(), strict=True))
        return EvaluationResult(
            metrics={**metrics, **self._chance(truth, found[0].labels.tolist())},
            items={
                "key": list(self.dataset.keys),
                "label": self.labels,
                "cluster": [cluster.get(i) for i in range(len(self.labels))],
            },
            meta=self._meta(measured, found, encoded.bad),
            samples={"hungarian_accuracy": [accuracy[i] for i in range(len(self.labels))]},
        )

    def _points(self, model: EvaluableModel, features: Tensor) -> Tensor:
        """What is clustered, (n, D)."""
        points = model.geometry.flatten(features) if self.stage == "embeddings" else features
        points = normalize(points) if self.rows == "unit" else points
        check_features(points)
        return points

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

    def _meta(
        self, measured: list[dict[str, float]], found: list[Clustering], bad: list[tuple[int, str]]
    ) -> dict[str, Any]:
        return {
            "images": len(self.labels),
            "clusters": self.clusters,
            "stage": self.stage,
            "rows": self.rows,
            "iterations": self.iterations,
            "restarts": self.restarts,
            "by_seed": {
                str(seed): {**one, "inertia": run.inertia}
                for seed, one, run in zip(self.seeds, measured, found, strict=True)
            },
            "unreadable": len(bad),
            "unreadable_first": [reason for _, reason in bad[:10]],
            "main_metric": self.main_metric,
        }
