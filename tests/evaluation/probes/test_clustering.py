"""Clusters of coloured images, by hand."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hypvl.datasets.classification.folders import ImageFolderSet
from hypvl.embedding.encode import Encoding
from hypvl.errors import DataError
from hypvl.evaluation.probes.clustering import KMeansClustering
from hypvl.evaluation.protocol import Evaluator
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.sphere import Sphere
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import BLUE, GREEN, RED, broken, image
from tests.evaluation.probes.test_knn import Eye

PLAIN = Encoding(batch_size=4, num_workers=0, max_bad_fraction=0.5)


class Seer(Eye):
    """Its embeddings are mean colours, on a sphere or lifted onto a hyperboloid."""

    def __init__(self, *, hyperbolic: bool = False) -> None:
        super().__init__()
        self.geometry = Lorentz() if hyperbolic else Sphere()

    def encode_image(self, images: Tensor, stage: str = "embeddings") -> Tensor:
        trunk = super().encode_image(images, stage="trunk")
        return self.geometry.lift(trunk) if stage == "embeddings" else trunk


def colors(root: Path, *, bad: int = 0) -> ImageFolderSet:
    """Two blue ones, two green ones, two red ones and one more green, which is called red."""
    shades = {
        "blue": [BLUE, (0, 40, 250)],
        "green": [GREEN, (40, 250, 0)],
        "red": [RED, (250, 0, 40), (0, 255, 40)],
    }
    for name, given in shades.items():
        for i, shade in enumerate(given):
            image(root / name / f"{i}.png", shade)
    for i in range(bad):
        broken(root / "blue" / f"x{i}.jpg")
    return ImageFolderSet(root)


class TestContract(EvaluatorContract):
    evaluator_class = KMeansClustering

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        return KMeansClustering(colors(folder, bad=bad), encoding=encoding)

    def model(self) -> Seer:
        return Seer()


def test_values_by_hand(tmp_path: Path) -> None:
    result = KMeansClustering(colors(tmp_path), encoding=PLAIN)(Seer())
    clusters = result.items["cluster"]
    assert (
        clusters[0] == clusters[1]
        and clusters[2] == clusters[3] == clusters[6]
        and clusters[4] == clusters[5]
    )
    assert len(set(clusters)) == 3
    # Six of seven lie with their class. Pairs: 3 of 5 in the classes are also among the 5 in the clusters.
    for name in ("purity", "hungarian_accuracy"):
        assert result.metrics[name] == pytest.approx(600 / 7)
    assert result.metrics["fowlkes_mallows"] == pytest.approx(3 / 5)
    assert result.metrics["ari"] == pytest.approx((3 - 25 / 21) / (5 - 25 / 21))
    # H of 2, 2, 3 of 7 in both; each class given the clusters: a group of three with one other in it.
    entropy = -(4 / 7 * math.log(2 / 7) + 3 / 7 * math.log(3 / 7))
    rest = 3 / 7 * -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    assert result.metrics["nmi"] == pytest.approx(1 - rest / entropy)
    assert (
        result.metrics["homogeneity"] == result.metrics["completeness"] == pytest.approx(1 - rest / entropy)
    )
    assert 0 < result.metrics["ami"] < result.metrics["nmi"]
    assert result.samples["hungarian_accuracy"] == [100.0] * 6 + [0.0]
    assert 100 / 7 < result.metrics["hungarian_accuracy_chance"] < 600 / 7
    assert set(result.meta["by_seed"]) == {"0", "1", "2"} and result.meta["clusters"] == 3


def test_an_unreadable_image_is_in_no_cluster(tmp_path: Path) -> None:
    result = KMeansClustering(colors(tmp_path, bad=1), seeds=[5], encoding=PLAIN)(Seer())
    assert result.items["cluster"][2] is None and result.meta["unreadable"] == 1
    assert result.metrics["hungarian_accuracy"] == pytest.approx(600 / 8)
    assert result.metrics["purity"] == pytest.approx(600 / 7)


def test_seeds_are_averaged_and_repeatable(tmp_path: Path) -> None:
    dataset = colors(tmp_path)
    # Four clusters of seven points from a single start: seeds may end differently.
    both = KMeansClustering(dataset, clusters=4, restarts=1, iterations=1, seeds=[4, 6], encoding=PLAIN)(
        Seer()
    )
    each = [
        KMeansClustering(dataset, clusters=4, restarts=1, iterations=1, seeds=[s], encoding=PLAIN)(Seer())
        for s in (4, 6)
    ]
    assert each[0].metrics["ami"] != pytest.approx(each[1].metrics["ami"])
    for name in ("ami", "nmi", "ari", "purity", "hungarian_accuracy"):
        assert both.metrics[name] == pytest.approx(sum(one.metrics[name] for one in each) / 2)
    assert both.items["cluster"] == each[0].items["cluster"]


def test_a_hyperboloid_is_clustered_in_its_tangent_space(tmp_path: Path) -> None:
    dataset = colors(tmp_path)
    plain = KMeansClustering(dataset, stage="trunk", encoding=PLAIN)(Seer())
    lifted = KMeansClustering(dataset, encoding=PLAIN)(Seer(hyperbolic=True))
    inertia = [result.meta["by_seed"]["0"]["inertia"] for result in (plain, lifted)]
    assert inertia[0] == pytest.approx(inertia[1], rel=1e-4) and plain.metrics == pytest.approx(
        lifted.metrics
    )


def test_unit_rows_ignore_the_length(tmp_path: Path) -> None:
    # Dark and bright of two colours: by brightness as they are, by colour as unit rows.
    for name, shades in {"blue": [(0, 0, 255), (0, 0, 20)], "red": [(255, 0, 0), (20, 0, 0)]}.items():
        for i, shade in enumerate(shades):
            image(tmp_path / name / f"{i}.png", shade)
    dataset = ImageFolderSet(tmp_path)
    unit = KMeansClustering(dataset, stage="features", rows="unit", encoding=PLAIN)(Seer())
    flat = KMeansClustering(dataset, stage="features", encoding=PLAIN)(Seer())
    assert unit.metrics["ari"] == pytest.approx(1.0) and flat.metrics["ari"] < 0.5
    on_sphere = KMeansClustering(dataset, encoding=PLAIN)(Seer())
    assert on_sphere.metrics == pytest.approx(unit.metrics)


def test_classes_without_images_do_not_count_as_clusters(tmp_path: Path) -> None:
    colors(tmp_path)
    (tmp_path / "yellow").mkdir()
    evaluator = KMeansClustering(ImageFolderSet(tmp_path), encoding=PLAIN)
    assert evaluator(Seer()).meta["clusters"] == 3


def test_wrong_settings(tmp_path: Path) -> None:
    dataset = colors(tmp_path)
    with pytest.raises(ValueError, match="stage: got 'pixels'; expected 'trunk', 'features' or 'embeddings'"):
        KMeansClustering(dataset, stage="pixels")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seeds: got none"):
        KMeansClustering(dataset, seeds=[])
    with pytest.raises(DataError, match="clusters: 8 for 7 readable images"):
        KMeansClustering(dataset, clusters=8, encoding=PLAIN)(Seer())
    dataset.labels[0] = [0, 1]  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="labels: got several an image"):
        KMeansClustering(dataset)
    assert torch.is_grad_enabled()
