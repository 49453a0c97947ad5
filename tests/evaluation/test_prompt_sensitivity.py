import math
from pathlib import Path

import pytest

from hypvl.datasets.images import Images, LabelledImages
from hypvl.embedding.encode import Encoding
from hypvl.evaluation.prompt_sensitivity import PromptSensitivity
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.evaluation.zero_shot import ZeroShotClassification
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import GREEN, RED, FakeModel, FakeTokenizer, broken, image

COLORS = [RED, RED, RED, GREEN]
#: Right; every class as the other one; one class has no say.
SETS = {
    "right": ["a {} thing"],
    "turned": {"red": ["green"], "green": ["red"]},
    "blind": {"red": ["red"], "green": ["no color"]},
}


def images(folder: Path, *, bad: int = 0) -> LabelledImages:
    paths = [image(folder / f"{i}.png", color) for i, color in enumerate(COLORS)]
    paths += [broken(folder / f"{4 + i}.png") for i in range(bad)]
    return LabelledImages(Images.from_files(paths), [0, 0, 0, 1, *[0] * bad], classes=["red", "green"])


class TestPromptSensitivity(EvaluatorContract):
    evaluator_class = PromptSensitivity

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        return PromptSensitivity(images(folder, bad=bad), SETS, encoding=encoding, tokenizer=FakeTokenizer())


def measured(data: LabelledImages, **settings: object) -> EvaluationResult:
    encoding = Encoding(num_workers=0, max_bad_fraction=0.5)
    evaluator = PromptSensitivity(data, SETS, encoding=encoding, tokenizer=FakeTokenizer(), **settings)  # type: ignore[arg-type]
    return evaluator(FakeModel())


def test_mean_spread_best_and_worst_by_hand(tmp_path: Path) -> None:
    # "blind": red images are red; green scores 0 for both, a tie, which the first class, red, wins.
    result = measured(images(tmp_path))
    metrics = result.metrics
    assert result.items["set_accuracy"] == [100.0, 0.0, 50.0]
    assert (metrics["accuracy_mean"], metrics["accuracy_best"], metrics["accuracy_worst"]) == (
        50.0,
        100.0,
        0.0,
    )
    assert metrics["prompt_std"] == 50.0 and metrics["prompt_range"] == 100.0
    assert metrics["accuracy_blind"] == 50.0 and metrics["accuracy_blind_chance"] == 50.0
    # right and turned never agree; blind agrees with right on the red images, with turned on the green one.
    assert metrics["prompt_agreement"] == pytest.approx(100 * (0 + 3 / 4 + 1 / 4) / 3)
    assert result.items["right"] == [2, 2, 2, 1] and result.items["set_prompts"] == [1, 1, 1]


def test_top1_accuracy_weights_images(tmp_path: Path) -> None:
    result = measured(images(tmp_path), metric="top1_accuracy", kinds="items")
    assert result.items["set_accuracy"] == [100.0, 0.0, 75.0] and "accuracy_blind" not in result.metrics
    assert result.metrics["prompt_std"] == pytest.approx(
        math.sqrt((41.6667**2 + 58.3333**2 + 16.6667**2) / 2), rel=1e-4
    )
    assert result.samples["accuracy_mean"] == pytest.approx([200 / 3] * 3 + [100 / 3])


def test_each_accuracy_is_that_of_zero_shot_classification(tmp_path: Path) -> None:
    data, encoding = images(tmp_path), Encoding(num_workers=0)
    result = measured(data, ensemble="score_mean")
    for name, prompts in SETS.items():
        alone = ZeroShotClassification(
            data,
            prompts,
            ensemble="score_mean",
            encoding=encoding,
            tokenizer=FakeTokenizer(),  # type: ignore[arg-type]
        )(FakeModel())
        assert result.metrics[f"accuracy_{name}"] == alone.metrics["mean_per_class_accuracy"]


def test_an_unreadable_image_is_wrong_everywhere(tmp_path: Path) -> None:
    result = measured(images(tmp_path, bad=1))
    assert result.metrics["accuracy_best"] == 87.5 and result.items["right"][-1] is None


def test_wrong_settings_are_an_error(tmp_path: Path) -> None:
    data = images(tmp_path)
    with pytest.raises(ValueError, match=r"prompt_sets: got \['one'\]; expected at least two"):
        PromptSensitivity(data, {"one": ["{}"]})
    with pytest.raises(ValueError, match="prompts: none for class 'green'"):
        PromptSensitivity(data, {"one": ["{}"], "two": {"red": ["red"]}})
    data.labels = [(0,), (1,), (0,), (1,)]
    with pytest.raises(ValueError, match="its images have several labels"):
        PromptSensitivity(data, SETS)
