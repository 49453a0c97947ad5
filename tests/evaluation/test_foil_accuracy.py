from pathlib import Path
from typing import Any

import pytest

from hypvl.datasets.composition.choices import Choice, Choices
from hypvl.datasets.images import Images
from hypvl.embedding.encode import Encoding
from hypvl.evaluation.foil_accuracy import CaptionChoice
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeModel, FakeTokenizer, broken, image

COLORS = {"red": RED, "green": GREEN, "blue": BLUE}


def choices(folder: Path, *, bad: int = 0) -> Choices:
    names = ["red", "green", "blue", "red", *("red" for _ in range(bad))]
    paths = [
        broken(folder / f"{i}.png") if i >= 4 else image(folder / f"{i}.png", COLORS[name])
        for i, name in enumerate(names)
    ]
    asked = [
        Choice(0, "a red thing", ("a green thing", "a blue thing"), "color", ("first", "second")),
        Choice(1, "a green thing", ("a blue thing",), "color"),
        Choice(1, "a green thing", ("a red and green thing",), "number"),  # the foil scores the same: a tie
        Choice(2, "a blue thing", ("a red thing", "a yellow thing"), "color", ("first", "second")),
        Choice(3, "a blue thing", ("a red thing",), "swap"),  # the caption is false of the image
        *(Choice(i, "a red thing", ("a blue thing",), "color") for i in range(4, 4 + bad)),
    ]
    means = {"macro_accuracy": ["color", "number", "swap"], "accuracy_rest": ["number", "color"]}
    return Choices(Images.from_files(paths), asked, [path.stem for path in paths], means, {"left_out": 7})


class TestCaptionChoice(EvaluatorContract):
    evaluator_class = CaptionChoice

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        return CaptionChoice(
            choices(folder, bad=bad),
            main_metric="macro_accuracy",
            extra=["auroc", "threshold"],
            encoding=encoding,
            tokenizer=FakeTokenizer(),
        )


def plain(folder: Path, **settings: Any) -> EvaluationResult:
    return CaptionChoice(
        choices(folder), encoding=Encoding(num_workers=0), tokenizer=FakeTokenizer(), **settings
    )(FakeModel())


def test_accuracy_by_hand(tmp_path: Path) -> None:
    result = plain(tmp_path)
    shown = {k: v for k, v in result.metrics.items() if not k.endswith("_chance")}
    assert shown == pytest.approx(
        {
            "accuracy": 60.0,
            "accuracy_color": 100.0,
            "accuracy_number": 0.0,
            "accuracy_swap": 0.0,
            "macro_accuracy": 100 / 3,
            "accuracy_rest": 50.0,
            "pairwise_accuracy_first": 100.0,
            "pairwise_accuracy_second": 100.0,
        }
    )
    assert result.items["margin"] == pytest.approx([1.0, 1.0, 0.0, 1.0, -1.0])
    assert result.items["best_foil"][0] == "a green thing" and result.items["best_foil"][4] == "a red thing"
    assert result.meta["left_out"] == 7 and result.meta["foil_is_the_caption"] == 0


def test_chance_by_hand(tmp_path: Path) -> None:
    metrics = plain(tmp_path).metrics
    color = 100 * (1 / 3 + 1 / 2 + 1 / 3) / 3
    assert metrics["accuracy_color_chance"] == pytest.approx(color)
    assert metrics["accuracy_chance"] == pytest.approx(100 * (1 / 3 + 1 / 2 + 1 / 2 + 1 / 3 + 1 / 2) / 5)
    assert metrics["macro_accuracy_chance"] == pytest.approx((color + 50 + 50) / 3)
    assert metrics["pairwise_accuracy_first_chance"] == 50.0


def test_every_share_has_samples(tmp_path: Path) -> None:
    result = plain(tmp_path)
    assert set(result.samples) == {name for name in result.metrics if not name.endswith("_chance")}
    assert result.samples["accuracy"] == [100.0, 100.0, 0.0, 100.0, 0.0]
    # a mean of kinds: its interval is drawn within each
    assert result.samples["accuracy_rest"] == [0.0, 100.0, 100.0, 100.0]
    assert result.strata["accuracy_rest"] == [0, 1, 1, 1]  # number, then color
    assert set(result.strata) == {"macro_accuracy", "accuracy_rest"}


def test_many_kinds_are_items_and_not_metrics(tmp_path: Path) -> None:
    result = plain(tmp_path, kinds="items", extra=["auroc"])
    assert not any("color" in name for name in result.metrics)
    assert result.items["kinds"] == ["color", "number", "swap"]
    assert result.items["kind_choices"] == [3, 1, 1]
    assert result.items["kind_accuracy"] == [100.0, 0.0, 0.0]
    assert result.items["kind_chance"] == pytest.approx([100 * 7 / 18, 50.0, 50.0])


def test_auroc_and_threshold_by_hand(tmp_path: Path) -> None:
    metrics = plain(tmp_path, extra=["auroc", "threshold"], threshold=0.5).metrics
    # scores of captions: 1 1 1 1 0; of foils: 0 0 | 0 | 1 | 0 0 | 1
    assert metrics["auroc"] == pytest.approx(100 * (4 * (5 + 2 * 0.5) + (0 + 5 * 0.5)) / (5 * 7))
    assert (metrics["auroc_color"], metrics["auroc_number"], metrics["auroc_swap"]) == (100.0, 50.0, 0.0)
    assert metrics["macro_auroc"] == pytest.approx(50.0) and metrics["auroc_rest"] == pytest.approx(75.0)
    assert metrics["auroc_color_chance"] == metrics["macro_auroc_chance"] == metrics["auroc_chance"] == 50.0
    assert (metrics["p_c"], metrics["p_f"], metrics["acc"]) == pytest.approx((80.0, 60.0, 70.0))
    assert (metrics["p_f_color"], metrics["p_c_swap"], metrics["macro_p_c"]) == pytest.approx(
        (100, 0, 200 / 3)
    )


def test_unreadable_image_is_wrong_and_has_no_part_in_auroc(tmp_path: Path) -> None:
    result = TestCaptionChoice().make(tmp_path, bad=1)(FakeModel())
    assert result.metrics["accuracy_color"] == 75.0 and result.metrics["auroc_color"] == 100.0
    assert result.metrics["p_c_color"] == 75.0
    assert result.items["margin"][-1] is None and result.items["best_foil"][-1] is None
    assert result.meta["unreadable"] == 1


def test_a_kind_without_readable_images_has_no_auroc(tmp_path: Path) -> None:
    paths = [image(tmp_path / "0.png", RED), broken(tmp_path / "1.png")]
    asked = [Choice(0, "red", ("blue",), "a"), Choice(1, "red", ("blue",), "b")]
    data = Choices(Images.from_files(paths), asked, ["0", "1"], {"macro_accuracy": ["a", "b"]})
    encoding = Encoding(num_workers=0, max_bad_fraction=0.5)
    metrics = CaptionChoice(data, extra=["auroc"], encoding=encoding, tokenizer=FakeTokenizer())(
        FakeModel()
    ).metrics
    assert metrics["auroc"] == metrics["auroc_a"] == 100.0 and metrics["macro_accuracy"] == 50.0
    assert "auroc_b" not in metrics and "macro_auroc" not in metrics


def test_a_foil_that_is_the_caption_is_counted(tmp_path: Path) -> None:
    data = Choices(
        Images.from_files([image(tmp_path / "0.png", RED)]), [Choice(0, "red", ("red",), "a")], ["0"]
    )
    result = CaptionChoice(data, encoding=Encoding(num_workers=0), tokenizer=FakeTokenizer())(FakeModel())
    assert result.metrics["accuracy"] == 0.0 and result.meta["foil_is_the_caption"] == 1


def test_wrong_settings_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dataset: got no choices"):
        CaptionChoice(Choices(Images.from_files([]), [], []))
    data = choices(tmp_path)
    with pytest.raises(ValueError, match="main_metric: got 'macro'; expected 'accuracy', 'macro_accuracy'"):
        CaptionChoice(data, main_metric="macro")
    with pytest.raises(ValueError, match="extra: got 'auc'; expected 'auroc' or 'threshold'"):
        CaptionChoice(data, extra=["auc"])  # type: ignore[list-item]
