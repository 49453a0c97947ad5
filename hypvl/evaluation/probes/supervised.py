"""Base of the evaluators that learn from a training split: splits, few shots, validation, the report."""

import statistics
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from torch import Tensor

from hypvl.checks import one_of, whole_number_or_none
from hypvl.datasets.protocol import ClassificationSet
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel, Stage
from hypvl.errors import DataError
from hypvl.evaluation.class_metrics import Metric, main_metric, measure
from hypvl.evaluation.labelled_images import (
    Label,
    as_targets,
    classes_of,
    cut_validation,
    few_shot,
    is_multi_label,
    labelled_splits,
)
from hypvl.evaluation.prediction_files import PredictionFiles
from hypvl.evaluation.protocol import EvaluationResult, Evaluator


@dataclass(frozen=True)
class Plan:
    """Images that one seed trains on: positions in the images of the training and validation splits."""

    seed: int
    fit: list[int]  # to train on while settings are chosen
    check: list[int]  # to choose settings by; empty where nothing is chosen or the draw leaves none

    @property
    def both(self) -> list[int]:
        """All of them, ascending: the final classifier is trained on these."""
        return sorted(self.fit + self.check)


@dataclass(frozen=True)
class Run:
    """Result of one seed."""

    probabilities: Tensor  # (N, C) of the test images; rows of unreadable images are not used
    trainable: int  # parameters that were trained
    notes: dict[str, Any]  # the chosen settings and how they were chosen; JSON-serialisable
    warnings: list[str] = field(default_factory=list)  # sentences for the meta of the result


@dataclass(frozen=True)
class Learnt:
    """Results of all seeds."""

    runs: list[Run]  # one per plan
    bad: list[tuple[int, str]]  # (position, reason) of test images that cannot be read
    bad_training: int  # how many training and validation images cannot be read


@dataclass
class SupervisedEvaluator(Evaluator):
    """Trains something on a training split, chooses its settings on a validation split, measures on the test split.

    Each seed predicts the test split once, by the classifier that validation chose. Without shots the validation split
    is ``validation``, or a share cut from each class of ``train``. With shots, training and validation images are both
    drawn from ``train``, and ``validation`` is not used; one shot leaves no validation images, and the subclass says
    which settings are used then.

    Metrics, in percent: those of :func:`hypvl.evaluation.class_metrics.measure` with their chance levels; with several
    seeds the means over the seeds, and ``seed_std``, the sample standard deviation of the main metric. An unreadable
    test image counts as wrong; an unreadable training image is left out. The meta counts both.

    Items, one per test image: ``key``, ``label``, and ``predicted`` (with several seeds ``predicted_seed_<seed>``).

    Args:
        train: Images to learn from.
        test: Images to be measured on.
        validation: Images to choose settings by; None = cut from ``train``.
        validation_fraction: Share of each class to cut, in (0, 1).
        shots: Images of each class to learn from; None = all.
        seeds: Of the draws and of training; one result each.
        metric: The main metric, by which settings are chosen too; None = ``mean_per_class``, for several labels an
            image ``map_11_points``.
        stage: Stage of the model whose output is learnt from.
        predictions: Where to write class probabilities; None = nowhere.

    Raises:
        DataError: when the splits do not have the same classes.
    """

    train: ClassificationSet
    test: ClassificationSet
    _: KW_ONLY
    validation: ClassificationSet | None = None
    validation_fraction: float = 0.2
    shots: int | None = None
    seeds: Sequence[int] = (0,)
    metric: Metric | None = None
    stage: Stage = "trunk"
    predictions: PredictionFiles | None = None

    def __post_init__(self) -> None:
        one_of("stage", self.stage, Stage)
        whole_number_or_none("shots", self.shots, least=1)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: got {list(self.seeds)}; expected different ones, at least one.")
        self._images, self._test_images = labelled_splits(self.train, self.test, self.validation)
        self._classes = list(self.train.classes)
        self._multi_label = is_multi_label(self._images.labels) or is_multi_label(self._test_images.labels)
        self.main_metric = main_metric(self.metric, classes=len(self._classes), multi_label=self._multi_label)

    @property
    def chooses(self) -> bool:
        """Whether settings are chosen, so that validation images are needed."""
        return True

    @abstractmethod
    def learn(self, model: EvaluableModel, encoder: CachedEncoder, plans: Sequence[Plan]) -> Learnt:
        """Train on each plan and predict the test images."""

    def measure(self, model: EvaluableModel, encoder: CachedEncoder) -> EvaluationResult:
        plans = [self._plan(seed) for seed in self.seeds]
        learnt = self.learn(model, encoder, plans)
        missing, runs = [position for position, _ in learnt.bad], learnt.runs
        measured = [measure(run.probabilities, self._test_images.labels, missing=missing) for run in runs]
        if self.main_metric not in measured[0].metrics:
            raise ValueError(
                f"metric: {self.main_metric} is not defined for these labels; expected one of "
                f"{', '.join(measured[0].metrics)}."
            )
        if self.predictions is not None:
            for plan, run in zip(plans, runs, strict=True):
                self.predictions.write(
                    model,
                    run.probabilities,
                    stage=self.stage,
                    missing=missing,
                    shots=-1 if self.shots is None else self.shots,
                    seed=plan.seed,
                    trainable=run.trainable,
                )
        return self._result(plans, learnt, measured)

    def validation_score(self, probabilities: Tensor, labels: Sequence[Label]) -> float:
        """The main metric of predictions for validation images."""
        metrics = measure(probabilities, labels).metrics
        if self.main_metric not in metrics:
            raise DataError(
                f"validation: its {len(labels)} images give no {self.main_metric} (have {', '.join(metrics)}); "
                "choose another metric or more validation images."
            )
        return metrics[self.main_metric]

    def targets(self, labels: Sequence[Label]) -> Tensor:
        """See :func:`hypvl.evaluation.labelled_images.as_targets`."""
        return as_targets(labels, num_classes=len(self._classes), multi_label=self._multi_label)

    def _plan(self, seed: int) -> Plan:
        train = list(range(len(self.train)))
        if self.shots is not None:
            train = few_shot(self._images.labels[: len(self.train)], shots=self.shots, seed=seed)
        elif len(self._images) > len(self.train):
            return Plan(seed, train, list(range(len(self.train), len(self._images))))
        if not self.chooses or (self.shots is not None and not self._can_validate(train)):
            return Plan(seed, train, [])
        return Plan(
            seed, *cut_validation(train, self._images.labels, fraction=self.validation_fraction, seed=seed)
        )

    def _can_validate(self, positions: Sequence[int]) -> bool:
        """Whether some class has two of these images: one to train on, one to validate on."""
        first = [next(iter(classes_of(self._images.labels[i])), -1) for i in positions]
        return len(set(first)) < len(first)

    def _result(
        self, plans: Sequence[Plan], learnt: Learnt, measured: Sequence[EvaluationResult]
    ) -> EvaluationResult:
        runs = learnt.runs
        metrics = {
            name: value
            if name.endswith("_chance")
            else statistics.fmean(one.metrics[name] for one in measured)
            for name, value in measured[0].metrics.items()
        }
        if len(runs) > 1:
            metrics["seed_std"] = statistics.stdev(one.metrics[self.main_metric] for one in measured)
        items: dict[str, list[Any]] = {
            "key": list(self._test_images.keys),
            "label": [
                list(classes_of(label)) if self._multi_label else classes_of(label)[0]
                for label in self._test_images.labels
            ],
        }
        for plan, one in zip(plans, measured, strict=True):
            items["predicted" if len(runs) == 1 else f"predicted_seed_{plan.seed}"] = one.items["predicted"]
        samples = {
            name: [
                statistics.fmean(values)
                for values in zip(*(one.samples[name] for one in measured), strict=True)
            ]
            for name in measured[0].samples
        }
        per_seed = [
            {
                "seed": plan.seed,
                self.main_metric: one.metrics[self.main_metric],
                "train_images": len(plan.fit),
                "validation_images": len(plan.check),
                **run.notes,
            }
            for plan, run, one in zip(plans, runs, measured, strict=True)
        ]
        return EvaluationResult(
            metrics=metrics,
            items=items,
            samples=samples,
            strata=dict(measured[0].strata),
            meta={
                "images": len(self._test_images),
                "classes": self._classes,
                "shots": self.shots,
                "stage": self.stage,
                "unreadable": len(learnt.bad),
                "unreadable_first": [reason for _, reason in learnt.bad[:10]],
                "unreadable_training": learnt.bad_training,
                "trainable_parameters": runs[0].trainable,
                "runs": per_seed,
                "warnings": [text for run in runs for text in run.warnings],
            },
        )
