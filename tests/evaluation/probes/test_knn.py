"""Nearest neighbours of coloured images, by hand."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hypvl.datasets.classification.folders import ImageFolderSet
from hypvl.embedding.encode import Encoding
from hypvl.errors import DataError
from hypvl.evaluation.probes.knn import KNNClassification
from hypvl.evaluation.protocol import Evaluator
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeModel, broken, image

PLAIN = Encoding(batch_size=4, num_workers=0, max_bad_fraction=0.5)


class Eye(FakeModel):
    """Image features pass a matrix (the trunk) and then lose their blue (everything after)."""

    def __init__(self) -> None:
        super().__init__()
        self.lens = nn.Parameter(torch.eye(3))
        self.asked: list[tuple[str, str]] = []

    def encode_image(self, images: Tensor, stage: str = "embeddings") -> Tensor:
        trunk = super().encode_image(images) @ self.lens
        return trunk if stage == "trunk" else trunk * torch.tensor([1.0, 1.0, 0.0])

    def scores(self, query: Tensor, key: Tensor, *, query_modality: str, key_modality: str) -> Tensor:
        self.asked.append((query_modality, key_modality))
        return -100.0 * torch.cdist(query, key).square()

    def parameters(self):  # type: ignore[no-untyped-def]
        return iter([self.lens])


def sets(root: Path, *, bad: int = 0) -> tuple[ImageFolderSet, ImageFolderSet]:
    """Train: 2 blue, 1 green, 1 red. Test: one of each, and a green image that is called red."""
    for name, colors in {"blue": [BLUE, (0, 30, 200)], "green": [GREEN], "red": [RED]}.items():
        for i, color in enumerate(colors):
            image(root / "train" / name / f"{i}.png", color)
    for name, colors in {"blue": [BLUE], "green": [(10, 250, 0)], "red": [RED, GREEN]}.items():
        for i, color in enumerate(colors):
            image(root / "test" / name / f"{i}.png", color)
    for i in range(bad):
        broken(root / "test" / "blue" / f"x{i}.jpg")
    return ImageFolderSet(root / "train"), ImageFolderSet(root / "test")


class TestContract(EvaluatorContract):
    evaluator_class = KNNClassification

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        return KNNClassification(*sets(folder, bad=bad), k=2, encoding=encoding)

    def model(self) -> FakeModel:
        return Eye()


def test_accuracies_and_items_by_hand(tmp_path: Path) -> None:
    result = KNNClassification(*sets(tmp_path), k=1, encoding=PLAIN)(Eye())
    assert result.items["predicted"] == [0, 1, 2, 1]
    assert result.items["key"] == ["blue/0.png", "green/0.png", "red/0.png", "red/1.png"]
    assert result.items["share"] == pytest.approx([1.0] * 4)
    assert result.metrics == pytest.approx(
        {
            "top1_accuracy": 75.0,
            "top1_accuracy_chance": 100 / 3,
            "mean_per_class_accuracy": 100 * 2.5 / 3,
            "mean_per_class_accuracy_chance": 100 / 3,
        }
    )
    assert result.samples["mean_per_class_accuracy"] == [100.0, 100.0, 100.0, 0.0]
    assert result.strata == {"mean_per_class_accuracy": [0, 1, 2, 2]}
    assert (result.meta["training_images"], result.meta["stage"], result.meta["similarity"]) == (
        4,
        "trunk",
        "cosine",
    )


def test_votes_are_weighted_by_similarity(tmp_path: Path) -> None:
    train, test = sets(tmp_path)
    image(tmp_path / "test" / "red" / "2.png", (200, 0, 100))  # nearer to red, but there are two blue ones
    test = ImageFolderSet(tmp_path / "test")
    cosines = {"red": 200, "blue": 100, "other": 100 * 200 / math.hypot(30, 200)}
    length = math.hypot(200, 100)
    for temperature, winner in ((0.07, 2), (10.0, 0)):
        weights = {name: math.exp(value / length / temperature) for name, value in cosines.items()}
        result = KNNClassification(train, test, k=3, temperature=temperature, encoding=PLAIN)(Eye())
        assert result.items["predicted"][4] == winner
        won = weights["red"] if winner == 2 else weights["blue"] + weights["other"]
        assert result.items["share"][4] == pytest.approx(won / sum(weights.values()), rel=1e-5)


def test_more_neighbours_than_images_and_small_chunks(tmp_path: Path) -> None:
    train, test = sets(tmp_path)
    whole = KNNClassification(train, test, k=50, encoding=PLAIN)(Eye())
    parts = KNNClassification(train, test, k=50, encoding=PLAIN, query_chunk=1, key_chunk=2)(Eye())
    assert whole.items["predicted"] == parts.items["predicted"]
    assert whole.items["share"] == pytest.approx(parts.items["share"], rel=1e-5)


def test_neighbours_by_the_models_own_score(tmp_path: Path) -> None:
    model = Eye()
    train, test = sets(tmp_path)
    image(tmp_path / "test" / "red" / "2.png", (255, 120, 0))
    test = ImageFolderSet(tmp_path / "test")
    result = KNNClassification(train, test, k=2, temperature=0.01, similarity="model", encoding=PLAIN)(model)
    assert set(model.asked) == {("image", "image")} and result.meta["stage"] == "embeddings"
    # The last one's best score is -100 * 0.22, and exp(-2200) would be nothing.
    assert result.items["predicted"] == [0, 1, 2, 1, 2] and result.items["share"] == pytest.approx([1.0] * 5)


def test_neighbours_are_compared_at_the_chosen_stage(tmp_path: Path) -> None:
    # After the trunk blue is black, which has no direction: all cosines are 0, and the first image wins.
    train, test = sets(tmp_path)
    (tmp_path / "train" / "blue" / "1.png").unlink()
    train = ImageFolderSet(tmp_path / "train")
    image(tmp_path / "test" / "red" / "3.png", (90, 0, 200))
    test = ImageFolderSet(tmp_path / "test")
    trunk = KNNClassification(train, test, k=1, encoding=PLAIN)(Eye())
    features = KNNClassification(train, test, k=1, stage="features", encoding=PLAIN)(Eye())
    assert trunk.items["predicted"][4] == 0 and features.items["predicted"][4] == 2


def test_validation_images_vote_too_and_broken_ones_are_left_out(tmp_path: Path) -> None:
    train, test = sets(tmp_path)
    for place, color in (
        ("blue/0", BLUE),
        ("green/0", GREEN),
        ("red/0", GREEN),
        ("red/1", GREEN),
        ("red/2", GREEN),
    ):
        image(tmp_path / "val" / f"{place}.png", color)
    broken(tmp_path / "val" / "blue" / "1.jpg")
    validation = ImageFolderSet(tmp_path / "val")
    result = KNNClassification(train, test, validation=validation, k=5, encoding=PLAIN)(Eye())
    assert result.meta["training_images"] == 10
    assert (result.meta["unreadable"], result.meta["unreadable_training"]) == (1, 1)
    assert "1.jpg" in result.meta["unreadable_first"][0]
    # Of five green images three are called red.
    assert result.items["predicted"][3] == 2 and result.items["share"][3] == pytest.approx(3 / 5)


def test_wrong_settings(tmp_path: Path) -> None:
    train, test = sets(tmp_path)
    with pytest.raises(ValueError, match=r"stage: got 'trunk' for similarity='model'; expected 'embeddings'"):
        KNNClassification(train, test, similarity="model", stage="trunk")
    with pytest.raises(ValueError, match="similarity: got 'dot'"):
        KNNClassification(train, test, similarity="dot")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="k: got 0; expected a whole number"):
        KNNClassification(train, test, k=0)
    with pytest.raises(ValueError, match="stage: got 'pixels'"):
        KNNClassification(train, test, stage="pixels")  # type: ignore[arg-type]
    (tmp_path / "train" / "yellow").mkdir()
    with pytest.raises(DataError, match="train, test: have 4, 3 classes, not the same ones"):
        KNNClassification(ImageFolderSet(tmp_path / "train"), test)
    test.labels[0] = 3
    with pytest.raises(DataError, match=r"blue/0\.png: its label is 3"):
        KNNClassification(train, test)
    test.labels[0] = [0, 1]  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="labels: got several an image"):
        KNNClassification(train, test)
