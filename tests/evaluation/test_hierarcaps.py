"""Chains of captions with a model whose radii and scores are known."""

from pathlib import Path
from typing import ClassVar

import pytest
import torch

from hypvl.datasets.hierarchy.caption_chains import CaptionChains
from hypvl.datasets.images import Images
from hypvl.embedding.encode import Encoding
from hypvl.evaluation.hierarcaps import HierarCaps
from hypvl.evaluation.protocol import Evaluator
from hypvl.geometry.sphere import Sphere, normalize
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeModel, FakeTokenizer, broken, image
from tests.evaluation.hyperbolic import Hyperbolic

CHAINS = {
    "a": (RED, ["shape", "red", "red green", "red green blue"]),
    "b": (GREEN, ["shape", "green", "green blue", "red green blue"]),
    "c": (BLUE, ["shape", "blue", "red blue", "red green blue"]),
    "d": (RED, ["red", "shape", "red green blue", "red green"]),
}


def chains(folder: Path, *, bad: int = 0) -> CaptionChains:
    paths = [image(folder / f"{name}.png", color) for name, (color, _) in CHAINS.items()]
    paths += [broken(folder / f"bad{i}.png") for i in range(bad)]
    texts = [chain for _, chain in CHAINS.values()] + [["shape", "blue", "red blue", "red green blue"]] * bad
    return CaptionChains(Images.from_files(paths), texts, keys=[path.stem for path in paths])


class TestHierarCaps(EvaluatorContract):
    evaluator_class: ClassVar[type[Evaluator]] = HierarCaps

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        return HierarCaps(chains(folder, bad=bad), encoding=encoding, tokenizer=FakeTokenizer())

    def model(self) -> Hyperbolic:
        return Hyperbolic()

    def test_values_by_hand(self, tmp_path: Path) -> None:
        """Radii: shape 0.35, one colour 1, two 1.41, three 1.73; chain d has two of its three steps turned round."""
        result = self.make(tmp_path)(self.model())
        results = result.metrics
        assert result.items["tau"] == pytest.approx([1.0, 1.0, 1.0, (4 - 2) / 6])
        assert results["tau_d"] == pytest.approx((3 + 1 / 3) / 4)
        assert results["ordered_share"] == 75.0
        assert results["radius_level_1"] == pytest.approx((3 * 0.2 * 3**0.5 + 1) / 4, abs=1e-5)
        # From the root outwards: "shape" alone, then its own colour, which nothing farther out beats.
        assert result.items["retrieved"] == [
            ["shape", "red"],
            ["shape", "green"],
            ["shape", "blue"],
            ["shape", "red"],
        ]
        assert result.items["right"] == [2, 2, 2, 2]
        assert (results["precision"], results["recall"]) == (100.0, 50.0)
        # 8 texts: shape, three colours, three pairs, all three.
        assert result.meta["texts"] == 8
        assert results["recall_chance"] == pytest.approx(100.0 * 2 / 8)
        assert results["precision_chance"] == pytest.approx(100.0 * 4 / 8)
        assert result.meta["root"] == "geometry"
        # One word is 80 degrees off the way out from "shape", whose cone is a half space; two words are 108 degrees off
        # from one, three 116 from two, beyond their cones of 58 and 31 degrees.
        each = result.samples["level_entailment_share"]
        assert each[:3] == pytest.approx([100 / 3] * 3)
        assert results["level_entailment_share"] == pytest.approx(sum(each) / 4)

    def test_an_unreadable_image_retrieves_nothing(self, tmp_path: Path) -> None:
        result = self.make(tmp_path, bad=1)(self.model())
        assert result.items["retrieved"][-1] is None
        assert result.samples["recall"][-1] == result.samples["precision"][-1] == 0.0
        assert result.metrics["recall"] == pytest.approx(50.0 * 4 / 5)

    def test_the_root_of_a_sphere_is_a_text_or_the_mean(self, tmp_path: Path) -> None:
        class Round(FakeModel):
            geometry = Sphere()

            def encode_text(self, tokens: torch.Tensor, stage: str = "embeddings") -> torch.Tensor:
                return normalize(super().encode_text(tokens) + 0.1)

        settings = {"encoding": Encoding(num_workers=0), "tokenizer": FakeTokenizer()}
        result = HierarCaps(chains(tmp_path), **settings)(Round())
        assert result.meta["root"] == "mean of the texts"
        assert "level_entailment_share" not in result.metrics
        result = HierarCaps(chains(tmp_path), root_text="", **settings)(Round())
        assert result.meta["root"] == "root_text"
        # The empty text is embedded as "shape" is: (1, 1, 1) made a unit vector.
        assert result.metrics["radius_level_1"] == pytest.approx(
            0.25 * (2 - 2 * 1.3 / 3**0.5 / (1.1**2 + 0.02) ** 0.5) ** 0.5, abs=1e-5
        )

    def test_steps_are_checked(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="steps: got 1"):
            HierarCaps(chains(tmp_path), steps=1)
