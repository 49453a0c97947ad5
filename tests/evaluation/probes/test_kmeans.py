"""K-Means by hand, against scikit-learn, and by its properties."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import hypvl.evaluation.probes.kmeans as module
from hypvl.evaluation.probes.kmeans import best_kmeans, cluster_means, drawn_centroids, kmeans, nearest


def blobs(seed: int = 0, per: int = 20, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], dtype=dtype)
    labels = torch.arange(3).repeat_interleave(per)
    return centres[labels] + torch.randn(3 * per, 2, generator=generator, dtype=dtype), labels


def test_by_hand() -> None:
    points = torch.tensor([[0.0], [1.0], [9.0], [11.0]])
    result = kmeans(points, torch.tensor([[0.0], [1.0]]), iterations=10)
    # 0 | 1 9 11 -> means 0, 7 -> 0 1 | 9 11 -> means 0.5, 10, and nothing moves any more.
    assert result.labels.tolist() == [0, 0, 1, 1]
    assert result.centroids.tolist() == [[0.5], [10.0]]
    assert result.inertia == pytest.approx(0.25 + 0.25 + 1 + 1)
    assert result.objectives == pytest.approx([0 + 0 + 64 + 100, 0 + 1 + 4 + 16])
    none = kmeans(points, torch.tensor([[0.0], [1.0]]), iterations=0)
    assert none.labels.tolist() == [0, 1, 1, 1] and none.objectives == []


def test_a_centroid_without_points_stays() -> None:
    points = torch.tensor([[0.0], [1.0]])
    result = kmeans(points, torch.tensor([[0.0], [50.0]]))
    assert result.centroids.tolist() == [[0.5], [50.0]] and result.labels.tolist() == [0, 0]


def test_same_as_scikit_learn_from_the_same_start() -> None:
    from sklearn.cluster import KMeans

    points = torch.randn(80, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    start = points[:6]
    result = kmeans(points, start, iterations=300)
    other = KMeans(6, init=start.numpy(), n_init=1, tol=0, max_iter=300).fit(points.numpy())
    assert result.labels.tolist() == other.labels_.tolist()
    np.testing.assert_allclose(result.centroids.numpy(), other.cluster_centers_, rtol=1e-10)
    assert result.inertia == pytest.approx(other.inertia_)
    assert result.objectives == sorted(result.objectives, reverse=True)


@pytest.mark.parametrize("offset", [0.0, 1000.0, -30000.0])
def test_same_as_scikit_learn_far_from_the_origin(offset: float) -> None:
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    points, labels = blobs(dtype=torch.float32)
    points = torch.cat((0.1 * points, torch.zeros(60, 30)), dim=1) + offset  # 1 between blobs of spread 0.1
    result = best_kmeans(points, 3)
    assert adjusted_rand_score(labels, result.labels) == 1.0
    other = KMeans(3, n_init=5, random_state=0).fit(points.numpy())
    assert adjusted_rand_score(other.labels_, result.labels) == 1.0
    assert result.inertia == pytest.approx(other.inertia_, rel=1e-2)
    for blob in range(3):  # centroids are where the points are
        mean = points[labels == blob].double().mean(0)
        own = result.centroids[result.labels[labels == blob][0]].double()
        assert float((own - mean).abs().max()) < 1e-6 * max(abs(offset), 1.0)
    same = kmeans(points, result.centroids, iterations=0)
    assert torch.equal(same.labels, result.labels)
    assert torch.equal(nearest(points, result.centroids)[0], result.labels)


def test_points_too_far_apart_are_an_error() -> None:
    points, _ = blobs(dtype=torch.float32)
    with pytest.raises(
        ValueError, match=r"points: lie up to 1e\+20 from their mean; expected .* up to 1e\+18"
    ):
        best_kmeans(torch.cat((points, torch.full((1, 2), 1e20))), 3)
    assert best_kmeans(points * 1e16, 3).inertia == pytest.approx(
        1e32 * best_kmeans(points, 3).inertia, rel=1e-5
    )
    assert best_kmeans(points + 1e20, 1).inertia == 0.0  # far, but all in one place


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    points, _ = blobs()
    whole = kmeans(points, points[:5])
    monkeypatch.setattr(module, "BLOCK", 7)
    parts = kmeans(points, points[:5])
    assert torch.equal(whole.labels, parts.labels) and whole.inertia == pytest.approx(parts.inertia)


def test_drawn_starts_are_seeded_points_in_different_blobs() -> None:
    points, labels = blobs()
    for seed in range(8):
        start = drawn_centroids(points, 3, generator=torch.Generator().manual_seed(seed))
        where = [int((points == row).all(-1).nonzero()[0]) for row in start]
        # Uniform draws would fall into three different blobs 2 times in 9.
        assert sorted(labels[where].tolist()) == [0, 1, 2]
        again = drawn_centroids(points, 3, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(start, again)


def test_fewer_distinct_points_than_clusters() -> None:
    result = best_kmeans(torch.ones(4, 2), 3, restarts=2)
    assert result.inertia == 0.0 and result.labels.tolist() == [0] * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_best_start_finds_the_blobs_and_draws_from_its_seed_only(dtype: torch.dtype) -> None:
    points, labels = blobs(dtype=dtype)
    state = torch.get_rng_state()
    result = best_kmeans(points, 3, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    for blob in range(3):
        assert len(set(result.labels[labels == blob].tolist())) == 1
    assert result.inertia == pytest.approx(best_kmeans(points, 3, seed=4).inertia)
    one = best_kmeans(points, 7, seed=5, restarts=1).inertia
    assert best_kmeans(points, 7, seed=5, restarts=6).inertia <= one
    assert nearest(points, result.centroids)[1] == pytest.approx(result.inertia)


def test_cluster_means_of_another_modality() -> None:
    means, counts = cluster_means(
        torch.tensor([[1.0, 0], [3, 2], [5, 5]]), torch.tensor([2, 2, 0]), clusters=4
    )
    assert means.tolist() == [[5, 5], [0, 0], [2, 1], [0, 0]] and counts.tolist() == [1, 0, 2, 0]
    with pytest.raises(ValueError, match="of clusters 0 … 1"):
        cluster_means(torch.zeros(2, 2), torch.tensor([0, 2]), clusters=2)


def test_wrong_arguments() -> None:
    points = torch.zeros(4, 2)
    with pytest.raises(ValueError, match="clusters: got 5; expected 1 … 4"):
        best_kmeans(points, 5)
    with pytest.raises(ValueError, match="restarts: got 0"):
        best_kmeans(points, 2, restarts=0)
    with pytest.raises(ValueError, match=r"got shape \(1, 3\)"):
        kmeans(points, torch.zeros(1, 3))
    with pytest.raises(ValueError, match="hold NaN"):
        kmeans(points / 0, points)
    with pytest.raises(ValueError, match=r"points: got torch\.int64"):
        kmeans(torch.zeros(2, 2, dtype=torch.int64), points)
    assert math.isfinite(kmeans(points, points[:1]).inertia)
