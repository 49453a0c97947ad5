from pathlib import Path

import pytest
from torch import Tensor

from hypvl.datasets.composition.choices import Paraphrase, Paraphrases
from hypvl.datasets.images import Images
from hypvl.embedding.encode import Encoding
from hypvl.evaluation.paraphrase_choice import ParaphraseChoice
from hypvl.evaluation.protocol import Evaluator
from tests.evaluation.contract import EvaluatorContract
from tests.evaluation.fakes import GREEN, RED, FakeModel, FakeTokenizer, broken, image
from tests.evaluation.test_reranking import FakeScorer


class TextsToo(FakeModel):
    """Scores texts against texts as well."""

    def scores(self, query: Tensor, key: Tensor, *, query_modality: str, key_modality: str) -> Tensor:
        return query @ key.T


def paraphrases(folder: Path, *, bad: int = 0) -> Paraphrases:
    paths = [image(folder / f"{i}.png", color) for i, color in enumerate((RED, GREEN, RED, GREEN))]
    paths += [broken(folder / f"{4 + i}.png") for i in range(bad)]
    asked = [
        Paraphrase(0, ("a red dog", "red is the dog"), "a green dog", "swap"),  # both right
        Paraphrase(1, ("green", "a blue hat"), "a red hat", "swap"),  # ITT: the paraphrase ties with the foil
        Paraphrase(2, ("a red hat", "red hat"), "green hat", "replace"),  # both right
        Paraphrase(3, ("a green and red hat", "green"), "a red hat", "replace"),  # TOT: a tie
        *(Paraphrase(i, ("red", "green"), "blue", "swap") for i in range(4, 4 + bad)),  # TOT: a tie
    ]
    return Paraphrases(Images.from_files(paths), asked, [path.stem for path in paths])


class TestParaphraseChoice(EvaluatorContract):
    evaluator_class = ParaphraseChoice

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        return ParaphraseChoice(paraphrases(folder, bad=bad), encoding=encoding, tokenizer=FakeTokenizer())

    def model(self) -> FakeModel:
        return TextsToo()


def test_both_accuracies_by_hand(tmp_path: Path) -> None:
    result = TestParaphraseChoice().make(tmp_path)(TextsToo())
    shown = {name: value for name, value in result.metrics.items() if not name.endswith("_chance")}
    assert shown == {
        "itt_accuracy": 75.0,
        "itt_macro_accuracy": 75.0,
        "itt_accuracy_swap": 50.0,
        "itt_accuracy_replace": 100.0,
        "tot_accuracy": 50.0,
        "tot_macro_accuracy": 50.0,
        "tot_accuracy_swap": 50.0,
        "tot_accuracy_replace": 50.0,
    }
    assert result.items["itt_margin"] == pytest.approx([1.0, 0.0, 1.0, 1.0])
    assert result.items["tot_margin"] == pytest.approx([1.0, 0.0, 1.0, 0.0])
    assert result.metrics["itt_accuracy_chance"] == pytest.approx(100 / 3)


def test_a_pair_scorer_scores_images_and_captions_together(tmp_path: Path) -> None:
    by_embeddings = TestParaphraseChoice().make(tmp_path, bad=1)(TextsToo())
    result = ParaphraseChoice(
        paraphrases(tmp_path, bad=1),
        scored_by="pair_scorer",
        pair_scorer=FakeScorer(),
        encoding=Encoding(num_workers=0, max_bad_fraction=0.5),
        tokenizer=FakeTokenizer(),
    )(TextsToo())
    assert result.metrics == by_embeddings.metrics and result.meta["pair_scorer"] == "fake"
    assert result.items["itt_margin"][4] is None and result.meta["unreadable"] == 1


def test_no_paraphrases_are_an_error() -> None:
    with pytest.raises(ValueError, match="dataset: got no paraphrases"):
        ParaphraseChoice(Paraphrases(Images.from_files([]), [], []))
