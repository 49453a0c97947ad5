"""Linear probe: logistic regression on frozen features, its cost chosen on validation images."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from hypvl.allowlist import configurable
from hypvl.checks import one_of
from hypvl.embedding.encode import CachedEncoder
from hypvl.embedding.protocol import EvaluableModel
from hypvl.evaluation.labelled_images import Label, LabelledFeatures, encode_labelled
from hypvl.evaluation.probes.logistic import LogisticModels, LogisticPath, Precision
from hypvl.evaluation.probes.supervised import Learnt, Plan, Run, SupervisedEvaluator
from hypvl.evaluation.probes.sweep import COARSE_GRID, SweepResult, halving_search

Normalization = Literal["none", "l2", "standard"]


@configurable("evaluate")
@dataclass
class LinearProbe(SupervisedEvaluator):
    """Accuracy of a linear classifier on a model's image features.

    Images are resized (shorter side, bicubic), cropped in the centre and encoded once. L2-regularised multinomial
    logistic regression is fitted on the training part along a path of costs
    (:class:`~hypvl.evaluation.probes.logistic.LogisticPath`): a grid, then ``halvings`` halvings of the interval around
    the cost with the best metric on the validation part (the lowest of equal ones). The final classifier is fitted with
    that cost on both parts. With several labels an image each class is a binary problem.

    ``meta["runs"]`` has, of each seed, the chosen cost, the validation scores by cost and the last state of the solver;
    ``meta["warnings"]`` names costs whose fit did not converge.

    Args: those of :class:`~hypvl.evaluation.probes.supervised.SupervisedEvaluator`, and
        costs: Grid of inverse strengths of the penalty; the middle one is used where one shot leaves no validation
            images.
        halvings: How often the interval is halved.
        normalize: ``none``; ``l2``, unit length; ``standard``, mean 0 and variance 1 over the training part.
        tolerance: Of the solver, see :class:`hypvl.evaluation.probes.logistic.LogisticPath`.
        max_iterations: Of the solver, for each cost.
        precision: Of the solver; ``"mixed"`` is fp32 as far as it converges, then fp64.

    Source: Radford et al. 2021 (arXiv 2103.00020), appendix A.3; Desai et al. 2023 (arXiv 2304.09172).
    """

    _: KW_ONLY
    costs: Sequence[float] = COARSE_GRID
    halvings: int = 4
    normalize: Normalization = "none"
    tolerance: float = 5e-4
    max_iterations: int = 1000
    precision: Precision = "mixed"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("normalize", self.normalize, Normalization)
        one_of("precision", self.precision, Precision)
        self.costs = [float(cost) for cost in self.costs]

    def learn(self, model: EvaluableModel, encoder: CachedEncoder, plans: Sequence[Plan]) -> Learnt:
        """Encode the images of all seeds once; search, fit and predict for each seed."""
        positions = sorted({i for plan in plans for i in plan.both})
        train = encode_labelled(encoder, self._images, positions, stage=self.stage, label="training images")
        test = encode_labelled(encoder, self._test_images, stage=self.stage, label="test images")
        runs = [self._probe(train, test, plan) for plan in plans]
        return Learnt(runs, bad=test.bad, bad_training=len(train.bad))

    def _probe(self, train: LabelledFeatures, test: LabelledFeatures, plan: Plan) -> Run:
        fit, fit_labels = train.of(plan.fit)
        normalized = _normalizer(fit, self.normalize)
        path = self._path(normalized(fit), fit_labels)
        fitted: list[LogisticModels] = []
        warnings: list[str] = []

        def score(costs: Sequence[float]) -> list[float]:
            models = path.fit(costs)
            fitted.append(models)
            return [
                self.validation_score(models.probabilities(check, k), check_labels) for k in range(len(costs))
            ]

        if plan.check:
            check, check_labels = train.of(plan.check)
            check = normalized(check)
            chosen = halving_search(score, self.costs, halvings=self.halvings)
        else:
            chosen = SweepResult(sorted(self.costs)[len(self.costs) // 2], {})
            warnings.append(
                f"seed {plan.seed}: there is no image to choose the cost by; it is {chosen.best:g}, the grid's middle."
            )
        both, both_labels = train.of(plan.both)
        normalized = _normalizer(both, self.normalize)
        last = self._path(normalized(both), both_labels)
        for models in fitted:
            last.warm_start(models)
        final = last.fit([chosen.best])
        probabilities = torch.zeros(len(self._test_images), len(self._classes), dtype=torch.float64)
        rows = normalized(test.features)
        probabilities[test.positions] = final.probabilities(rows, 0).double()
        return Run(
            probabilities,
            trainable=len(self._classes) * (rows.shape[1] + 1),
            notes={
                "cost": chosen.best,
                "validation_scores": [[cost, value] for cost, value in chosen.scores.items()],
                "solver": {
                    "iterations": final.iterations[0],
                    "gradient_norm": final.gradient_norm[0],
                    "passes_of_the_search": sum(models.evaluations for models in fitted),
                },
            },
            warnings=warnings + _warnings([*fitted, final], plan.seed, self.tolerance),
        )

    def _path(self, rows: Tensor, labels: Sequence[Label]) -> LogisticPath:
        return LogisticPath(
            rows,
            self.targets(labels),
            num_classes=len(self._classes),
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            precision=self.precision,
        )


def _normalizer(rows: Tensor, normalize: Normalization) -> Callable[[Tensor], Tensor]:
    """The normalisation of features, ``standard`` by the statistics of these rows."""
    if normalize == "none":
        return lambda features: features
    if normalize == "l2":
        return partial(torch.nn.functional.normalize, dim=1)
    wide = rows.double()
    mean, scale = wide.mean(dim=0), (wide.var(dim=0, correction=0) + 1e-5).rsqrt()  # as batch normalisation
    return lambda features: (features - mean) * scale


def _warnings(fitted: Sequence[LogisticModels], seed: int, tolerance: float) -> list[str]:
    lost = [
        f"{cost:g} (gradient {norm:.1e})"
        for models in fitted
        for cost, done, norm in zip(models.costs, models.converged, models.gradient_norm, strict=True)
        if not done
    ]
    message = (
        f"seed {seed}: the solver did not get within tolerance {tolerance:g} for cost {', '.join(lost)}; "
        "raise max_iterations."
    )
    return [message] if lost else []
