"""The linear probe on colours: what it learns from, what it chooses by, what it reports."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hypvl.datasets.classification.folders import ImageFolderSet
from hypvl.embedding.encode import Encoding
from hypvl.embedding.protocol import EvaluableModel
from hypvl.errors import DataError
from hypvl.evaluation.prediction_files import PredictionFiles
from hypvl.evaluation.probes.linear_probe import LinearProbe
from hypvl.evaluation.protocol import Evaluator
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeModel, broken, image

PLAIN = Encoding(batch_size=4, num_workers=0, max_bad_fraction=0.5)
DARK = {"blue": (0, 0, 90), "green": (0, 90, 0), "red": (90, 0, 0)}
BRIGHT = {"blue": BLUE, "green": GREEN, "red": RED}


def folders(root: Path, *, each: int = 4, colors: dict[str, tuple[int, int, int]] = DARK) -> ImageFolderSet:
    for name, color in colors.items():
        for i in range(each):
            image(root / name / f"{i}.png", tuple(min(255, c + 5 * i) for c in color))  # type: ignore[arg-type]
    return ImageFolderSet(root)


class Listed:
    """A set from (value of each pixel, label), in memory."""

    prompts = None

    def __init__(self, rows: Sequence[tuple[int, Any]], classes: Sequence[str] = ("a", "b")) -> None:
        self.rows = list(rows)
        self.classes = list(classes)
        self.labels = [label for _, label in rows]
        self.keys = [f"{i}" for i in range(len(rows))]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        value, label = self.rows[index]
        return torch.full((3, 8, 8), value, dtype=torch.uint8), label


class DivergingModel(FakeModel):
    """Its features are NaN once its weights are."""

    def encode_image(self, images: Tensor, stage: str = "embeddings") -> Tensor:
        return super().encode_image(images, stage) + 0 * self.table.sum()


class TestContract(EvaluatorContract):
    evaluator_class = LinearProbe

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        train = folders(folder / "train")
        test = folders(folder / "test", each=2, colors=BRIGHT)
        for i in range(bad):
            broken(folder / "test" / "blue" / f"broken{i}.jpg")
        test = ImageFolderSet(folder / "test")
        return LinearProbe(train, test, encoding=encoding)

    def model(self) -> EvaluableModel:
        return DivergingModel()


class TestFewShotContract(EvaluatorContract):
    evaluator_class = LinearProbe

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        train = folders(folder / "train")
        folders(folder / "test", each=2, colors=BRIGHT)
        for i in range(bad):
            broken(folder / "test" / "red" / f"broken{i}.jpg")
        test = ImageFolderSet(folder / "test")
        return LinearProbe(train, test, shots=2, seeds=[0, 1, 2], normalize="standard", encoding=encoding)

    def model(self) -> EvaluableModel:
        return DivergingModel()


def test_metrics_items_and_meta(tmp_path: Path) -> None:
    train, test = folders(tmp_path / "train"), folders(tmp_path / "test", each=2, colors=BRIGHT)
    broken(tmp_path / "test" / "red" / "2.png")
    test = ImageFolderSet(tmp_path / "test")
    result = LinearProbe(train, test, encoding=PLAIN)(FakeModel())
    assert result.metrics == pytest.approx(
        {
            "mean_per_class_accuracy": 100 * (1 + 1 + 2 / 3) / 3,
            "mean_per_class_accuracy_chance": 100 / 3,
            "top1_accuracy": 600 / 7,
            "top1_accuracy_chance": 100 / 3,
        }
    )
    assert result.items["label"] == [0, 0, 1, 1, 2, 2, 2]
    assert result.items["predicted"] == [0, 0, 1, 1, 2, 2, None]
    (run,) = result.meta["runs"]
    assert (run["train_images"], run["validation_images"]) == (9, 3)
    assert [cost for cost, _ in run["validation_scores"]] == sorted(c for c, _ in run["validation_scores"])
    assert run["cost"] in [cost for cost, score in run["validation_scores"] if score == 100.0]
    assert result.meta["unreadable"] == 1 and result.meta["warnings"] == []
    assert result.meta["trainable_parameters"] == 3 * (3 + 1)


def test_test_images_do_not_influence_the_chosen_cost(tmp_path: Path) -> None:
    """The same probe with every test label moved: the same cost, the same validation scores."""
    train, test = folders(tmp_path / "train"), folders(tmp_path / "test", colors=BRIGHT)
    first = LinearProbe(train, test, encoding=PLAIN)(FakeModel())
    test.labels = [(label + 1) % 3 for label in test.labels]
    moved = LinearProbe(train, test, encoding=PLAIN)(FakeModel())
    assert first.meta["runs"][0]["validation_scores"] == moved.meta["runs"][0]["validation_scores"]
    assert first.meta["runs"][0]["cost"] == moved.meta["runs"][0]["cost"]
    assert moved.metrics["top1_accuracy"] == 0.0 < first.metrics["top1_accuracy"]


def test_the_cost_is_chosen_by_validation_and_the_final_fit_uses_both() -> None:
    """Training has one b far out among many a: a weak penalty finds it, a strong one says a to everything."""
    train = Listed([(10, 0)] * 9 + [(40, 1)])
    validation = Listed([(10, 0), (40, 1), (40, 1)])
    test = Listed([(40, 1), (10, 0)])
    result = LinearProbe(train, test, validation=validation, encoding=PLAIN)(FakeModel())
    scores = dict(result.meta["runs"][0]["validation_scores"])
    assert scores[1e-6] == 50.0 and scores[1e6] == 100.0
    assert result.meta["runs"][0]["cost"] == min(c for c, score in scores.items() if score == 100.0)
    assert result.metrics["mean_per_class_accuracy"] == 100.0
    # With that cost alone and no search, the validation images are learnt from.
    confused = LinearProbe(
        Listed([(10, 0), (40, 1)]),
        Listed([(200, 1)]),
        validation=Listed([(200, 0)] * 50),
        costs=[1e4],
        halvings=0,
        encoding=PLAIN,
    )(FakeModel())
    assert confused.items["predicted"] == [0]


def test_features_come_from_before_the_projection() -> None:
    class Staged(FakeModel):
        stages: list[str] = []  # noqa: RUF012 (of the test)

        def encode_image(self, images: Tensor, stage: str = "embeddings") -> Tensor:
            self.stages.append(stage)
            return super().encode_image(images, stage)

    model = Staged()
    data = Listed([(10, 0), (40, 1)] * 3)
    LinearProbe(data, data, encoding=PLAIN)(model)
    assert set(model.stages) == {"trunk"}


def test_few_shots_draw_by_seed_and_report_their_spread() -> None:
    """Labels are noise: what is learnt depends on the draw."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 2, (60,), generator=generator).tolist()
    values = torch.randint(0, 250, (60,), generator=generator).tolist()
    train, test = (
        Listed(list(zip(values, labels, strict=True))),
        Listed([(v, int(v > 125)) for v in range(0, 250, 9)]),
    )
    evaluator = LinearProbe(train, test, shots=5, seeds=[0, 1, 2], encoding=PLAIN)
    result = evaluator(FakeModel())
    alone = [
        LinearProbe(train, test, shots=5, seeds=[s], encoding=PLAIN)(FakeModel()).metrics["top1_accuracy"]
        for s in range(3)
    ]
    assert result.metrics["top1_accuracy"] == pytest.approx(sum(alone) / 3)
    main = [run["mean_per_class_accuracy"] for run in result.meta["runs"]]
    mean = sum(main) / 3
    assert result.metrics["seed_std"] == pytest.approx((sum((m - mean) ** 2 for m in main) / 2) ** 0.5)
    assert result.metrics["seed_std"] > 0
    assert [(run["train_images"], run["validation_images"]) for run in result.meta["runs"]] == [(8, 2)] * 3
    assert set(result.items) == {"key", "label", "predicted_seed_0", "predicted_seed_1", "predicted_seed_2"}
    assert evaluator(FakeModel()) == result


def test_only_drawn_images_are_encoded() -> None:
    model = FakeModel()
    train = Listed([(v, v % 2) for v in range(100)])
    LinearProbe(train, Listed([(1, 1), (2, 0)]), shots=2, encoding=PLAIN)(model)
    assert sum(shape[0] for shape in model.image_batches) == 4 + 2


def test_few_shots_do_not_use_the_validation_split() -> None:
    train = Listed([(10, 0), (40, 1)] * 4)
    lies = Listed([(10, 1), (40, 0)] * 50)
    result = LinearProbe(train, train, validation=lies, shots=3, encoding=PLAIN)(FakeModel())
    assert result.metrics["top1_accuracy"] == 100.0


def test_several_labels_an_image() -> None:
    rows = [(10, [0]), (100, [0, 1]), (200, [1]), (20, [0]), (110, [1, 0]), (210, [1])] * 3
    result = LinearProbe(Listed(rows), Listed(rows), encoding=PLAIN)(FakeModel())
    assert result.metrics["map_11_points"] == 100.0 and "top1_accuracy" not in result.metrics
    assert result.items["label"][1] == [0, 1] and result.samples == {}


@pytest.mark.parametrize("normalize", ["none", "l2", "standard"])
def test_normalised_features_separate_tiny_differences(normalize: str) -> None:
    """Images differ by a hair in one colour: without scaling a strong penalty cannot tell them apart."""

    class Tiny(FakeModel):
        def encode_image(self, images: Tensor, stage: str = "embeddings") -> Tensor:
            value = images.float().mean(dim=(1, 2, 3))
            return torch.stack([torch.full_like(value, 3.0), 1e-4 * value], dim=1)

    train = Listed([(10, 0), (40, 1)] * 4 + [(10, 0)])
    probe = LinearProbe(
        train,
        train,
        costs=[1.0],
        halvings=0,
        normalize=normalize,
        encoding=PLAIN,  # type: ignore[arg-type]
    )
    expected = 100.0 if normalize == "standard" else 500 / 9
    assert probe(Tiny()).metrics["top1_accuracy"] == pytest.approx(expected)


def test_a_solver_that_stops_early_is_a_warning() -> None:
    train = Listed([(10 * i, i % 2) for i in range(12)])
    result = LinearProbe(train, train, max_iterations=1, tolerance=1e-12, encoding=PLAIN)(FakeModel())
    (warning,) = result.meta["warnings"]
    assert "did not get within tolerance 1e-12 for cost" in warning and "raise max_iterations" in warning


def test_unreadable_training_images_are_left_out(tmp_path: Path) -> None:
    train, test = folders(tmp_path / "train"), folders(tmp_path / "test", each=1)
    broken(tmp_path / "train" / "red" / "x.png")
    result = LinearProbe(ImageFolderSet(tmp_path / "train"), test, encoding=PLAIN)(FakeModel())
    assert result.meta["unreadable_training"] == 1 and result.meta["unreadable"] == 0
    assert result.metrics["top1_accuracy"] == 100.0
    assert len(train) == 12


def test_predictions_are_written_per_seed(tmp_path: Path) -> None:
    class Colors(nn.Module):
        image_size, context_length, geometry = 8, 7, None

        def __init__(self) -> None:
            super().__init__()
            self.visual = nn.Linear(3, 5, bias=False)
            self.text = nn.Linear(2, 2)

        def encode_image(self, images: Tensor, stage: str = "embeddings") -> Tensor:
            return self.visual(images.float().mean(dim=(2, 3)) / 255)

    train = folders(tmp_path / "train")
    files = PredictionFiles(tmp_path / "out", dataset="colors", protocol="few_shot_2", model_name="m")
    broken(tmp_path / "test" / "blue" / "0.png")
    test = folders(tmp_path / "test", each=1, colors={"green": GREEN, "red": RED})
    probe = LinearProbe(train, test, shots=2, seeds=[0, 1], encoding=PLAIN, predictions=files)
    torch.manual_seed(0)
    model = Colors()
    probe(model)  # type: ignore[arg-type]
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    for seed in (0, 1):
        content = json.loads((tmp_path / "out" / "few_shot_2" / f"colors_seed{seed}.json").read_text())
        predictions = content.pop("predictions")
        assert content == {
            "model_name": "m",
            "dataset_name": "colors",
            "num_trainable_params": 3 * 6,
            "num_params": 15 + 6,
            "num_visual_params": 15,
            "num_backbone_params": 15,
            "n_shot": 2,
            "rnd_seeds": [seed],
        }
        assert [len(level) for level in (predictions, predictions[0], predictions[0][0])] == [1, 3, 3]
        assert predictions[0][0] == [round(1 / 3, 6)] * 3  # the broken one
        assert all(sum(row) == pytest.approx(1, abs=3e-6) for row in predictions[0])


def test_wrong_settings(tmp_path: Path) -> None:
    data = Listed([(10, 0), (40, 1)])
    with pytest.raises(DataError, match="2, 3 classes, not the same ones"):
        LinearProbe(data, Listed([(1, 0)], classes=("a", "b", "c")))
    with pytest.raises(DataError, match="1: its label is 5"):
        LinearProbe(data, Listed([(1, 0), (1, 5)]))
    with pytest.raises(ValueError, match="seeds: got"):
        LinearProbe(data, data, seeds=[])
    with pytest.raises(ValueError, match="normalize: got 'max'"):
        LinearProbe(data, data, normalize="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="metric: got 'f1'"):
        LinearProbe(data, data, metric="f1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="metric: got 'map_11_points' for 2 classes and one label an image"):
        LinearProbe(data, data, metric="map_11_points")
    three = Listed([(10, 0)], classes=("a", "b", "c"))
    with pytest.raises(ValueError, match="got 'roc_auc' for 3 classes"):
        LinearProbe(three, three, metric="roc_auc")
    with pytest.raises(DataError, match="validation: its 1 images give no roc_auc"):
        LinearProbe(data, data, validation=Listed([(1, 0)]), metric="roc_auc", encoding=PLAIN)(FakeModel())
    with pytest.raises(DataError, match="leave none for validation"):
        LinearProbe(data, data, encoding=PLAIN)(FakeModel())


def test_one_shot_takes_the_middle_of_the_grid() -> None:
    rows = [(10, 0), (30, 0), (20, 0), (240, 1), (220, 1), (230, 1)]
    result = LinearProbe(Listed(rows), Listed(rows), shots=1, seeds=[0, 1], encoding=PLAIN)(FakeModel())
    assert result.metrics["top1_accuracy"] == 100.0
    for run in result.meta["runs"]:
        assert (run["train_images"], run["validation_images"], run["cost"]) == (2, 0, 1.0)
        assert run["validation_scores"] == []
    assert result.meta["warnings"] == [
        f"seed {seed}: there is no image to choose the cost by; it is 1, the grid's middle."
        for seed in (0, 1)
    ]
    # It is the classifier of that cost on the drawn images, whatever the others of the grid.
    same = LinearProbe(Listed(rows), Listed(rows), shots=1, seeds=[0, 1], costs=[1.0], encoding=PLAIN)(
        FakeModel()
    )
    assert same.metrics == result.metrics
