from pathlib import Path

import pytest
from torch import Tensor

from hypvl.datasets.composition.choices import CaptionQueries, CaptionQuery
from hypvl.datasets.images import Images
from hypvl.embedding.encode import Encoding
from hypvl.evaluation.image_choice import ImageChoice
from hypvl.evaluation.protocol import Evaluator
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import BLUE, GREEN, RED, FakeModel, FakeTokenizer, broken, image
from tests.evaluation.test_reranking import FakeScorer


def queries(folder: Path, *, bad: int = 0) -> CaptionQueries:
    paths = [image(folder / f"{i}.png", color) for i, color in enumerate((RED, GREEN, BLUE, RED))]
    paths += [broken(folder / f"{4 + i}.png") for i in range(bad)]
    asked = [
        CaptionQuery("a red thing", 0, (1, 2), "color"),
        CaptionQuery("a green thing", 1, (0,), "color"),
        CaptionQuery("a red thing", 0, (3,), "tie"),
        CaptionQuery("a blue thing", 0, (2,), "wrong"),
        *(CaptionQuery("a red thing", 0, (1, i), "color") for i in range(4, 4 + bad)),
    ]
    means = {"macro_accuracy": ["color", "tie"]}
    return CaptionQueries(
        Images.from_files(paths), asked, [path.stem for path in paths], means, {"left_out": 7}
    )


class TestImageChoice(EvaluatorContract):
    evaluator_class = ImageChoice

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        return ImageChoice(queries(folder, bad=bad), encoding=encoding, tokenizer=FakeTokenizer())


def test_accuracy_and_chance_by_hand(tmp_path: Path) -> None:
    result = TestImageChoice().make(tmp_path)(FakeModel())
    metrics = result.metrics
    assert (metrics["accuracy"], metrics["accuracy_color"], metrics["macro_accuracy"]) == (50.0, 100.0, 50.0)
    assert (metrics["accuracy_tie"], metrics["accuracy_wrong"]) == (0.0, 0.0)
    assert metrics["accuracy_chance"] == pytest.approx(100 * (1 / 3 + 3 / 2) / 4)
    assert metrics["macro_accuracy_chance"] == pytest.approx((100 * (1 / 3 + 1 / 2) / 2 + 50) / 2)
    assert result.items["margin"] == pytest.approx([1.0, 1.0, 0.0, -1.0])
    assert result.items["best_other"][1:] == ["0", "3", "2"] and result.meta["left_out"] == 7


def test_a_caption_with_an_unreadable_image_is_a_miss(tmp_path: Path) -> None:
    result = TestImageChoice().make(tmp_path, bad=1)(FakeModel())
    assert result.metrics["accuracy_color"] == pytest.approx(200 / 3)
    assert result.items["margin"][-1] is None and result.items["best_other"][-1] is None


class OneWay(FakeModel):
    """Scores as the fake model for captions, and the other way round for images."""

    def scores(self, query: Tensor, key: Tensor, *, query_modality: str, key_modality: str) -> Tensor:
        result = super().scores(query, key, query_modality=query_modality, key_modality=key_modality)
        return result if query_modality == "text" else -result


def test_the_query_is_the_caption(tmp_path: Path) -> None:
    assert TestImageChoice().make(tmp_path)(OneWay()).metrics["accuracy"] == 50.0


def test_a_pair_scorer_gives_what_its_scores_are(tmp_path: Path) -> None:
    data, encoding = queries(tmp_path, bad=1), Encoding(num_workers=0, max_bad_fraction=0.5)
    by_embeddings = TestImageChoice().make(tmp_path, bad=1)(FakeModel())
    together = ImageChoice(data, scored_by="pair_scorer", pair_scorer=FakeScorer(), encoding=encoding)
    result = together(FakeModel())
    assert result.metrics == by_embeddings.metrics and result.meta["pair_scorer"] == "fake"
    assert result.items["margin"][:4] == pytest.approx(by_embeddings.items["margin"][:4])
    assert result.items["margin"][4] is None and result.meta["unreadable"] == 1


def test_wrong_settings_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dataset: got no captions"):
        ImageChoice(CaptionQueries(Images.from_files([]), [], []))
    with pytest.raises(ValueError, match="main_metric: got 'macro'"):
        ImageChoice(queries(tmp_path), main_metric="macro")
    with pytest.raises(ValueError, match="others: got none for 'red'"):
        CaptionQuery("red", 0, (), "color")
