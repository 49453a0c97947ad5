"""The gap between images and captions of a set."""

from pathlib import Path

import pytest
import torch

from hypvl.datasets.retrieval.table import table
from hypvl.diagnostics.gap import gap_metrics
from hypvl.embedding.encode import Encoding
from hypvl.errors import DataError
from hypvl.evaluation.modality_gap import ModalityGap
from hypvl.geometry.euclidean import Euclidean
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeModel, FakeTokenizer, broken, image
from tests.evaluation.hyperbolic import Hyperbolic
from tests.geometry.poincare import PoincareBall


class FlatModel(FakeModel):
    geometry = Euclidean()


def dataset(folder: Path, *, bad: int = 0) -> ModalityGap:
    colors = {"a": (RED, "red"), "b": (GREEN, "yellow"), "c": (BLUE, "blue"), "d": (BLUE, "red blue")}
    lines = []
    for name, (color, caption) in colors.items():
        image(folder / f"{name}.png", color)
        lines.append(f'{{"image": "{name}.png", "captions": ["{caption}", "green"]}}')
    for i in range(bad):
        broken(folder / f"bad{i}.png")
        lines.append(f'{{"image": "bad{i}.png", "caption": "green"}}')
    image(folder / "alone.png", RED)
    lines.append('{"image": "alone.png", "captions": []}')
    (folder / "set.jsonl").write_text("\n".join(lines))
    return table(folder / "set.jsonl")


class TestModalityGap(EvaluatorContract):
    evaluator_class = ModalityGap

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> ModalityGap:
        folder.mkdir(exist_ok=True)
        return ModalityGap(dataset(folder, bad=bad), encoding=encoding, tokenizer=FakeTokenizer())

    def model(self) -> FlatModel:
        return FlatModel()

    def test_pairs_are_images_with_their_first_caption(self, tmp_path: Path) -> None:
        result = self.make(tmp_path, bad=1)(self.model())
        images = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]], dtype=torch.float64)
        texts = torch.tensor([[1.0, 0, 0], [0.7, 0.7, 0], [0, 0, 1], [1, 0, 1]], dtype=torch.float64)
        before, after = (
            gap_metrics(images, texts),
            gap_metrics(images - images.mean(0), texts - texts.mean(0)),
        )
        for metrics in (before, after):
            metrics["linear_separability"] *= 100
        expected = before | {f"after_{name}": value for name, value in after.items()}
        assert {name: result.metrics[name] for name in expected} == pytest.approx(
            expected, rel=1e-6, abs=1e-6
        )
        assert result.metrics["centroid_distance"] == pytest.approx((0.425**2 + 0.075**2) ** 0.5, rel=1e-6)
        assert result.metrics["after_centroid_distance"] == pytest.approx(0.0, abs=1e-6)
        assert result.items["key"] == ["a.png", "b.png", "c.png", "d.png"]
        assert result.items["cosine"] == pytest.approx([1, 0.5**0.5, 1, 0.5**0.5])
        assert (result.meta["pairs"], result.meta["images"], result.meta["unreadable"]) == (4, 6, 1)
        assert result.meta["spaces"] == ["tangent"]

    def test_recall_is_by_the_models_score(self, tmp_path: Path) -> None:
        result = self.make(tmp_path)(self.model())
        # "yellow" scores red and green alike, "red blue" red and both blues: the first is taken, here a wrong one.
        assert result.metrics["text_to_image_recall@1"] == 50.0
        assert result.metrics["image_to_text_recall@1"] == 75.0
        assert result.metrics["text_to_image_recall@1_chance"] == 25.0
        assert result.samples["image_to_text_recall@1"] == [100.0, 100.0, 100.0, 0.0]

    def test_the_sweep_moves_by_delta(self, tmp_path: Path) -> None:
        result = self.make(tmp_path)(self.model())
        gap = result.metrics["centroid_distance"]
        assert result.items["curve_delta"] == [-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0]
        assert set(result.items["curve_space"]) == {"tangent"}
        signed = [gap - delta for delta in result.items["curve_delta"]]
        assert result.items["curve_signed_centroid_distance"] == pytest.approx(signed, rel=1e-6)
        assert result.items["curve_centroid_distance"] == pytest.approx([abs(s) for s in signed], rel=1e-6)
        still = result.items["curve_delta"].index(0.0)
        for way in ("text_to_image_recall@1", "image_to_text_recall@1"):
            assert result.items[f"curve_{way}"][still] == result.metrics[way]

    def test_a_hyperboloid_has_two_spaces(self, tmp_path: Path) -> None:
        evaluator = ModalityGap(
            dataset(tmp_path), deltas=[0.0, 0.3], encoding=Encoding(num_workers=0), tokenizer=FakeTokenizer()
        )
        result = evaluator(Hyperbolic())
        assert result.meta["spaces"] == ["tangent", "embedding"]
        assert result.items["curve_space"] == ["tangent"] * 2 + ["embedding"] * 2
        assert result.items["curve_delta"] == [0.0, 0.3] * 2
        # Lengths 2 against sinh 2: the embeddings are farther apart than their tangent vectors.
        assert result.metrics["embedding_centroid_distance"] > result.metrics["centroid_distance"]
        for space in (0, 2):
            here, there = result.items["curve_signed_centroid_distance"][space : space + 2]
            assert there == pytest.approx(here - 0.3, abs=1e-5)
        assert result.metrics["after_centroid_distance"] == pytest.approx(0.0, abs=1e-6)
        assert result.metrics["after_embedding_centroid_distance"] > 0.01

    def test_a_ball_is_not_moved_out_of_itself(self, tmp_path: Path) -> None:
        """Where not every vector is a point, the gap of embeddings is measured, and not swept."""

        model = Hyperbolic()
        model.geometry = PoincareBall()
        result = self.make(tmp_path)(model)
        assert result.meta["spaces"] == ["tangent", "embedding"]
        assert set(result.items["curve_space"]) == {"tangent"}

    def test_wrong_settings_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="deltas: got nan; expected a number"):
            ModalityGap(dataset(tmp_path), deltas=[float("nan")])

    def test_one_pair_is_no_gap(self, tmp_path: Path) -> None:
        image(tmp_path / "a.png", RED)
        (tmp_path / "set.jsonl").write_text('{"image": "a.png", "caption": "red"}')
        evaluator = ModalityGap(
            table(tmp_path / "set.jsonl"), encoding=Encoding(num_workers=0), tokenizer=FakeTokenizer()
        )
        with pytest.raises(DataError, match="1 readable images with a caption; expected at least 2"):
            evaluator(self.model())
