"""Classification of sentences by logistic regression on frozen features, in the manner of SentEval."""

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import number, one_of, whole_number
from hypvl.datasets.protocol import check_set
from hypvl.datasets.text.senteval import LabelledSentences, SentenceTask
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel, Stage
from hypvl.errors import DataError
from hypvl.evaluation.labelled_images import check_features
from hypvl.evaluation.probes.logistic import LogisticModels, LogisticPath
from hypvl.evaluation.protocol import EvaluationResult, Evaluator
from hypvl.metrics.classification import f1
from hypvl.metrics.ranking import accuracy_chance

#: Inverse strengths of the penalty that SentEval searches with scikit-learn.
COSTS: tuple[float, ...] = tuple(2.0**exponent for exponent in range(-2, 4))


@dataclass
class _Fitted:
    """Predictions of the items that one classifier was tested on, and how it came about."""

    items: list[int]
    predicted: list[int]
    cost: float
    scores: list[float] = field(default_factory=list)  # accuracy on the inner folds or dev, by cost
    not_converged: int = 0


@configurable("evaluate")
@dataclass
class SentenceClassification(Evaluator):
    """Accuracy of L2-regularised logistic regression on the features of sentences.

    The cost C is chosen by accuracy, the lowest of equal ones:

    - a task without splits: ``folds`` outer folds are tested one after the other; C is chosen by ``folds`` inner folds
      of the rest, on which the classifier is then fitted;
    - with a test split: C is chosen by ``folds`` folds of the training split;
    - with a dev split too: C is chosen on dev, and the classifier is fitted on the training split alone.

    Folds have the same share of each class, drawn by ``seed``. Of a pair with features u and v the classifier sees
    |u - v| and u * v.

    Metrics, in percent: ``accuracy`` (without splits the mean over folds) with its chance, 100 / C classes; of pairs
    also ``f1`` of class 1. ``meta["majority"]`` is the share of the most frequent class.

    Items, one per tested sentence: ``label``, ``predicted``, and without splits ``fold``.

    Args:
        folds: Number of folds.
        costs: Inverse strengths of the penalty; scikit-learn's C.
        seed: Of the folds.
        stage: Stage of the model whose output is classified. ``features`` are flat, also of a hyperbolic model.

    Raises:
        DataError: when a class has fewer sentences than there are folds.

    Source: SentEval (Conneau and Kiela 2018, arXiv 1803.05449): its scikit-learn classifier and grid.
    Differs: features are not standardised there either, but the solver here runs to the optimum
        (:class:`~hypvl.evaluation.probes.logistic.LogisticPath`).
    """

    task: SentenceTask
    _: KW_ONLY
    folds: int = 10
    costs: Sequence[float] = COSTS
    seed: int = 1111
    stage: Stage = "features"

    main_metric = "accuracy"

    def __post_init__(self) -> None:
        one_of("stage", self.stage, Stage)
        whole_number("folds", self.folds, least=2)
        whole_number("seed", self.seed, least=0)
        if not self.costs:
            raise ValueError("costs: got none; expected at least one positive number.")
        self.costs = sorted(number("costs", cost, above=0) for cost in self.costs)
        check_set(self.task, SentenceTask, name="task")

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        task = self.task
        train = self._features(encoder, task.train)
        labels = torch.tensor(task.train.labels)
        tested = task.train if task.test is None else task.test
        if task.test is None:
            fitted = []
            for rest, held_out in self._folds(labels):
                cost, scores, lost = self._choose(train[rest], labels[rest])
                fitted.append(
                    self._fit(
                        train[rest], labels[rest], train[held_out], held_out.tolist(), cost, scores, lost
                    )
                )
        else:
            if task.dev is None:
                cost, scores, lost = self._choose(train, labels)
            else:
                dev, dev_labels = self._features(encoder, task.dev), torch.tensor(task.dev.labels)
                cost, scores, lost = self._best([self._scores(train, labels, dev, dev_labels, None)])
            test = self._features(encoder, task.test)
            fitted = [self._fit(train, labels, test, list(range(len(test))), cost, scores, lost)]
        return self._result(tested, fitted)

    def _features(self, encoder: CachedEncoder, sentences: LabelledSentences) -> Tensor:
        """(N, W), of pairs (N, 2 W), on the model's device."""
        texts = list(dict.fromkeys([*sentences.first, *(sentences.second or ())]))
        rows = encoder.encode_texts(texts, stage=self.stage, label=self.task.name)
        check_features(rows)
        rows = rows.to(next((p.device for p in encoder.model.parameters()), torch.device("cpu")))
        place = {text: i for i, text in enumerate(texts)}
        first = rows[[place[text] for text in sentences.first]]
        if sentences.second is None:
            return first
        second = rows[[place[text] for text in sentences.second]]
        return torch.cat([(first - second).abs(), first * second], dim=1)

    def _folds(self, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """(positions to fit on, positions held out) of each fold."""
        from sklearn.model_selection import StratifiedKFold

        counts = labels.bincount()
        fewest = int(counts[counts > 0].min())
        if fewest < self.folds:
            raise DataError(
                f"{self.task.name}: a class has {fewest} sentences to make {self.folds} folds of; expected at least "
                "one in each; set folds lower."
            )
        splitter = StratifiedKFold(n_splits=self.folds, shuffle=True, random_state=self.seed)
        for rest, held_out in splitter.split(labels.numpy(), labels.numpy()):
            yield torch.from_numpy(rest), torch.from_numpy(held_out)

    def _choose(self, features: Tensor, labels: Tensor) -> tuple[float, list[float], int]:
        """The cost that is best over the folds of some items."""
        rounds: list[tuple[list[float], LogisticModels]] = []
        for rest, held_out in self._folds(labels):
            start = rounds[-1][1] if rounds else None
            rounds.append(
                self._scores(features[rest], labels[rest], features[held_out], labels[held_out], start)
            )
        return self._best(rounds)

    def _scores(
        self,
        features: Tensor,
        labels: Tensor,
        check: Tensor,
        check_labels: Tensor,
        start: LogisticModels | None,
    ) -> tuple[list[float], LogisticModels]:
        """Accuracy on some items by each cost, and the classifiers, which may start from those of another fold."""
        path = self._path(features, labels)
        if start is not None:
            path.warm_start(start)
        models = path.fit(self.costs)
        predicted = [models.probabilities(check, k).argmax(1) for k in range(len(self.costs))]
        return [100.0 * float((row == check_labels).double().mean()) for row in predicted], models

    def _best(self, rounds: Sequence[tuple[list[float], LogisticModels]]) -> tuple[float, list[float], int]:
        scores = [fmean(values) for values in zip(*(own for own, _ in rounds), strict=True)]
        lost = sum(not done for _, models in rounds for done in models.converged)
        return self.costs[max(range(len(scores)), key=lambda k: (scores[k], -k))], scores, lost

    def _fit(
        self,
        features: Tensor,
        labels: Tensor,
        test: Tensor,
        items: list[int],
        cost: float,
        scores: list[float],
        lost: int,
    ) -> _Fitted:
        models = self._path(features, labels).fit([cost])
        lost += not models.converged[0]
        return _Fitted(items, models.probabilities(test, 0).argmax(1).tolist(), cost, scores, lost)

    def _path(self, features: Tensor, labels: Tensor) -> LogisticPath:
        return LogisticPath(features, labels, num_classes=len(self.task.classes))

    def _result(self, tested: LabelledSentences, fitted: Sequence[_Fitted]) -> EvaluationResult:
        labels = list(tested.labels)
        predicted, fold = [0] * len(labels), [0] * len(labels)
        for number_, own in enumerate(fitted):
            for item, guess in zip(own.items, own.predicted, strict=True):
                predicted[item], fold[item] = guess, number_
        items: dict[str, list[Any]] = {"label": labels, "predicted": predicted}
        if len(fitted) > 1:
            items["fold"] = fold
        majority = max(labels.count(c) for c in set(labels))
        meta: dict[str, Any] = {
            "sentences": len(labels),
            "training_sentences": len(self.task.train.labels),
            "classes": list(self.task.classes),
            "majority": 100.0 * majority / len(labels),
            "stage": self.stage,
            "costs": [own.cost for own in fitted],
            "scores_by_cost": [dict(zip(map(str, self.costs), own.scores, strict=True)) for own in fitted],
        }
        if lost := sum(own.not_converged for own in fitted):
            meta["warnings"] = [f"{lost} of the fitted classifiers are not within the solver's tolerance."]
        result = EvaluationResult(items=items, meta=meta)
        hits = [[100.0 * (predicted[item] == labels[item]) for item in own.items] for own in fitted]
        result.add_mean("accuracy", *hits, chance=accuracy_chance(len(self.task.classes)))
        if tested.second is not None:
            result.metrics["f1"] = f1(predicted, labels)
        return result
