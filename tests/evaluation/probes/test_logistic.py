"""The probe's solver against scikit-learn, and by hand."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hypvl.errors import UserError
from hypvl.evaluation.probes.logistic import LogisticModels, LogisticPath, Precision, _softmax

COSTS = [1e-4, 1e-2, 1.0, 1e3]


def problem(
    count: int, dim: int, classes: int, *, seed: int, apart: float, scale: np.ndarray | float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    centres = draws.normal(size=(classes, dim)) * apart
    labels = draws.integers(0, classes, count)
    return (centres[labels] + draws.normal(size=(count, dim))) * scale + 3 * scale, labels


PROBLEMS = {
    "badly scaled": problem(150, 6, 3, seed=0, apart=0.5, scale=np.logspace(-3, 3, 6)),
    "separable": problem(200, 5, 3, seed=1, apart=6.0),
    "15 classes": problem(500, 10, 15, seed=2, apart=0.7),
    "two classes": problem(200, 6, 2, seed=3, apart=0.4),
    "more features than rows": problem(40, 90, 4, seed=4, apart=0.2),
}


def fit(features: Tensor, targets: Tensor, *, costs: Sequence[float], **settings: Any) -> LogisticModels:
    return LogisticPath(features, targets, **settings).fit(costs)


def centred(weight: np.ndarray) -> np.ndarray:
    """Softmax rows up to what all have in common; two rows as their difference."""
    return weight[1:] - weight[:1] if len(weight) == 2 else weight - weight.mean(axis=0)


@pytest.mark.parametrize("name", PROBLEMS)
def test_optimum_of_scikit_learn(name: str) -> None:
    from sklearn.linear_model import LogisticRegression

    features, labels = PROBLEMS[name]
    classes = int(labels.max()) + 1
    models = fit(
        torch.tensor(features), torch.tensor(labels), costs=COSTS, num_classes=classes, tolerance=1e-8
    )
    assert all(models.converged)
    for k, cost in enumerate(COSTS):
        # Its solver that gets near the optimum of a badly scaled problem; lbfgs ends far from it.
        theirs = LogisticRegression(C=cost, solver="newton-cg", tol=1e-11, max_iter=10_000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its line search at the last digits
            theirs.fit(features, labels)
        ours = models.probabilities(torch.tensor(features), k)
        theirs_right = 100 * (theirs.predict(features) == labels).mean()
        assert abs(100 * (ours.argmax(dim=1).numpy() == labels).mean() - theirs_right) <= 0.1
        # Where classes are apart and the cost is high the optimum is flat: both end within a hair of its value,
        # and their coefficients within a thousandth.
        expected = theirs.coef_ if classes == 2 else centred(theirs.coef_)
        tolerance = 1e-6 if cost <= 1 else 5e-3
        atol = tolerance * np.abs(expected).max()
        np.testing.assert_allclose(centred(models.weight[k].numpy()), expected, atol=atol, rtol=0)
        np.testing.assert_allclose(ours.numpy(), theirs.predict_proba(features), atol=2e-4)


def test_the_default_tolerance_predicts_the_same() -> None:
    for features, labels in PROBLEMS.values():
        rows, targets = torch.tensor(features), torch.tensor(labels)
        classes = int(targets.max()) + 1
        loose = fit(rows, targets, costs=COSTS, num_classes=classes)
        tight = fit(rows, targets, costs=COSTS, num_classes=classes, tolerance=1e-9)
        for k in range(len(COSTS)):
            a, b = loose.probabilities(rows, k), tight.probabilities(rows, k)
            assert (a.argmax(dim=1) != b.argmax(dim=1)).sum() == 0
        assert loose.evaluations < tight.evaluations


@pytest.mark.parametrize("precision", ["mixed", "fp64"])
@pytest.mark.parametrize(("size", "cost"), [(1.0, 1e6), (1e4, 1e6), (1e6, 1e6)])
def test_converged_fits_are_optima_where_classes_are_apart(
    size: float, cost: float, precision: Precision
) -> None:
    """Value and gradient vanish with the size of the features: the two parts of the gradient have to cancel."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    features = size * (torch.randn(90, 30, generator=generator) + 2 * torch.eye(30)[labels]).double()
    models = fit(features, labels, costs=[cost], num_classes=3, precision=precision)
    assert models.converged == (True,)
    residual = models.probabilities(features, 0) - torch.eye(3, dtype=torch.float64)[labels]
    residual[range(90), labels] = -residual.clamp(min=0).sum(1)  # 1 - p, with its digits
    pull, penalty = residual.mT @ features, models.weight[0] / cost
    assert float((pull + penalty).norm()) <= 0.05 * float(penalty.norm())


def test_two_points_by_hand() -> None:
    """x = -1 and +1: w solves w = 2 c sigmoid(-w), and the intercept is 0."""
    features, labels = torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1])
    models = fit(features, labels, costs=[0.5, 3.0], num_classes=2, tolerance=1e-12)
    for k, cost in enumerate((0.5, 3.0)):
        w = float(models.weight[k, 1, 0] - models.weight[k, 0, 0])
        assert w == pytest.approx(2 * cost / (1 + math.exp(w)), abs=1e-9)
        assert models.bias[k].tolist() == pytest.approx([0.0, 0.0], abs=1e-9)


def test_small_costs_give_the_shares_of_the_classes() -> None:
    """All that is left is the intercept, which is not penalised."""
    features = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    models = fit(features, labels, costs=[1e-9], num_classes=3, tolerance=1e-9)
    shares = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).expand(8, 3)
    torch.testing.assert_close(models.probabilities(features, 0), shares, atol=1e-6, rtol=0)


def test_several_labels_an_item_are_binary_problems_each() -> None:
    from sklearn.linear_model import LogisticRegression

    draws = np.random.default_rng(5)
    features = draws.normal(size=(150, 4))
    labels = (features @ draws.normal(size=(4, 3)) + draws.normal(size=(150, 3)) > 0).astype(int)
    models = fit(
        torch.tensor(features), torch.tensor(labels), costs=[0.1, 10.0], num_classes=3, tolerance=1e-9
    )
    assert models.independent
    for k, cost in enumerate((0.1, 10.0)):
        for c in range(3):
            theirs = LogisticRegression(C=cost, tol=1e-10, max_iter=5000).fit(features, labels[:, c])
            np.testing.assert_allclose(models.weight[k, c].numpy(), theirs.coef_[0], atol=1e-5)
            ours = models.probabilities(torch.tensor(features), k)[:, c]
            np.testing.assert_allclose(ours.numpy(), theirs.predict_proba(features)[:, 1], atol=1e-5)


def test_classes_without_items_have_probability_zero() -> None:
    features, labels = torch.tensor([[-1.0], [1.0], [1.5]]), torch.tensor([1, 3, 3])
    models = fit(features, labels, costs=[1.0], num_classes=5)
    rows = models.probabilities(features, 0)
    assert rows[:, [0, 2, 4]].eq(0).all() and rows.argmax(dim=1).tolist() == [1, 3, 3]
    several = torch.tensor([[1, 0, 1], [1, 0, 0], [1, 0, 0]])
    rows = fit(features, several, costs=[1.0], num_classes=3).probabilities(features, 0)
    assert rows[:, 0].eq(1).all() and rows[:, 1].eq(0).all() and rows[0, 2] > 0.5 > rows[1, 2]


def test_order_is_right_where_all_weights_are_nearly_zero() -> None:
    """At the strongest penalty the classifier is the difference of means, whatever the size of the features."""
    draws = np.random.default_rng(6)
    features = torch.tensor(draws.normal(size=(40, 5))) * 1e-3
    labels = torch.arange(40) % 2
    models = fit(features, labels, costs=[1e-8], num_classes=2)
    means = [features[labels == c].mean(dim=0) for c in (0, 1)]
    direction = means[1] - means[0]
    result = models.weight[0, 1] - models.weight[0, 0]
    torch.testing.assert_close(result / result.norm(), direction / direction.norm(), atol=1e-6, rtol=0)


def test_a_single_class_is_not_an_error() -> None:
    rows = fit(torch.ones(3, 2), torch.tensor([1, 1, 1]), costs=[1.0, 9.0], num_classes=2)
    assert rows.probabilities(torch.randn(4, 2), 1).tolist() == [[0.0, 1.0]] * 4


def path(name: str, tolerance: float = 1e-8) -> LogisticPath:
    features, labels = (torch.tensor(a) for a in PROBLEMS[name])
    return LogisticPath(features, labels, num_classes=int(labels.max()) + 1, tolerance=tolerance)


@pytest.mark.parametrize("name", ["badly scaled", "15 classes", "more features than rows"])
def test_neighbours_on_the_path_save_passes_and_give_the_same_optimum(name: str) -> None:
    known = path(name)
    first = known.fit([1e-2, 1.0])
    again = known.fit([1.0])
    assert again.evaluations <= 2  # there already
    torch.testing.assert_close(again.weight[0], first.weight[1])
    features = torch.tensor(PROBLEMS[name][0])
    for cost in (0.3, 2.0):  # between, and beyond
        cold, warm = path(name).fit([cost]), known.fit([cost])
        assert warm.evaluations <= cold.evaluations + 1
        torch.testing.assert_close(
            warm.probabilities(features, 0), cold.probabilities(features, 0), atol=1e-6, rtol=0
        )


def test_halvings_cost_less_than_half_of_cold_starts() -> None:
    halvings = [[0.1, 10.0], [10**0.5, 10**1.5], [10**0.25, 10**0.75]]
    warm, cold = [0, 0, 0], 0
    for name in ("15 classes", "more features than rows"):
        solved = path(name, 5e-4)
        solved.fit([1e-2, 1.0, 1e2])
        for i, costs in enumerate(halvings):
            warm[i] += solved.fit(costs).evaluations
            cold += sum(path(name, 5e-4).fit([c]).evaluations for c in costs)
    assert sum(warm) < 0.5 * cold
    assert warm[2] < warm[0]  # the closer the neighbours, the fewer


def test_classifiers_of_other_data_are_a_warm_start() -> None:
    """Those of four fifths of the rows, for all of them."""
    features, labels = (torch.tensor(a) for a in PROBLEMS["15 classes"])
    part = LogisticPath(features[:400], labels[:400], num_classes=15).fit([0.1, 1.0])
    whole = LogisticPath(features, labels, num_classes=15, tolerance=1e-8)
    cold = whole.fit([1.0])
    begun = LogisticPath(features, labels, num_classes=15, tolerance=1e-8)
    begun.warm_start(part)
    warm = begun.fit([1.0])
    torch.testing.assert_close(warm.weight, cold.weight, atol=1e-5, rtol=0)
    assert warm.evaluations <= cold.evaluations
    own = LogisticPath(features, labels, num_classes=15, tolerance=1e-8)
    own.warm_start(cold)
    assert own.fit([1.0]).evaluations <= 4  # through the axes and back: there already


def test_an_unknown_class_starts_at_zero() -> None:
    rows = torch.tensor([[-1.0], [1.0], [3.0]])
    two = fit(rows[:2], torch.tensor([0, 1]), costs=[1.0], num_classes=3)
    assert two.bias[0, 2] == -math.inf
    three = LogisticPath(rows, torch.tensor([0, 1, 2]), num_classes=3, tolerance=1e-9)
    three.warm_start(two)
    cold = fit(rows, torch.tensor([0, 1, 2]), costs=[1.0], num_classes=3, tolerance=1e-9)
    torch.testing.assert_close(three.fit([1.0]).weight, cold.weight, atol=1e-7, rtol=0)


def test_costs_keep_their_order_and_repetitions() -> None:
    models = path("15 classes").fit([1.0, 1e-2, 1.0])
    assert models.costs == (1.0, 1e-2, 1.0)
    assert torch.equal(models.weight[0], models.weight[2])
    assert models.weight[0].norm() > models.weight[1].norm()  # less penalty


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_and_derivatives_are_accurate_where_classes_are_far_apart(dtype: torch.dtype) -> None:
    """At 30 and at 200 apart, where a softmax rounds to 1, and where the right class is the one that is lost."""
    logits = torch.tensor([[30.0, 0.0], [0.0, 200.0], [0.5, 0.0]], dtype=dtype)
    losses, residual = _softmax(logits.clone(), torch.tensor([[0], [0], [1]]))
    expected = [math.log1p(math.exp(-30)), 200.0, math.log1p(math.exp(0.5))]
    torch.testing.assert_close(
        losses[:, 0].double(), torch.tensor(expected, dtype=torch.float64), rtol=3e-7, atol=0
    )
    pull = math.exp(-30) / (1 + math.exp(-30))
    torch.testing.assert_close(
        residual[0].double(), torch.tensor([-pull, pull], dtype=torch.float64), rtol=3e-7, atol=0
    )
    torch.testing.assert_close(residual.sum(dim=1), torch.zeros(3, dtype=dtype), rtol=0, atol=1e-7)


def test_single_precision_reaches_the_default_tolerance_and_says_when_it_fails() -> None:
    features, labels = (torch.tensor(a) for a in PROBLEMS["15 classes"])
    exact = fit(features, labels, costs=COSTS, num_classes=15)
    short = fit(features, labels, costs=COSTS, num_classes=15, precision="fp32")
    assert all(short.converged)
    for k in range(len(COSTS)):
        torch.testing.assert_close(
            short.probabilities(features, k).double(), exact.probabilities(features, k), atol=2e-3, rtol=0
        )
    hopeless = fit(
        features, labels, costs=[1.0], num_classes=15, precision="fp32", tolerance=1e-12, max_iterations=60
    )
    assert hopeless.converged == (False,) and 1e-12 < hopeless.gradient_norm[0] < 1e-3


def test_mixed_precision_continues_in_double_where_single_ends() -> None:
    features, labels = (torch.tensor(a) for a in PROBLEMS["15 classes"])
    tight = [
        fit(features, labels, costs=[1.0], num_classes=15, tolerance=1e-9, precision=precision)
        for precision in ("mixed", "fp64", "fp32")
    ]
    assert [models.converged for models in tight] == [(True,), (True,), (False,)]
    torch.testing.assert_close(tight[0].weight, tight[1].weight, atol=1e-7, rtol=0)


def test_blocks_of_rows_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = path("15 classes").fit(
        COSTS
    )  # at 1e-6 the solver may stop 6e-5 away, which depends on the processor
    for name, value in (("_BLOCK_ELEMENTS", 15 * 64), ("_BLOCK_ROWS", 1), ("_PREPARE_ROWS", 70)):
        monkeypatch.setattr(f"hypvl.evaluation.probes.logistic.{name}", value)
    torch.testing.assert_close(path("15 classes").fit(COSTS).weight, whole.weight, atol=2e-5, rtol=0)


def test_a_solver_that_cannot_converge_ends_after_the_given_iterations() -> None:
    models = LogisticPath(
        *(torch.tensor(a) for a in PROBLEMS["15 classes"]), num_classes=15, max_iterations=3
    ).fit([1e3])
    assert models.iterations == (3,) and models.converged == (False,)


def test_wrong_input() -> None:
    rows = torch.zeros(4, 2)
    with pytest.raises(ValueError, match="costs: got"):
        fit(rows, torch.zeros(4, dtype=torch.int64), costs=[0.0], num_classes=2)
    with pytest.raises(ValueError, match="below num_classes=2"):
        fit(rows, torch.tensor([0, 1, 2, 0]), costs=[1.0], num_classes=2)
    with pytest.raises(ValueError, match=r"expected 0 and 1, \(4, 3\)"):
        fit(rows, torch.zeros(4, 2), costs=[1.0], num_classes=3)
    with pytest.raises(ValueError, match="a target for each row"):
        fit(rows, torch.zeros(3, dtype=torch.int64), costs=[1.0], num_classes=2)
    with pytest.raises(ValueError, match=r"tolerance: got 0\.0"):
        fit(rows, torch.tensor([0, 1, 1, 0]), costs=[1.0], num_classes=2, tolerance=0.0)
    rows[1, 1] = math.nan
    with pytest.raises(UserError, match="1 of 8 are NaN or infinite"):
        fit(rows, torch.zeros(4, dtype=torch.int64), costs=[1.0], num_classes=2)
