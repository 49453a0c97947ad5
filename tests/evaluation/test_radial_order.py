"""Radial order of pairs against shuffles."""

from pathlib import Path
from typing import ClassVar

import pytest

from hypvl.embedding.encode import Encoding
from hypvl.evaluation.protocol import Evaluator
from hypvl.evaluation.radial_order import RadialOrder
from hypvl.geometry.lorentz import exp_map0
from tests.evaluation.captioned import captioned
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import FakeModel, FakeTokenizer
from tests.evaluation.hyperbolic import Hyperbolic


class TestRadialOrder(EvaluatorContract):
    evaluator_class: ClassVar[type[Evaluator]] = RadialOrder

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        folder.mkdir(exist_ok=True)
        return RadialOrder(
            captioned(folder, bad=bad), rounds=50, encoding=encoding, tokenizer=FakeTokenizer()
        )

    def model(self) -> Hyperbolic:
        return Hyperbolic()

    def test_modalities_apart_are_no_order_of_pairs(self, tmp_path: Path) -> None:
        result = self.make(tmp_path)(self.model())
        assert result.metrics == pytest.approx(
            {
                "auc": 100.0,
                "auc_null": 100.0,
                "auc_null_std": 0.0,
                "auc_null_quantile": 50.0,
                "auc_above_null": 0.0,
            }
        )
        assert result.items["image_radius"][0] == pytest.approx(2.0, abs=1e-5)

    def test_pairs_at_their_own_radii_are_an_order(self, tmp_path: Path) -> None:
        class Near(Hyperbolic):
            """Images a little beyond their caption: at 1.01 times what their own colour gives."""

            def encode_image(self, images: object, stage: str = "embeddings") -> object:
                return exp_map0(1.01 * FakeModel.encode_image(self, images), curv=1.0)

        result = self.make(tmp_path)(Near())
        # Images at 1.01, 1.01, 1.01, 1.0027; captions at 1, 0.35, 1, 0.99: shuffles only keep the order, too.
        assert result.metrics["auc"] == 100.0 == result.metrics["auc_null"]
        assert result.samples["auc"] == [100.0] * 4
        with pytest.raises(ValueError, match="rounds: got 1; expected a whole number of at least 2"):
            RadialOrder(captioned(tmp_path), rounds=1)
