from pathlib import Path

import numpy as np
import pytest

from hypvl.datasets.classification.outliers import OutlierSet
from hypvl.datasets.images import Images
from hypvl.embedding.encode import Encoding
from hypvl.evaluation.outliers import OutlierDetection
from hypvl.evaluation.protocol import Evaluator
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import FakeModel, FakeTokenizer, broken, image

# The scores of red and green are the colours / 255; the last two are outliers.
COLORS = [(250, 0, 0), (0, 200, 0), (0, 100, 255), (120, 110, 0), (30, 0, 255)]


def outliers(folder: Path, *, bad: int = 0) -> OutlierSet:
    paths = [image(folder / f"{i}.png", color) for i, color in enumerate(COLORS)]
    paths += [broken(folder / f"{5 + i}.png") for i in range(bad)]
    outlier = [False, False, False, True, True, *[True] * bad]
    return OutlierSet(
        Images.from_files(paths), outlier, ["red", "green"], [path.stem for path in paths], ["a {} thing"]
    )


class TestOutlierDetection(EvaluatorContract):
    evaluator_class = OutlierDetection

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        return OutlierDetection(outliers(folder, bad=bad), encoding=encoding, tokenizer=FakeTokenizer())


def test_areas_by_hand(tmp_path: Path) -> None:
    result = TestOutlierDetection().make(tmp_path)(FakeModel())
    shown = {name: value for name, value in result.metrics.items() if not name.endswith("_chance")}
    # Differences of the two scores: 250, 200, 100 against 10, 30: the outliers are the least sure.
    # Largest scores: 250, 200, 100 against 120, 30: order of doubt 30*, 100, 120*, 200, 250.
    assert shown == pytest.approx(
        {
            "aupr_probability": 100.0,
            "auroc_probability": 100.0,
            "fpr95_probability": 0.0,
            "aupr_score": 100 * (1 + 2 / 3) / 2,
            "auroc_score": 100 * 5 / 6,
            "fpr95_score": 100 / 3,
        }
    )
    z = 100 * 10 / 255
    assert result.items["probability"][3] == pytest.approx(1 / (1 + np.exp(-z)), rel=1e-5)
    assert result.items["predicted"] == [0, 1, 1, 0, 0]
    assert result.metrics["fpr95_score_chance"] == 95.0 and result.meta["outliers"] == 2


def test_probabilities_that_round_to_one_keep_their_order(tmp_path: Path) -> None:
    data, encoding = outliers(tmp_path), Encoding(num_workers=0)
    result = OutlierDetection(data, scale=1e6, encoding=encoding, tokenizer=FakeTokenizer())(FakeModel())
    assert result.items["probability"] == [1.0] * 5 and result.metrics["auroc_probability"] == 100.0


def test_an_unreadable_image_has_the_worst_place(tmp_path: Path) -> None:
    result = TestOutlierDetection().make(tmp_path, bad=1)(FakeModel())
    assert result.metrics["auroc_probability"] == pytest.approx(100 * 2 / 3)
    assert result.items["predicted"][-1] is None and result.items["score"][-1] is None


def test_wrong_settings_are_an_error(tmp_path: Path) -> None:
    data = outliers(tmp_path)
    with pytest.raises(ValueError, match="scale: got 0"):
        OutlierDetection(data, scale=0)
    alone = OutlierSet(data.images, [True] * 5, data.classes, data.keys, data.prompts)
    with pytest.raises(ValueError, match="all images are outliers, or none is"):
        OutlierDetection(alone)
