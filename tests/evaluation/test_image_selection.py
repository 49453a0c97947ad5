from pathlib import Path

import pytest

from hypvl.datasets.composition.choices import Selection, Selections
from hypvl.datasets.images import Images
from hypvl.embedding.encode import Encoding
from hypvl.evaluation.image_selection import ImageSelection
from hypvl.evaluation.protocol import Evaluator
from hypvl.metrics.choices import selection_jaccard_chance
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeModel, FakeTokenizer, broken, image
from tests.evaluation.test_reranking import FakeScorer


def selections(folder: Path, *, bad: int = 0) -> Selections:
    paths = [image(folder / f"{i}.png", color) for i, color in enumerate((RED, GREEN, BLUE, RED))]
    paths += [broken(folder / f"{4 + i}.png") for i in range(bad)]
    given = [
        Selection("red", (0, 1, 2, 3), (True, False, False, True), "4"),  # both
        Selection("blue", (2, 0, 1), (True, True, False), "3"),  # blue, and of the tie the wrong one: 1 of 3
        Selection("green", (1, 2, 3), (False, True, False), "3"),  # none
        *(Selection("red", (0, 1, 4 + i), (True, False, False), "3") for i in range(bad)),
    ]
    return Selections(Images.from_files(paths), given, [path.stem for path in paths], {"left_out": 7})


class TestImageSelection(EvaluatorContract):
    evaluator_class = ImageSelection

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        return ImageSelection(selections(folder, bad=bad), encoding=encoding, tokenizer=FakeTokenizer())


def test_the_index_and_its_chance_by_hand(tmp_path: Path) -> None:
    result = TestImageSelection().make(tmp_path, bad=1)(FakeModel())
    metrics = result.metrics
    assert result.items["jaccard"] == pytest.approx([100.0, 100 / 3, 0.0, 0.0])
    assert metrics["jaccard"] == pytest.approx((100 + 100 / 3) / 4)
    assert (metrics["jaccard_4"], metrics["jaccard_3"]) == (100.0, pytest.approx(100 / 9))
    assert metrics["jaccard_4_chance"] == selection_jaccard_chance(4, 2)
    # Two of three with one wrong: both in one order of three, else 1/3; one of three: right once in three.
    assert metrics["jaccard_3_chance"] == pytest.approx(100 * ((1 + 2 / 3) / 3 + 1 / 3 + 1 / 3) / 3)
    assert result.items["right"][0] == ["0", "3"] and result.items["scores"][3] is None
    assert result.meta["left_out"] == 7 and result.meta["main_metric"] == "jaccard"


def test_a_pair_scorer_gives_what_its_scores_are(tmp_path: Path) -> None:
    encoding = Encoding(num_workers=0, max_bad_fraction=0.5)
    by_embeddings = TestImageSelection().make(tmp_path, bad=1)(FakeModel())
    together = ImageSelection(
        selections(tmp_path, bad=1), scored_by="pair_scorer", pair_scorer=FakeScorer(), encoding=encoding
    )
    result = together(FakeModel())
    assert result.metrics == by_embeddings.metrics and result.meta["pair_scorer"] == "fake"


def test_wrong_settings_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dataset: got no captions"):
        ImageSelection(Selections(Images.from_files([]), [], []))
    with pytest.raises(ValueError, match=r"images, right: got 2 images and \(False, False\) for 'red'"):
        Selection("red", (0, 1), (False, False), "2")
