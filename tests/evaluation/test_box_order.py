"""Parts and wholes with a model whose radii and cones are known."""

from pathlib import Path
from typing import ClassVar

import pytest

from hypvl.datasets.hierarchy.boxes import BoxedImages, Part
from hypvl.datasets.images import Box, Images
from hypvl.embedding.encode import Encoding
from hypvl.errors import DataError
from hypvl.evaluation.box_order import BoxOrder
from hypvl.evaluation.protocol import Evaluator
from hypvl.geometry.sphere import Sphere
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeModel, FakeTokenizer, broken, image
from tests.evaluation.hyperbolic import Hyperbolic

WHOLE = Box(0.0, 0.0, 1.0, 1.0, "fractions")


def boxed(folder: Path, *, bad: int = 0) -> BoxedImages:
    colors = {"a": (RED, "red"), "b": (GREEN, "green"), "c": (BLUE, "blue"), "d": (RED, "red green")}
    paths = [image(folder / f"{name}.png", color) for name, (color, _) in colors.items()]
    paths += [broken(folder / f"bad{i}.png") for i in range(bad)]
    captions = [caption for _, caption in colors.values()] + ["blue"] * bad
    boxes = [Part(i, Box(0.0, 0.0, 0.5, 0.5, "fractions"), "shape") for i in range(4 + bad)]
    boxes.append(Part(3, WHOLE, "red green blue"))
    return BoxedImages(Images.from_files(paths), captions, boxes, keys=[path.stem for path in paths])


class TestBoxOrder(EvaluatorContract):
    evaluator_class: ClassVar[type[Evaluator]] = BoxOrder

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        return BoxOrder(boxed(folder, bad=bad), rounds=5, encoding=encoding, tokenizer=FakeTokenizer())

    def model(self) -> Hyperbolic:
        return Hyperbolic()

    def test_values_by_hand(self, tmp_path: Path) -> None:
        """A crop of one colour is its image (distance 2); "shape" lies at 0.35, one word at 1, three at 1.73."""
        result = self.make(tmp_path)(self.model())
        results = result.metrics
        assert results["image_radius_order"] == 50.0  # all tie
        assert results["text_radius_order"] == 80.0  # but for "red green blue" -> "red green"
        assert results["whole_radius_order"] == 100.0
        assert results["box_radius_order"] == 100.0
        assert results["radius_box_image"] == results["radius_image"] == pytest.approx(2.0, abs=1e-5)
        assert results["radius_box_text"] == pytest.approx((4 * 0.2 * 3**0.5 + 3**0.5) / 5, abs=1e-5)
        # "shape" holds every colour (54.7 degrees away, beyond it); the three words, behind "red green", hold nothing.
        assert results["box_entailment"] == 80.0
        # "red" etc. hold the images straight behind them, "red green" does not hold red at 45 degrees.
        assert results["whole_entailment"] == 75.0
        # The angle at a point towards itself is pi/2: no cone but a half space holds it.
        assert results["image_entailment"] == 0.0
        assert result.items["entails_image"] == [False] * 5
        assert result.items["phrase"] == ["shape"] * 4 + ["red green blue"]
        assert result.meta["main_metric"] == "image_entailment"

    def test_wider_cones_hold_more(self, tmp_path: Path) -> None:
        wide = BoxOrder(
            boxed(tmp_path), aperture_factor=5.0, encoding=Encoding(num_workers=0), tokenizer=FakeTokenizer()
        )
        assert wide(self.model()).metrics["whole_entailment"] == 100.0
        with pytest.raises(ValueError, match="aperture_factor: got 0; expected a number above 0"):
            BoxOrder(boxed(tmp_path), aperture_factor=0)

    def test_without_cones_the_order_is_the_main_metric(self, tmp_path: Path) -> None:
        model = FakeModel()
        model.geometry = Sphere()
        result = self.make(tmp_path)(model)
        assert result.meta["main_metric"] == "image_radius_order" in result.metrics
        assert not any("entailment" in name for name in result.metrics)
        assert result.items["entails_image"] == [None] * 5

    def test_boxes_of_broken_images_are_left_out(self, tmp_path: Path) -> None:
        result = self.make(tmp_path, bad=1)(self.model())
        assert (result.meta["boxes"], result.meta["pairs"]) == (6, 5)
        one = BoxedImages(
            Images.from_files([image(tmp_path / "a.png", RED)]), ["red"], [Part(0, WHOLE, "red")], keys=["a"]
        )
        evaluator = BoxOrder(one, encoding=Encoding(num_workers=0), tokenizer=FakeTokenizer())
        with pytest.raises(DataError, match="1 readable images with boxes; expected at least 2"):
            evaluator(self.model())
