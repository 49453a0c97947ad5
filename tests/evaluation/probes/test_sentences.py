"""Logistic regression on sentences whose classes are known."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hypvl.datasets.text.senteval import LabelledSentences, SentenceTask, senteval_task
from hypvl.embedding.encode import Encoding
from hypvl.errors import DataError
from hypvl.evaluation.probes.sentences import SentenceClassification
from hypvl.evaluation.protocol import Evaluator
from tests.evaluation.miniatures import senteval_tasks
from tests.evaluation.texts import Rows, TextEvaluatorContract, TextModel


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("senteval")
    senteval_tasks.make(folder)
    return folder / "senteval"


class TestSentenceClassification(TextEvaluatorContract):
    evaluator_class = SentenceClassification

    def build(self, folder: Path, *, encoding: Encoding, bad: int) -> Evaluator:
        senteval_tasks.make(folder)
        task = senteval_task(folder / "senteval", name="cr")
        return SentenceClassification(task, folds=2, costs=[1.0, 4.0], encoding=encoding)


@pytest.mark.parametrize("name", ["mr", "sst2", "trec"])
def test_what_colours_tell_apart_is_learnt(root: Path, name: str) -> None:
    task = senteval_task(root, name=name)  # type: ignore[arg-type]
    result = SentenceClassification(task, folds=2, costs=[1.0, 1e3])(TextModel())
    assert result.metrics["accuracy"] == 100.0
    assert result.metrics["accuracy_chance"] == pytest.approx(100 / len(task.classes))
    assert ("fold" in result.items) == (name == "mr") and len(result.meta["costs"]) == (
        2 if name == "mr" else 1
    )
    assert "f1" not in result.metrics and "warnings" not in result.meta


def test_pairs_are_compared(root: Path) -> None:
    result = SentenceClassification(senteval_task(root, name="mrpc"), folds=2)(TextModel())
    # |u - v| is 0 of equal colours.
    assert result.metrics["accuracy"] == result.metrics["f1"] == 100.0 and result.meta["majority"] == 50.0


def test_equals_scikit_learn_in_nested_folds() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 2
    rows = torch.randn(60, 4, generator=generator, dtype=torch.float64) + 0.7 * labels[:, None]
    task = SentenceTask(
        "x", ("a", "b"), LabelledSentences([str(i) for i in range(60)], None, labels.tolist())
    )
    result = SentenceClassification(task, folds=3, costs=[0.01, 0.1, 1.0], seed=5)(Rows(rows))  # type: ignore[arg-type]
    x, y = rows.numpy(), labels.numpy()
    folds = StratifiedKFold(3, shuffle=True, random_state=5)
    accuracies, costs = [], []
    for rest, held_out in folds.split(x, y):
        scores = [
            cross_val_score(LogisticRegression(C=c, tol=1e-10), x[rest], y[rest], cv=folds).mean()
            for c in (0.01, 0.1, 1.0)
        ]
        costs.append((0.01, 0.1, 1.0)[int(np.argmax(scores))])
        best = LogisticRegression(C=costs[-1], tol=1e-10).fit(x[rest], y[rest])
        accuracies.append(100 * best.score(x[held_out], y[held_out]))
    assert result.meta["costs"] == costs
    assert result.metrics["accuracy"] == pytest.approx(np.mean(accuracies))
    assert sorted(result.items["fold"]) == [0] * 20 + [1] * 20 + [2] * 20


def test_dev_chooses_and_is_not_fitted_on() -> None:
    # The training split says "positive x is class 1"; dev and test have the opposite, so that no cost helps.
    rows = torch.tensor([[1.0], [-1.0], [2.0], [-2.0]], dtype=torch.float64)
    train = LabelledSentences(["0", "1"], None, [1, 0])
    other = LabelledSentences(["2", "3"], None, [0, 1])
    metrics = SentenceClassification(SentenceTask("x", ("a", "b"), train, other, other))(Rows(rows)).metrics  # type: ignore[arg-type]
    assert metrics["accuracy"] == 0.0


def test_wrong_settings(root: Path) -> None:
    task = senteval_task(root, name="mr")
    with pytest.raises(DataError, match="mr: a class has 6 sentences to make 10 folds of"):
        SentenceClassification(task)(TextModel())
    with pytest.raises(ValueError, match="costs: got 0"):
        SentenceClassification(task, costs=[0.0])
    with pytest.raises(ValueError, match="folds: got 1"):
        SentenceClassification(task, folds=1)
