"""Zero-shot classification of colours, by hand."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hypvl.datasets.classification.folders import ImageFolderSet
from hypvl.datasets.images import Images, LabelledImages
from hypvl.embedding.encode import Encoding
from hypvl.errors import DataError
from hypvl.evaluation.prediction_files import PredictionFiles
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.evaluation.zero_shot import ZeroShotClassification
from hypvl.metrics.classification import macro_f1_chance
from hypvl.metrics.groups import worst_group_chance
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeModel, FakeTokenizer, broken, image as pil_image
from tests.evaluation.probes.test_linear_probe import Listed

PLAIN = Encoding(batch_size=4, num_workers=0, max_bad_fraction=0.5)


def colors(root: Path) -> ImageFolderSet:
    """blue: 1 of 1 right; green: 1 of 2; red: 3 of 3 (the wrong one lies in the wrong folder)."""
    pil_image(root / "blue" / "0.png", BLUE)
    pil_image(root / "green" / "0.png", GREEN)
    pil_image(root / "green" / "1.png", RED)
    for i in range(3):
        pil_image(root / "red" / f"{i}.png", RED)
    return ImageFolderSet(root)


def evaluate(dataset: ImageFolderSet, prompts: Sequence[str] | None = ("a {} thing", "{}")) -> object:
    return ZeroShotClassification(dataset, prompts, encoding=PLAIN, tokenizer=FakeTokenizer())


class TestContract(EvaluatorContract):
    evaluator_class = ZeroShotClassification

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        colors(folder)
        for i in range(bad):
            broken(folder / "blue" / f"broken{i}.jpg")
        return ZeroShotClassification(
            ImageFolderSet(folder), ["{}"], encoding=encoding, tokenizer=FakeTokenizer()
        )


def test_accuracies_and_items_by_hand(tmp_path: Path) -> None:
    result = evaluate(colors(tmp_path))(FakeModel())  # type: ignore[operator]
    assert result.metrics == pytest.approx(
        {
            "mean_per_class_accuracy": 100 * (1 + 0.5 + 1) / 3,
            "mean_per_class_accuracy_chance": 100 / 3,
            "top1_accuracy": 100 * 5 / 6,
            "top1_accuracy_chance": 100 / 3,
        }
    )
    assert result.items["key"] == ["blue/0.png", "green/0.png", "green/1.png", "red/0.png", "red/1.png",
                                   "red/2.png"]  # fmt: skip
    assert result.items["label"] == [0, 1, 1, 2, 2, 2]
    assert result.items["predicted"] == [0, 1, 2, 2, 2, 2]
    assert result.items["score"] == pytest.approx([1.0] * 6)
    assert result.items["label_rank"] == [1, 1, 3, 1, 1, 1]  # blue and green tie for the red image
    assert result.meta["prompts"] == 6 and result.meta["prompts_of_first_class"] == ["a blue thing", "blue"]


def test_an_unreadable_image_is_wrong(tmp_path: Path) -> None:
    colors(tmp_path)
    broken(tmp_path / "blue" / "1.jpg")
    result = evaluate(ImageFolderSet(tmp_path))(FakeModel())  # type: ignore[operator]
    assert result.metrics["mean_per_class_accuracy"] == pytest.approx(100 * (0.5 + 0.5 + 1) / 3)
    assert result.metrics["top1_accuracy"] == pytest.approx(100 * 5 / 7)
    assert result.items["predicted"][1] is None and result.items["label_rank"][1] is None
    assert result.meta["unreadable"] == 1


def test_classes_without_images_are_candidates_but_not_counted(tmp_path: Path) -> None:
    colors(tmp_path)
    (tmp_path / "yellow").mkdir()
    result = evaluate(ImageFolderSet(tmp_path))(FakeModel())  # type: ignore[operator]
    assert result.metrics["mean_per_class_accuracy"] == pytest.approx(100 * 2.5 / 3)
    assert result.metrics["mean_per_class_accuracy_chance"] == 25.0
    assert result.meta["classes_without_images"] == [3]


def test_five_best_are_reported_only_where_they_say_something(tmp_path: Path) -> None:
    for name in ("blue", "five", "four", "green", "red", "six"):
        (tmp_path / name).mkdir()
    pil_image(tmp_path / "red" / "0.png", RED)
    pil_image(tmp_path / "six" / "0.png", RED)  # red first, then ties in order: six is the last of six
    result = evaluate(ImageFolderSet(tmp_path))(FakeModel())  # type: ignore[operator]
    assert result.metrics["top5_accuracy"] == 50.0
    assert result.metrics["top5_accuracy_chance"] == pytest.approx(500 / 6)


def test_the_model_itself_scores_the_prompts_by_default(tmp_path: Path) -> None:
    class Probe(FakeModel):
        given: Sequence[Tensor] = ()

        def class_scores(self, image_embeddings: Tensor, prompt_features: Sequence[Tensor]) -> Tensor:
            self.given = prompt_features
            return super().class_scores(image_embeddings, prompt_features)

    dataset = colors(tmp_path)
    prompts = {"blue": ["blue"], "green": ["green", "green and blue", "green"], "red": ["red", "red"]}
    model = Probe()
    ZeroShotClassification(dataset, prompts, encoding=PLAIN, tokenizer=FakeTokenizer())(model)
    # Ragged, per class, in the order of the classes: nothing was pooled on the way.
    assert [len(features) for features in model.given] == [1, 3, 2]
    assert model.given[1].tolist() == [[0, 1, 0], [0, 1, 1], [0, 1, 0]]


def test_prompts_of_the_set_are_the_default(tmp_path: Path) -> None:
    colors(tmp_path)
    own = ImageFolderSet(tmp_path, prompts=["so {c}"])
    assert evaluate(own, None).class_prompts[0] == ["so blue"]  # type: ignore[attr-defined]
    plain = ImageFolderSet(tmp_path)
    assert "a photo of a blue." in evaluate(plain, None).class_prompts[0]  # type: ignore[attr-defined]


def test_class_names_replace_those_of_the_set(tmp_path: Path) -> None:
    evaluator = ZeroShotClassification(colors(tmp_path), ["{}"], class_names=["b", "g", "r"])
    assert evaluator.class_prompts == [["b"], ["g"], ["r"]]
    with pytest.raises(ValueError, match="class_names: got 1; expected 3"):
        ZeroShotClassification(colors(tmp_path), ["{}"], class_names=["b"])


def test_a_label_beyond_the_classes_is_an_error(tmp_path: Path) -> None:
    dataset = colors(tmp_path)
    dataset.labels[4] = 7
    with pytest.raises(DataError, match=r"red/1\.png: its label is 7; expected 0 … 2"):
        evaluate(dataset)(FakeModel())  # type: ignore[operator]


def test_images_are_cropped_in_the_centre(tmp_path: Path) -> None:
    # 30 x 8: green ends, a red middle of 8 pixels; only the middle is seen.
    image = torch.zeros(3, 8, 30, dtype=torch.uint8)
    image[1] = 255
    image[:, :, 11:19] = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]
    dataset = colors(tmp_path)

    class One:
        classes, prompts, keys, labels = dataset.classes, None, ["x"], [2]

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return image, 2

    result = ZeroShotClassification(One(), ["{}"], encoding=PLAIN, tokenizer=FakeTokenizer())(FakeModel())
    assert result.items["predicted"] == [2] and result.items["score"][0] == pytest.approx(1.0)


def test_samples_and_classes_have_the_metrics_as_their_means(tmp_path: Path) -> None:
    colors(tmp_path)
    broken(tmp_path / "blue" / "1.jpg")
    result = evaluate(ImageFolderSet(tmp_path))(FakeModel())  # type: ignore[operator]
    # blue: right, unreadable; green: right, wrong; red: three right. 7 images, 3 classes.
    hits = [100.0, 0.0, 100.0, 0.0, 100.0, 100.0, 100.0]
    assert result.samples == {"mean_per_class_accuracy": hits, "top1_accuracy": hits}
    assert result.strata == {"mean_per_class_accuracy": [0, 0, 1, 1, 2, 2, 2]}
    assert result.metrics["mean_per_class_accuracy"] == pytest.approx((50 + 50 + 100) / 3)


def test_roc_auc_of_two_classes_by_hand(tmp_path: Path) -> None:
    # Red less blue: of the blue ones -1, 0.2, -0.6; of the red ones 1, -0.2, 0.2 (dark). One pair of nine is wrong;
    # of the scores for red alone there would be three.
    shades = {
        "blue": [(0, 0, 255), (153, 0, 102), (100, 0, 255)],
        "red": [(255, 0, 0), (102, 0, 153), (60, 0, 0)],
    }
    for name, given in shades.items():
        for i, shade in enumerate(given):
            pil_image(tmp_path / name / f"{i}.png", shade)
    dataset = ImageFolderSet(tmp_path)
    evaluator = ZeroShotClassification(
        dataset, ["{}"], metric="roc_auc", encoding=PLAIN, tokenizer=FakeTokenizer()
    )
    result = evaluator(FakeModel())
    assert evaluator.main_metric == result.meta["main_metric"] == "roc_auc"
    assert result.metrics["roc_auc"] == pytest.approx(800 / 9)
    assert result.metrics["roc_auc_chance"] == 50.0
    assert result.metrics["top1_accuracy"] == pytest.approx(400 / 6)
    assert "roc_auc" not in result.samples
    # An unreadable image has the worst place: its class lies below everything.
    broken(tmp_path / "red" / "3.jpg")
    result = ZeroShotClassification(
        ImageFolderSet(tmp_path), ["{}"], encoding=PLAIN, tokenizer=FakeTokenizer()
    )(FakeModel())
    assert result.metrics["roc_auc"] == pytest.approx(800 / 12)


class Several:
    """Images with sets of labels: blue 0, green 1, red 2."""

    classes, prompts = ("blue", "green", "red"), None
    colors = ((0, 0, 255), (0, 200, 100), (200, 0, 100), (100, 0, 0), (0, 0, 0))
    labels: Sequence[object] = ({0}, {1, 0}, {2}, {0, 2}, set())
    keys = tuple("abcde")

    def __init__(self, unreadable: Sequence[int] = ()) -> None:
        self.unreadable = unreadable

    def __len__(self) -> int:
        return len(self.colors)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index in self.unreadable:
            raise DataError("broken")
        return torch.tensor(self.colors[index], dtype=torch.uint8)[:, None, None].expand(3, 9, 9), 0


def several(**settings: object) -> object:
    unreadable = settings.pop("unreadable", ())
    return ZeroShotClassification(
        Several(unreadable),  # type: ignore[arg-type]
        ["{}"],
        encoding=PLAIN,
        tokenizer=FakeTokenizer(),
        **settings,  # type: ignore[arg-type]
    )


def test_several_labels_per_image_by_hand() -> None:
    evaluator = several()
    result = evaluator(FakeModel())  # type: ignore[operator]
    # Blue: right 255, then 100 right and 100 wrong together, then 0 right and 0 wrong (three of five are right).
    blue = (1 + 2 / 3 + 3 / 5) / 3
    assert result.metrics["average_precision"] == pytest.approx(100 * (blue + 1 + 1) / 3)
    # Thirds of recall: points 0 to 0.3 have 1, 0.4 to 0.6 have 2/3, 0.7 to 1 have 3/5.
    eleven = (4 * 1 + 3 * 2 / 3 + 4 * 3 / 5) / 11
    assert result.metrics["map_11_points"] == pytest.approx(100 * (eleven + 2) / 3)
    assert evaluator.main_metric == "map_11_points" and result.samples == {}  # type: ignore[attr-defined]
    assert result.items["label"] == [[0], [0, 1], [2], [0, 2], []]
    assert result.items["predicted"] == [0, 1, 2, 2, 0]
    assert result.items["label_rank"] == [1, 1, 1, 1, None]
    assert not any("accuracy" in name for name in result.metrics)


def test_an_unreadable_image_never_helps_several_labels() -> None:
    clean = several()(FakeModel()).metrics  # type: ignore[operator]
    for i in range(4):
        worse = several(unreadable=(i,))(FakeModel()).metrics  # type: ignore[operator]
        for name in ("average_precision", "map_11_points"):
            assert worse[name] < clean[name]


def test_an_unreadable_image_ranks_last_for_each_class() -> None:
    result = several(unreadable=(2,))(FakeModel()).metrics  # type: ignore[operator]
    # It is red: above all others for blue and green, below them for red.
    blue, green, red = (1 / 2 + 2 / 3 + 3 / 5) / 3, 1 / 2, (1 + 2 / 5) / 2
    assert result["average_precision"] == pytest.approx(100 * (blue + green + red) / 3)


@pytest.mark.parametrize("ensemble", ["normalized_mean", "raw_mean", "score_mean"])
def test_the_named_ensemble_is_used(tmp_path: Path, ensemble: str) -> None:
    # "red" is drawn to green by a long prompt, unless directions are averaged.
    prompts = {"blue": ["blue"], "green": ["green"], "red": ["red", "yellow", "yellow green"]}
    result = ZeroShotClassification(
        colors(tmp_path),
        prompts,
        ensemble=ensemble,  # type: ignore[arg-type]
        encoding=PLAIN,
        tokenizer=FakeTokenizer(),
    )(FakeModel())
    lengths = [1.0, 0.98**0.5, (0.7**2 + 1.7**2) ** 0.5]
    directions = (1 + 1 / 2**0.5 + 0.7 / lengths[2]) / 3, (0 + 1 / 2**0.5 + 1.7 / lengths[2]) / 3
    expected = {
        "raw_mean": (1 + 0.7 + 0.7) / 3,
        "score_mean": (1 + 0.7 + 0.7) / 3,
        "normalized_mean": sum(lengths)
        / 3
        * directions[0]
        / (directions[0] ** 2 + directions[1] ** 2) ** 0.5,
    }
    assert result.items["score"][3] == pytest.approx(expected[ensemble], rel=1e-6)
    assert result.meta["ensemble"] == ensemble


def test_metrics_and_ensembles_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    dataset = colors(tmp_path)
    with pytest.raises(ValueError, match="metric: got 'f1'; expected 'mean_per_class_accuracy'"):
        ZeroShotClassification(dataset, ["{}"], metric="f1")  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match="'map_11_points' for 3 classes and one label an image; expected one of acc"
    ):
        ZeroShotClassification(dataset, ["{}"], metric="map_11_points")
    with pytest.raises(
        ValueError, match="'accuracy' for 3 classes and several labels an image; expected one of map"
    ):
        several(metric="accuracy")
    with pytest.raises(ValueError, match="'roc_auc' for 3 classes"):
        ZeroShotClassification(dataset, ["{}"], metric="roc_auc")
    with pytest.raises(ValueError, match="ensemble: got 'mean'"):
        ZeroShotClassification(dataset, ["{}"], ensemble="mean")  # type: ignore[arg-type]
    assert ZeroShotClassification(dataset, ["{}"], metric="accuracy").main_metric == "top1_accuracy"


def test_roc_auc_needs_images_of_both_classes(tmp_path: Path) -> None:
    pil_image(tmp_path / "blue" / "0.png", BLUE)
    (tmp_path / "red").mkdir()
    evaluator = ZeroShotClassification(
        ImageFolderSet(tmp_path), ["{}"], metric="roc_auc", encoding=PLAIN, tokenizer=FakeTokenizer()
    )
    with pytest.raises(DataError, match="roc_auc: all 1 images are of one class"):
        evaluator(FakeModel())


class TestWithPredictions(EvaluatorContract):
    evaluator_class = ZeroShotClassification

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        colors(folder / "set")
        for i in range(bad):
            broken(folder / "set" / "blue" / f"broken{i}.jpg")
        return ZeroShotClassification(
            ImageFolderSet(folder / "set"),
            ["{}"],
            encoding=encoding,
            tokenizer=FakeTokenizer(),
            predictions=PredictionFiles(folder / "out", dataset="colors", protocol="zero_shot"),
        )


def test_predictions_are_probabilities_and_change_no_result(tmp_path: Path) -> None:
    colors(tmp_path / "set")
    broken(tmp_path / "set" / "blue" / "1.png")
    dataset = ImageFolderSet(tmp_path / "set")
    files = PredictionFiles(tmp_path / "out", dataset="colors", protocol="zero_shot", model_name="m")
    result = ZeroShotClassification(
        dataset, ["{}"], encoding=PLAIN, tokenizer=FakeTokenizer(), predictions=files
    )(FakeModel())
    plain = ZeroShotClassification(dataset, ["{}"], encoding=PLAIN, tokenizer=FakeTokenizer())(FakeModel())
    assert result == plain
    content = json.loads((tmp_path / "out" / "zero_shot" / "colors_seed0.json").read_text())
    (rows,) = content.pop("predictions")
    # One colour has score 1, the others 0: softmax of (100, 0, 0); the broken image says nothing.
    assert rows == [[1.0, 0, 0], [round(1 / 3, 6)] * 3, [0, 1.0, 0], *[[0, 0, 1.0]] * 4]
    assert content["n_shot"] == content["num_trainable_params"] == 0
    assert content["num_params"] == FakeModel().table.numel()


def test_predictions_of_several_labels_keep_the_order_of_images_by_class(tmp_path: Path) -> None:
    data = Listed([(0, [0]), (255, [1]), (51, [0, 1])], classes=("red", "yellow"))
    files = PredictionFiles(tmp_path, dataset="x", protocol="zero_shot")
    ZeroShotClassification(data, ["{}"], encoding=PLAIN, tokenizer=FakeTokenizer(), predictions=files)(
        FakeModel()
    )
    (rows,) = json.loads((tmp_path / "zero_shot" / "x_seed0.json").read_text())["predictions"]
    for value, row in zip((0, 1, 0.2), rows, strict=True):
        expected = [1 / (1 + math.exp(-value)), 1 / (1 + math.exp(-1.4 * value))]
        assert row == pytest.approx(expected, abs=1e-6)


def test_without_a_folder_no_predictions_are_written(tmp_path: Path) -> None:
    dataset = colors(tmp_path)
    for files in (None, PredictionFiles(None, dataset="x", protocol="y")):
        evaluator = ZeroShotClassification(
            dataset, ["{}"], encoding=PLAIN, tokenizer=FakeTokenizer(), predictions=files
        )
        assert evaluator.predictions is None
        torch.manual_seed(0)
        assert evaluator(FakeModel()).metrics["top1_accuracy"] == pytest.approx(500 / 6)


def test_predictions_by_score_mean_are_refused(tmp_path: Path) -> None:
    files = PredictionFiles(tmp_path, dataset="x", protocol="y")
    with pytest.raises(ValueError, match="got 'score_mean' with predictions"):
        ZeroShotClassification(colors(tmp_path / "set"), ["{}"], ensemble="score_mean", predictions=files)


def grouped(folder: Path, *, bad: int = 0) -> LabelledImages:
    """Right of the regions: north 1 of 2 (and what is bad), south 2 of 2. Six classes."""
    given = [("blue", BLUE, "north"), ("red", GREEN, "north"), ("red", RED, "south"), ("blue", BLUE, "south")]
    classes = ["blue", "red", "four", "five", "six", "seven"]
    paths = [pil_image(folder / f"{i}.png", color) for i, (_, color, _) in enumerate(given)]
    paths += [broken(folder / f"bad{i}.png") for i in range(bad)]
    return LabelledImages(
        Images.from_files(paths),
        [classes.index(name) for name, _, _ in given] + [0] * bad,
        classes=classes,
        prompts=["{}"],
        groups=[region for _, _, region in given] + ["north"] * bad,
    )


class TestContractOfGroups(EvaluatorContract):
    evaluator_class = ZeroShotClassification

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        data = grouped(folder, bad=bad)
        return ZeroShotClassification(
            data, metric="worst_group_top5_accuracy", encoding=encoding, tokenizer=FakeTokenizer()
        )


def test_the_accuracy_of_the_worst_group_by_hand(tmp_path: Path) -> None:
    def run(metric: str, bad: int = 0) -> EvaluationResult:
        data = grouped(tmp_path / metric, bad=bad)
        evaluator = ZeroShotClassification(
            data,
            metric=metric,  # type: ignore[arg-type]
            encoding=PLAIN,
            tokenizer=FakeTokenizer(),
        )
        return evaluator(FakeModel())

    result = run("worst_group_top1_accuracy", bad=1)
    metrics = result.metrics
    assert result.meta["main_metric"] == "worst_group_top1_accuracy"
    assert (metrics["top1_accuracy_north"], metrics["top1_accuracy_south"]) == (pytest.approx(100 / 3), 100.0)
    assert metrics["worst_group_top1_accuracy"] == metrics["top1_accuracy_north"]
    assert metrics["worst_group_top1_accuracy_chance"] == pytest.approx(
        worst_group_chance([3, 2], chance=100 / 6)
    )
    assert metrics["top1_accuracy_south_chance"] == pytest.approx(100 / 6)
    # The green image ties for all classes: red is the second of six.
    assert metrics["worst_group_top5_accuracy"] == pytest.approx(200 / 3)
    assert result.samples["worst_group_top1_accuracy"] == [100.0, 0.0, 0.0]
    assert result.meta["worst_group"] == {"top1_accuracy": "north", "top5_accuracy": "north"}
    assert result.meta["group_images"] == {"north": 3, "south": 2}
    assert result.items["group"] == ["north", "north", "south", "south", "north"]
    assert "macro_f1" not in metrics


def test_macro_f1_where_it_is_asked_for(tmp_path: Path) -> None:
    evaluator = ZeroShotClassification(
        colors(tmp_path), ["{}"], metric="macro_f1", encoding=PLAIN, tokenizer=FakeTokenizer()
    )
    metrics = evaluator(FakeModel()).metrics
    # blue 1 of 1; green 1 of 2; red 3 right of 4 predicted.
    assert metrics["macro_f1"] == pytest.approx(100 * (1 + 2 / 3 + 6 / 7) / 3)
    assert metrics["macro_f1_chance"] == macro_f1_chance([0, 1, 1, 2, 2, 2], classes=3)
    assert not any("group" in name for name in metrics)


def test_a_metric_that_the_images_do_not_have_is_an_error(tmp_path: Path) -> None:
    data = colors(tmp_path)
    with pytest.raises(
        ValueError, match="'worst_group_top1_accuracy' for 3 classes, one label an image and no groups"
    ):
        ZeroShotClassification(data, metric="worst_group_top1_accuracy")
    with pytest.raises(ValueError, match="'macro_f1' for 3 classes, several labels"):
        ZeroShotClassification(Several(), metric="macro_f1")
    data.groups = ["north"] * 6
    with pytest.raises(ValueError, match="more than 5 classes for top-5"):
        ZeroShotClassification(data, metric="worst_group_top5_accuracy")
    data.groups = ["north"]
    with pytest.raises(DataError, match="dataset: has 1 groups for 6 images"):
        ZeroShotClassification(data)
