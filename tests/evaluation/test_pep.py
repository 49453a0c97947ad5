"""Entailment of true and false pairs: areas by hand, ties, and models without cones."""

import math
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from hypvl.datasets.retrieval.table import table
from hypvl.embedding.encode import Encoding
from hypvl.errors import DataError
from hypvl.evaluation.pep import EntailmentPairs, entailment_scores, ranking_metrics
from hypvl.evaluation.protocol import Evaluator
from hypvl.geometry.euclidean import Euclidean
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.product import Product
from tests.evaluation.captioned import captioned
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import RED, FakeModel, FakeTokenizer, image
from tests.evaluation.hyperbolic import Hyperbolic


class TestEntailmentPairs(EvaluatorContract):
    evaluator_class: ClassVar[type[Evaluator]] = EntailmentPairs

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        folder.mkdir(exist_ok=True)
        return EntailmentPairs(captioned(folder, bad=bad), encoding=encoding, tokenizer=FakeTokenizer())

    def model(self) -> Hyperbolic:
        return Hyperbolic()

    def test_every_caption_is_paired_with_its_own_image_and_others(self, tmp_path: Path) -> None:
        result = self.make(tmp_path)(self.model())
        items = result.items
        pairs = list(zip(items["caption"], items["key"], strict=True))
        assert len(set(pairs)) == len(pairs)
        true = {pair for pair, is_true in zip(pairs, items["true"], strict=True) if is_true}
        assert true == {("red", "a.png"), ("shape", "b.png"), ("blue", "c.png"), ("yellow", "d.png")}
        assert result.meta["true_pairs"] == 4 and result.meta["false_pairs"] == len(pairs) - 4
        by_pair = dict(zip(pairs, items["angle"], strict=True))
        assert by_pair["red", "a.png"] == pytest.approx(1.0, abs=1e-6)  # straight behind it
        if ("red", "c.png") in by_pair:
            assert by_pair["red", "c.png"] == 0.0  # beyond a right angle
        assert result.metrics["ap_angle_chance"] == pytest.approx(100.0 * 4 / len(pairs))
        assert result.metrics["auroc_angle"] > 75.0
        assert result.meta["main_metric"] == "auroc_angle"

    def test_without_cones_only_the_models_score_is_measured(self, tmp_path: Path) -> None:
        model = FakeModel()
        model.geometry = Euclidean()
        result = self.make(tmp_path)(model)
        assert result.meta["main_metric"] == "auroc_score" in result.metrics
        assert not any("angle" in name for name in result.metrics)
        assert set(result.items["angle"]) == {None}

    def test_one_text_for_all_has_no_false_pairs(self, tmp_path: Path) -> None:
        lines = []
        for name in "ab":
            image(tmp_path / f"{name}.png", RED)
            lines.append(f'{{"image": "{name}.png", "caption": "red"}}')
        (tmp_path / "set.jsonl").write_text("\n".join(lines))
        evaluator = EntailmentPairs(
            table(tmp_path / "set.jsonl"), encoding=Encoding(num_workers=0), tokenizer=FakeTokenizer()
        )
        with pytest.raises(DataError, match="all captions are the same text"):
            evaluator(self.model())
        with pytest.raises(ValueError, match="negatives: got 0"):
            EntailmentPairs(captioned(tmp_path), negatives=0)


def test_scores_by_hand() -> None:
    geometry = Lorentz().double()
    apex = torch.tensor([[1.0, 0.0]] * 3, dtype=torch.float64)
    point = torch.tensor([[2.0, 0.0], [0.5, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    result = entailment_scores(geometry, apex, point)
    assert result is not None
    aperture = math.asin(0.2)
    assert result[0].tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-7)
    assert result[1].tolist() == pytest.approx([aperture, aperture - math.pi, aperture - math.pi], abs=1e-7)
    # One factor straight outwards, the other straight inwards.
    both = entailment_scores(
        Product(factors=2, factor_dim=2).double(),
        torch.tensor([[1.0, 0, 1, 0]], dtype=torch.float64),
        torch.tensor([[2.0, 0, 0.5, 0]], dtype=torch.float64),
    )
    assert both is not None and both[0].item() == pytest.approx(0.5)
    assert both[1].item() == pytest.approx(aperture - math.pi / 2)
    assert entailment_scores(Euclidean(), apex, point) is None


def test_areas_by_hand() -> None:
    true = torch.tensor([True, True, False, False])
    perfect = ranking_metrics("x", torch.tensor([0.9, 0.8, 0.2, 0.1]), true)
    assert (perfect["auroc_x"], perfect["ap_x"], perfect["ties_x"]) == (100.0, 100.0, 0.0)
    assert (perfect["auroc_x_chance"], perfect["ap_x_chance"]) == (50.0, 50.0)
    # One true pair first, then a false one, a true one, a false one: 3 of 4 comparisons, (1 + 2/3) / 2.
    mixed = ranking_metrics("x", torch.tensor([0.9, 0.5, 0.7, 0.1]), true)
    assert mixed["auroc_x"] == pytest.approx(75.0) and mixed["ap_x"] == pytest.approx(100.0 * 5 / 6)
    constant = ranking_metrics("x", torch.zeros(4), true)
    assert (constant["auroc_x"], constant["ap_x"], constant["ties_x"]) == (50.0, 50.0, 100.0)
