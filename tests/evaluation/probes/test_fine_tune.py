"""Fine-tuning a small encoder: what it learns, that it leaves the model alone, that seeds decide."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hypvl.datasets.classification.folders import ImageFolderSet
from hypvl.embedding.encode import Encoding
from hypvl.embedding.protocol import EvaluableModel
from hypvl.errors import DataError, UserError
from hypvl.evaluation.probes.fine_tune import FineTune
from hypvl.evaluation.probes.fine_tune_batches import ImageBatches
from hypvl.evaluation.protocol import Evaluator
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import BLUE, GREEN, RED, broken
from tests.evaluation.probes.test_linear_probe import Listed, folders

PLAIN = Encoding(batch_size=4, num_workers=0, max_bad_fraction=0.5)
#: Classes by whether the value is in the middle: no line can tell from the value alone.
MIDDLE = [(10, 0), (110, 1), (240, 0), (20, 0), (125, 1), (230, 0), (30, 0), (140, 1), (250, 0), (130, 1)]


class SmallModel(nn.Module):
    """An image's mean colour through two layers, dropout between them; texts have a layer of their own."""

    image_size, context_length, geometry = 8, 7, None

    def __init__(self, *, dropout: float = 0.0, hidden: int = 8, bend: float = 1.0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.visual = nn.Sequential(
                nn.Linear(3, hidden), nn.Tanh(), nn.Dropout(dropout), nn.Linear(hidden, 2)
            )
            self.text = nn.Linear(2, 2)
            with torch.no_grad():
                self.visual[0].weight *= bend  # small: nearly linear to begin with
                self.visual[0].bias *= bend
        self.stages: list[str] = []

    def encode_image(self, images: Tensor, stage: str = "embeddings") -> Tensor:
        self.stages.append(stage)
        assert images.dtype == torch.uint8
        return self.visual(images.float().mean(dim=(2, 3)) / 255)


class _Contract(EvaluatorContract):
    evaluator_class = FineTune
    settings: dict[str, object] = {"trainable": "all"}  # noqa: RUF012 (of the test)

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        train = folders(folder / "train")
        folders(folder / "test", each=2, colors={"blue": BLUE, "green": GREEN, "red": RED})
        for i in range(bad):
            broken(folder / "test" / "blue" / f"broken{i}.jpg")
        test = ImageFolderSet(folder / "test")
        return FineTune(train, test, epochs=8, batch_size=5, encoding=encoding, **self.settings)  # type: ignore[arg-type]

    def model(self) -> EvaluableModel:
        return SmallModel(dropout=0.2)  # type: ignore[return-value]


class TestContract(_Contract):
    """The whole encoder."""


class TestHeadContract(_Contract):
    """The head alone, with several seeds."""

    settings = {"trainable": "head", "shots": 3, "seeds": [0, 1]}  # noqa: RUF012 (of the test)


def test_training_the_encoder_learns_what_the_head_alone_cannot() -> None:
    data = Listed(MIDDLE)
    scores = {}
    for trainable in ("all", "head"):
        tuned = FineTune(data, data, trainable=trainable, epochs=150, batch_size=5, encoding=PLAIN)  # type: ignore[arg-type]
        scores[trainable] = tuned(SmallModel(hidden=16, bend=0.1)).metrics["top1_accuracy"]  # type: ignore[arg-type]
    assert scores["all"] == 100.0 and scores["head"] < 100.0


def test_the_step_is_that_of_sgd_by_hand() -> None:
    """One batch, one epoch, the head alone: W moves by the learning rate times the gradient at its start."""
    values = [0, 255, 51, 204]
    data = Listed([(v, i % 2) for i, v in enumerate(values)])

    class Plain(SmallModel):
        def encode_image(self, images: Tensor, stage: str = "embeddings") -> Tensor:
            return images.float().mean(dim=(2, 3))[:, :1] / 255

    tuned = FineTune(
        data,
        data,
        trainable="head",
        epochs=1,
        learning_rate=100.0,
        weight_decay=0.0,
        encoding=PLAIN,
        seeds=[3],
    )
    result = tuned(Plain())  # type: ignore[arg-type]
    # Batch-normalised features are -1.27, 1.27, -0.76, 0.76 with labels 0 1 0 1: the gradient points to w > 0 for
    # class 1 whatever the head of the start, which is of size 0.01 against a step of 100 * 0.5 * 1.01.
    assert result.items["predicted"] == [0, 1, 0, 1]
    assert result.meta["trainable_parameters"] == 4
    flipped = Listed([(v, 1 - i % 2) for i, v in enumerate(values)])
    other = FineTune(
        flipped, data, trainable="head", epochs=1, learning_rate=100.0, encoding=PLAIN, seeds=[3]
    )(Plain())  # type: ignore[arg-type]
    assert other.items["predicted"] == [1, 0, 1, 0]


def test_results_depend_on_the_seed_only() -> None:
    data = Listed([(v, int(v > 125)) for v in range(0, 250, 7)])
    model = SmallModel(dropout=0.5)
    torch.manual_seed(1)
    tuned = FineTune(data, data, epochs=1, learning_rate=1e-4, seeds=[0, 1], encoding=PLAIN)
    first = tuned(model)  # type: ignore[arg-type]
    torch.manual_seed(2)
    assert tuned(model) == first  # type: ignore[arg-type]
    one = FineTune(data, data, epochs=1, learning_rate=1e-4, seeds=[1], encoding=PLAIN)(model)  # type: ignore[arg-type]
    assert one.items["predicted"] == first.items["predicted_seed_1"]
    assert first.items["predicted_seed_0"] != first.items["predicted_seed_1"]


def test_frozen_parameters_are_trained_in_the_copy_and_stay_frozen_in_the_model() -> None:
    model = SmallModel(hidden=16).requires_grad_(False)
    before = [p.clone() for p in model.parameters()]
    data = Listed(MIDDLE)
    result = FineTune(data, data, epochs=150, batch_size=5, encoding=PLAIN)(model)  # type: ignore[arg-type]
    assert result.metrics["top1_accuracy"] == 100.0
    for parameter, value in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, value) and not parameter.requires_grad and parameter.grad is None
    # 3 * 16 + 16 + 16 * 2 + 2 that images go through, and the head of 2 * (2 + 1); not the layer of texts.
    assert result.meta["trainable_parameters"] == 98 + 6


def test_swept_rates_are_chosen_on_validation_and_diverged_ones_left_out() -> None:
    data = Listed(MIDDLE)
    tuned = FineTune(
        data,
        Listed([(120, 0), (15, 1)]),  # lies: what the test says has no part in the choice
        validation=Listed(MIDDLE),
        tuning="swept",
        learning_rates=[1e-6, 1.0],
        weight_decays=[1e-6, 1e6],
        halvings=1,
        sweep_epochs=100,
        epochs=100,
        batch_size=30,
        encoding=PLAIN,
    )
    result = tuned(SmallModel(hidden=16))  # type: ignore[arg-type]
    (run,) = result.meta["runs"]
    scores = {(rate, decay): score for rate, decay, score in run["validation_scores"]}
    assert scores[1.0, 1e6] is None and scores[1.0, 1e-6] == 100.0 > scores[1e-6, 1e-6]
    assert run["learning_rate"] == 1.0 and scores[1.0, run["weight_decay"]] == 100.0
    assert result.metrics["top1_accuracy"] == 0.0


def test_fixed_rates_that_diverge_are_an_error() -> None:
    data = Listed(MIDDLE)
    tuned = FineTune(data, data, learning_rate=1.0, weight_decay=1e6, epochs=5, encoding=PLAIN)
    with pytest.raises(UserError, match=r"became NaN or infinite with Rates\(learning_rate=1\.0"):
        tuned(SmallModel())  # type: ignore[arg-type]


@pytest.mark.parametrize("trainable", ["all", "head"])
def test_several_labels_an_image(trainable: str) -> None:
    rows = [(10, [0]), (120, [0, 1]), (240, [1]), (20, [0]), (130, [1, 0]), (250, [1])] * 2
    tuned = FineTune(Listed(rows), Listed(rows), trainable=trainable, epochs=60, encoding=PLAIN)  # type: ignore[arg-type]
    result = tuned(SmallModel())  # type: ignore[arg-type]
    assert result.metrics["map_11_points"] == 100.0 and result.items["label"][1] == [0, 1]


def test_images_that_do_not_fit_into_memory_are_read_again(tmp_path: Path) -> None:
    folders(tmp_path / "train")
    broken(tmp_path / "train" / "red" / "x.png")
    data = ImageFolderSet(tmp_path / "train")
    result = []
    for memory in (0, 1 << 20):
        images = data
        batches = ImageBatches(images, images, range(13), stage="trunk", encoding=PLAIN, memory=memory)
        assert batches.width(SmallModel()) == 2  # type: ignore[arg-type]
        result.append(list(batches.steps([[3, 0, 12], [12], [5, 6]], torch.device("cpu"))))
        assert list(batches.bad_training) == [12]
    for (a, rows), (b, other) in zip(*result, strict=True):
        assert torch.equal(a, b) and rows == other
    assert [rows for _, rows in result[0]] == [[3, 0], [5, 6]]


def test_unreadable_training_images_are_left_out_and_counted(tmp_path: Path) -> None:
    folders(tmp_path / "train")
    broken(tmp_path / "train" / "red" / "x.png")
    data = ImageFolderSet(tmp_path / "train")
    result = FineTune(data, folders(tmp_path / "test"), epochs=2, encoding=PLAIN)(SmallModel())  # type: ignore[arg-type]
    assert result.meta["unreadable_training"] == 1 and result.meta["unreadable"] == 0
    strict = Encoding(num_workers=0, max_bad_fraction=0.05)
    with pytest.raises(DataError, match=r"at least 1 of 13 .* more than max_bad_fraction=0\.05"):
        FineTune(data, data, epochs=2, encoding=strict)(SmallModel())  # type: ignore[arg-type]


def test_half_precision_trains_too() -> None:
    data = Listed(MIDDLE)
    half = Encoding(batch_size=4, num_workers=0, amp="bf16")
    result = FineTune(data, data, epochs=150, batch_size=5, encoding=half)(SmallModel(hidden=16))  # type: ignore[arg-type]
    assert math.isfinite(result.metrics["top1_accuracy"]) and result.metrics["top1_accuracy"] > 60


@pytest.mark.parametrize(("tuning", "warnings"), [("fixed", 0), ("swept", 1)])
def test_one_shot_is_trained_with_the_fixed_rates(tuning: str, warnings: int) -> None:
    rows = [(10, 0), (30, 0), (20, 0), (240, 1), (220, 1), (230, 1)]
    given = {"epochs": 60, "encoding": PLAIN, "trainable": "head"}
    result = FineTune(Listed(rows), Listed(rows), shots=1, tuning=tuning, **given)(SmallModel())  # type: ignore[arg-type]
    assert result.metrics["top1_accuracy"] == 100.0
    (run,) = result.meta["runs"]
    assert (run["train_images"], run["validation_images"]) == (2, 0)
    assert (run["learning_rate"], run["weight_decay"]) == (0.1, 1e-6) and "validation_scores" not in run
    assert len(result.meta["warnings"]) == warnings
    # All of a set that has one image of each class: the same for fixed rates, an error for a search.
    one = Listed([(10, 0), (240, 1)])
    if tuning == "fixed":
        assert FineTune(one, Listed(rows), **given)(SmallModel()).metrics["top1_accuracy"] == 100.0  # type: ignore[arg-type]
    else:
        with pytest.raises(DataError, match="leave none for validation"):
            FineTune(one, one, tuning="swept", **given)(SmallModel())  # type: ignore[arg-type]


def test_wrong_settings() -> None:
    data = Listed(MIDDLE)
    with pytest.raises(ValueError, match="trainable: got 'text'; expected 'all' or 'head'"):
        FineTune(data, data, trainable="text")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size: got 1; expected a whole number of at least 2"):
        FineTune(data, data, batch_size=1)
    with pytest.raises(DataError, match="got 1 training images"):
        two = Listed([(1, 0), (2, 0)])
        FineTune(two, two, tuning="swept", sweep_epochs=1, encoding=PLAIN)(SmallModel())  # type: ignore[arg-type]
