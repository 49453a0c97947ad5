"""Clustering, weighted nearest neighbours and feature analysis against clustering_metrics.json."""

from typing import Any

import numpy as np
import pytest
import torch

from hypvl.diagnostics.gap import align, centroid_distance, mean_intra_cosine, uniform
from hypvl.evaluation.probes.kmeans import cluster_means, kmeans
from hypvl.metrics.clustering import contingency, label_metrics, shape_metrics
from hypvl.metrics.neighbours import neighbour_votes
from hypvl.metrics.ranking import rank_keys
from hypvl.metrics.spread import mean_deviation, positive_self_similarity
from tests.metrics.composed import topk_accuracy
from tests.parity.reference import cases, load, number

PERCENT = ("purity", "hungarian_accuracy")


def tensor(rows: Any) -> torch.Tensor:
    return torch.tensor(number(rows), dtype=torch.float64)


def section(name: str) -> dict[str, Any]:
    content = load("clustering_metrics")
    assert content is not None
    return content[name]


@pytest.mark.parametrize("case", cases("clustering_metrics", "label_metrics"))
def test_label_metrics(case: dict[str, Any]) -> None:
    result = label_metrics(case["labels_true"], case["labels_pred"])
    expected = dict(case["expected"])
    table = expected.pop("contingency", None)
    if table is not None:
        assert contingency(case["labels_true"], case["labels_pred"]).tolist() == table
    assert expected
    for name, value in expected.items():
        scale = 100.0 if name in PERCENT else 1.0
        assert result[name] == pytest.approx(scale * number(value), rel=1e-9, abs=1e-9), name


def kmeans_cases() -> list[Any]:
    """The results ``after_<n>_iterations``; other entries are inputs."""
    result = cases("clustering_metrics", "kmeans")
    return [c for c in result if c.values[0] is None or c.values[0][0].startswith("after_")]


@pytest.mark.parametrize("case", kmeans_cases())
def test_kmeans(case: tuple[str, dict[str, Any]]) -> None:
    name, expected = case
    given = section("kmeans")
    count = int(name.split("_")[1])
    result = kmeans(tensor(given["points"]), tensor(given["initial_centroids"]), iterations=count)
    assert result.labels.tolist() == expected["labels"]
    torch.testing.assert_close(result.centroids, tensor(expected["centroids"]), rtol=1e-9, atol=1e-12)
    assert result.inertia == pytest.approx(number(expected["inertia"]), rel=1e-9)
    objectives = number(expected.get("objective_per_iteration", []))
    ours = result.objectives + [result.inertia] * count  # ours ends when nothing moves
    assert ours[: len(objectives)] == pytest.approx(objectives, rel=1e-9)


def resolve(path: Any) -> Any:
    """``kmeans.points`` names an entry of the file."""
    if not isinstance(path, str):
        return path
    content: Any = load("clustering_metrics")
    for part in path.split("."):
        content = content[part]
    return content


@pytest.mark.parametrize("case", cases("clustering_metrics", "internal_metrics", "expected"))
def test_shape_metrics(case: tuple[str, float]) -> None:
    given = section("internal_metrics")
    result = shape_metrics(number(resolve(given["points"])), resolve(given["labels"]))
    assert result[case[0]] == pytest.approx(number(case[1]), rel=1e-9)


def test_prototype_back_translation() -> None:
    content = load("clustering_metrics")
    if content is None or "prototype_back_translation" not in content:
        pytest.skip("clustering_metrics.json has no prototype_back_translation")
    given = content["prototype_back_translation"]
    labels = torch.tensor(given["teacher_labels"])
    means, _ = cluster_means(tensor(given["student_features"]), labels, clusters=given["k"])
    torch.testing.assert_close(means, tensor(given["expected"]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", cases("clustering_metrics", "knn", "expected"))
def test_nearest_neighbours(case: dict[str, Any]) -> None:
    given = section("knn")
    train, test = (
        torch.nn.functional.normalize(tensor(given[f"{s}_features"]), dim=-1) for s in ("train", "test")
    )
    similarity = test @ train.mT
    order = rank_keys(similarity, case["k"])
    labels = torch.tensor(given["train_labels"])[order]
    votes = neighbour_votes(
        similarity.gather(1, order), labels, num_classes=given["num_classes"], temperature=case["temperature"]
    )
    torch.testing.assert_close(votes, tensor(case["votes"]), rtol=1e-9, atol=1e-9)
    assert rank_keys(votes, 1)[:, 0].tolist() == case["predictions"]
    accuracy = topk_accuracy(votes, torch.tensor(given["test_labels"]))
    assert accuracy == pytest.approx(number(case["top1_accuracy_percent"]), rel=1e-9)


@pytest.mark.parametrize("case", cases("clustering_metrics", "feature_analysis", "expected"))
def test_feature_analysis(case: tuple[str, float]) -> None:
    name, expected = case
    given = section("feature_analysis")
    image, text = tensor(given["image_features"]), tensor(given["text_features"])
    pair = {"modality_gap": centroid_distance, "alignment_loss_alpha2": align}
    one = {
        "avg_self_similarity": positive_self_similarity,
        "feature_std": mean_deviation,
        "mean_pairwise_cosine": mean_intra_cosine,
        "uniformity_t2": uniform,
    }
    if name in pair:
        result = pair[name](image, text)
    else:
        modality, _, kind = name.partition("_")
        result = one[kind](image if modality == "image" else text)
    assert np.float64(result) == pytest.approx(number(expected), rel=1e-9, abs=1e-12)
