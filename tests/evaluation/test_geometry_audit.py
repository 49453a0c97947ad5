"""The audit as an evaluator, with embeddings whose numbers are known."""

import math
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from hypvl.datasets.retrieval.table import table
from hypvl.embedding.encode import Encoding
from hypvl.embedding.pairs import EncodedPairs, evenly
from hypvl.errors import DataError
from hypvl.evaluation.geometry_audit import GeometryAudit
from hypvl.evaluation.protocol import Evaluator
from hypvl.geometry.euclidean import Euclidean
from tests.evaluation.captioned import captioned
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import RED, FakeModel, FakeTokenizer, image
from tests.evaluation.hyperbolic import Hyperbolic


class TestGeometryAudit(EvaluatorContract):
    evaluator_class: ClassVar[type[Evaluator]] = GeometryAudit

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        folder.mkdir(exist_ok=True)
        return GeometryAudit(captioned(folder, bad=bad), encoding=encoding, tokenizer=FakeTokenizer())

    def model(self) -> Hyperbolic:
        return Hyperbolic()

    def test_values_by_hand(self, tmp_path: Path) -> None:
        """Images at distance 2 along red, green, blue, yellow (1.98); texts at 1, "shape" at 0.35."""
        result = self.make(tmp_path)(self.model())
        results = result.metrics
        assert result.items["image_radius"] == pytest.approx(
            [2, 2, 2, 2 * math.sqrt(2) * 179 / 255], abs=1e-5
        )
        assert result.items["text_radius"] == pytest.approx(
            [1, 0.2 * math.sqrt(3), 1, 0.7 * math.sqrt(2)], abs=1e-5
        )
        assert results["image_radius_q95"] == pytest.approx(math.sinh(2.0), rel=1e-5)
        assert (results["radial_order_auc"], results["radial_order_auc_null"]) == (100.0, 100.0)
        # min_radius 0.5: "shape", at u = sinh(0.35) < 1, is the only half space; sinh(1) and sinh(0.99) lie beyond 1.
        assert results["saturated_cones_text"] == 25.0
        assert results["cone_violation_rate"] == 0.0
        assert results["cone_violation_rate_shuffled"] > 25.0
        assert results["curv"] == 1.0 and results["curv_at_bound"] == 0.0
        assert results["flat_distortion"] > 5.0
        # Red, yellow and blue are nearest to their own words; green is nearest to yellow, flat or not.
        assert results["flat_top1_agreement"] == 100.0
        assert result.meta["verdict"] == "partly"
        texts = " ".join(finding["text"] for finding in result.meta["findings"])
        assert "Curved: median u = 1.1" in texts and "Modalities are ordered, pairs are not" in texts
        assert result.samples["radial_order_auc"] == [100.0] * 4

    def test_a_flat_model_has_no_curvature_metrics(self, tmp_path: Path) -> None:
        model = FakeModel()
        model.geometry = Euclidean()
        result = self.make(tmp_path)(model)
        assert result.meta["verdict"] == "no curvature"
        assert "curv" not in result.metrics and result.metrics["flat_distortion"] == 0.0

    def test_limit_takes_images_evenly(self, tmp_path: Path) -> None:
        evaluator = GeometryAudit(
            captioned(tmp_path), limit=2, encoding=Encoding(num_workers=0), tokenizer=FakeTokenizer()
        )
        result = evaluator(self.model())
        assert result.items["key"] == ["a.png", "c.png"]
        assert (result.meta["pairs"], result.meta["images"]) == (2, 5)
        with pytest.raises(ValueError, match="sample: got 1; expected a whole number of at least 2"):
            GeometryAudit(captioned(tmp_path), sample=1)

    def test_one_pair_is_an_error(self, tmp_path: Path) -> None:
        image(tmp_path / "a.png", RED)
        (tmp_path / "set.jsonl").write_text('{"image": "a.png", "caption": "red"}')
        evaluator = GeometryAudit(
            table(tmp_path / "set.jsonl"), encoding=Encoding(num_workers=0), tokenizer=FakeTokenizer()
        )
        with pytest.raises(DataError, match="audit: 1 readable images with a caption"):
            evaluator(self.model())


def test_nearest_in_flat_coordinates_far_from_the_origin(tmp_path: Path) -> None:
    class Exact(FakeModel):
        geometry = Euclidean()

        def scores(self, query: torch.Tensor, key: torch.Tensor, **modalities: str) -> torch.Tensor:
            return -(query.double()[:, None] - key.double()).square().sum(-1)

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(60, 8, generator=generator) + 1000.0
    texts = images + 0.3 * torch.randn(60, 8, generator=generator)
    pairs = EncodedPairs(images, texts, [str(i) for i in range(60)], [f"text {i}" for i in range(60)], {})
    assert GeometryAudit(captioned(tmp_path))._flat_agreement(Exact(), pairs) == [100.0] * 60


def test_spread_is_even() -> None:
    assert evenly(range(10), 4) == [0, 2, 5, 7]
    assert evenly(range(3), 200) == evenly(range(3), None) == [0, 1, 2]


def test_a_curvature_at_its_limit_is_a_finding(tmp_path: Path) -> None:
    model = Hyperbolic()
    with torch.no_grad():
        model.geometry.log_curv.fill_(-math.log(10.0))
    evaluator = GeometryAudit(
        captioned(tmp_path), encoding=Encoding(num_workers=0), tokenizer=FakeTokenizer()
    )
    metrics = evaluator(model).metrics
    assert (metrics["curv_at_bound"], metrics["curv_at_floor"]) == (100.0, 100.0)
    with torch.no_grad():
        model.geometry.log_curv.fill_(math.log(10.0))
    metrics = evaluator(model).metrics
    assert (metrics["curv_at_bound"], metrics["curv_at_floor"]) == (100.0, 0.0)
