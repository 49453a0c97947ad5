from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from hypvl.datasets.classification.multi_label import MultiLabelImages
from hypvl.datasets.images import Images
from hypvl.embedding.encode import Encoding
from hypvl.errors import DataError
from hypvl.evaluation.multi_label import MultiLabelClassification
from hypvl.evaluation.protocol import Evaluator
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import FakeModel, FakeTokenizer, broken, image

# The scores of red, green and blue of each image are its colour / 255.
COLORS = [(250, 10, 0), (200, 90, 0), (100, 200, 0), (150, 100, 0)]
LABELS = [(0,), (0, 1), (1,), ()]


def images(folder: Path, *, bad: int = 0, ignored: list[tuple[int, ...]] | None = None) -> MultiLabelImages:
    paths = [image(folder / f"{i}.png", color) for i, color in enumerate(COLORS)]
    paths += [broken(folder / f"{4 + i}.png") for i in range(bad)]
    return MultiLabelImages(
        Images.from_files(paths),
        [*LABELS, *[(0,)] * bad],
        classes=["red", "green", "blue"],
        keys=[path.stem for path in paths],
        ignored=ignored,
    )


class TestMultiLabelClassification(EvaluatorContract):
    evaluator_class = MultiLabelClassification

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        return MultiLabelClassification(
            images(folder, bad=bad), ["a {} thing"], encoding=encoding, tokenizer=FakeTokenizer()
        )


def evaluator(data: MultiLabelImages, **settings: object) -> MultiLabelClassification:
    return MultiLabelClassification(
        data,
        ["a {} thing", "{}"],
        encoding=Encoding(num_workers=0, max_bad_fraction=0.5),
        tokenizer=FakeTokenizer(),
        **settings,  # type: ignore[arg-type]
    )


def test_precisions_by_hand(tmp_path: Path) -> None:
    result = evaluator(images(tmp_path))(FakeModel())
    # red: images 0, 1 come first; green: order 2, 3, 1, 0 with 2 and 1 right: (1 + 2/3) / 2; blue has no positive.
    assert result.metrics["average_precision_red"] == 100.0
    assert result.metrics["average_precision_green"] == pytest.approx(100 * 5 / 6)
    assert result.metrics["average_precision"] == pytest.approx(100 * 11 / 12)
    # 11 points of green: 6 with precision 1 (recall to 0.5), 5 with 2/3.
    assert result.metrics["map_11_points_voc2007"] == pytest.approx((100 + 100 * (6 + 5 * 2 / 3) / 11) / 2)
    assert "average_precision_blue" not in result.metrics
    assert result.items["class_average_precision"][2] is None and result.items["class_positives"] == [2, 2, 0]
    # 2 of 4, H = 25/12: (H + (4 - H) / 3) / 4 of either class.
    assert result.metrics["average_precision_chance"] == pytest.approx(
        100 * (25 / 12 + (4 - 25 / 12) / 3) / 4
    )
    assert result.items["predicted"] == [0, 0, 1, 0]


def test_agrees_with_scikit_learn(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    truth = draws.random((12, 3)) < 0.5
    pixels = draws.integers(0, 256, (12, 3))
    paths = [image(tmp_path / f"{i}.png", tuple(map(int, color))) for i, color in enumerate(pixels)]
    labels = [tuple(np.flatnonzero(row).tolist()) for row in truth]
    data = MultiLabelImages(
        Images.from_files(paths), labels, classes=["red", "green", "blue"], keys=[path.stem for path in paths]
    )
    metrics = evaluator(data)(FakeModel()).metrics
    expected = 100 * average_precision_score(truth, pixels, average="macro")
    assert metrics["average_precision"] == pytest.approx(expected)


def test_an_ignored_image_does_not_count_for_its_class(tmp_path: Path) -> None:
    result = evaluator(images(tmp_path, ignored=[(), (), (), (1,)]))(FakeModel())
    assert result.metrics["average_precision_green"] == 100.0 and result.meta["ignored"] == 1
    # Without its only positives a class does not occur.
    some = evaluator(images(tmp_path, ignored=[(0,), (0,), (), ()]), kinds="items")(FakeModel())
    assert some.items["class_positives"] == [0, 2, 0] and "average_precision_green" not in some.metrics
    everything = evaluator(images(tmp_path, ignored=[(0, 1)] * 4))
    with pytest.raises(DataError, match="every label is ignored"):
        everything(FakeModel())


def test_an_unreadable_image_comes_last_in_its_class_and_first_in_others(tmp_path: Path) -> None:
    result = evaluator(images(tmp_path, bad=1))(FakeModel())
    assert result.metrics["average_precision_red"] == pytest.approx(100 * (1 + 1 + 3 / 5) / 3)
    assert result.metrics["average_precision_green"] == pytest.approx(100 * (1 / 2 + 2 / 4) / 2)
    assert result.items["predicted"][-1] is None


def test_a_set_without_labels_is_an_error(tmp_path: Path) -> None:
    data = images(tmp_path)
    data.labels = [()] * 4
    with pytest.raises(DataError, match="none of its 4 images has a label"):
        evaluator(data)(FakeModel())
    with pytest.raises(DataError, match="ignored: got 1 for 4 images"):
        images(tmp_path, ignored=[()])
