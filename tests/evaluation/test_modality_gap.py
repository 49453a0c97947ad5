"""The gap between pictures and captions of a set."""

from pathlib import Path

import pytest
import torch

from hypvl.errors import DataError
from hypvl.evaluation.datasets.retrieval import jsonl
from hypvl.evaluation.features import Encoding
from hypvl.evaluation.modality_gap import ModalityGap
from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.gap import gap_metrics
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeModel, FakeTokenizer, broken, picture


class FlatModel(FakeModel):
    geometry = Euclidean()


def dataset(folder: Path, *, bad: int = 0) -> ModalityGap:
    colors = {"a": (RED, "red"), "b": (GREEN, "yellow"), "c": (BLUE, "blue"), "d": (BLUE, "red blue")}
    lines = []
    for name, (color, caption) in colors.items():
        picture(folder / f"{name}.png", color)
        lines.append(f'{{"image": "{name}.png", "captions": ["{caption}", "green"]}}')
    for i in range(bad):
        broken(folder / f"bad{i}.png")
        lines.append(f'{{"image": "bad{i}.png", "caption": "green"}}')
    picture(folder / "alone.png", RED)
    lines.append('{"image": "alone.png", "captions": []}')
    (folder / "set.jsonl").write_text("\n".join(lines))
    return jsonl(folder / "set.jsonl")


class TestModalityGap(EvaluatorContract):
    evaluator_class = ModalityGap

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> ModalityGap:
        folder.mkdir(exist_ok=True)
        return ModalityGap(dataset(folder, bad=bad), encoding=encoding, tokenizer=FakeTokenizer())

    def model(self) -> FlatModel:
        return FlatModel()

    def test_pairs_are_pictures_with_their_first_caption(self, tmp_path: Path) -> None:
        result = self.make(tmp_path, bad=1)(self.model())
        images = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]], dtype=torch.float64)
        texts = torch.tensor([[1.0, 0, 0], [0.7, 0.7, 0], [0, 0, 1], [1, 0, 1]], dtype=torch.float64)
        expected = gap_metrics(images, texts)
        expected["linear_separability"] *= 100
        found = {k: v for k, v in result.metrics.items() if not k.endswith("_chance")}
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-7)
        assert found["centroid_distance"] == pytest.approx((0.425**2 + 0.075**2) ** 0.5, rel=1e-6)
        assert result.items["key"] == ["a.png", "b.png", "c.png", "d.png"]
        assert result.items["cosine"] == pytest.approx([1, 0.5**0.5, 1, 0.5**0.5])
        assert (result.meta["pairs"], result.meta["images"], result.meta["unreadable"]) == (4, 6, 1)

    def test_one_pair_has_no_gap_to_measure(self, tmp_path: Path) -> None:
        picture(tmp_path / "a.png", RED)
        (tmp_path / "set.jsonl").write_text('{"image": "a.png", "caption": "red"}')
        evaluator = ModalityGap(
            jsonl(tmp_path / "set.jsonl"), encoding=Encoding(num_workers=0), tokenizer=FakeTokenizer()
        )
        with pytest.raises(DataError, match="1 readable pictures with a caption; expected at least 2"):
            evaluator(self.model())
