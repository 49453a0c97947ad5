"""Classification metrics other than top-k accuracy (``ranking.py``): pure functions, in percent.

Ties: items of equal score share one place, so the result does not depend on the order of the items.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from hypvl.checks import number, one_of

Rule11 = Literal["voc2007", "elevater"]


def roc_auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve: percent of (positive, negative) pairs in the right order, a tie counting half.

    Args:
        scores: (N,), higher = more likely positive; infinities are allowed.
        labels: (N,) of 0 and 1, at least one of each.

    Raises:
        ValueError: for other shapes or labels, NaN, or one class only.

    Example:
        >>> roc_auc([0.9, 0.4, 0.1], [1, 0, 0])
        100.0
    """
    s, y = _columns(scores, labels)
    if s.shape[1] != 1 or not 0 < y.sum() < len(y):
        raise ValueError(
            f"labels: {int(y.sum())} of {y.size} are positive in {y.shape[1]} columns; expected one column with both."
        )
    from scipy.stats import rankdata

    ranks = rankdata(s[:, 0])  # of ties the mean
    positive = y[:, 0]
    count = int(positive.sum())
    wins = ranks[positive].sum() - count * (count + 1) / 2
    return 100.0 * float(wins) / (count * (len(y) - count))


def false_positive_rate(scores: ArrayLike, labels: ArrayLike, *, recall: float = 95.0) -> float:
    """Percent of negatives at or above the highest threshold that at least ``recall`` percent of positives reach.

    Args:
        scores: (N,), higher = more likely positive; infinities are allowed.
        labels: (N,) of 0 and 1, at least one of each.
        recall: In (0, 100].

    Raises:
        ValueError: for other shapes, labels or recall, NaN, or one class only.

    Example:
        >>> false_positive_rate([0.9, 0.4, 0.1], [1, 0, 0])
        0.0
    """
    recall = number("recall", recall, above=0, most=100)
    s, y = _columns(scores, labels)
    if s.shape[1] != 1 or not 0 < y.sum() < len(y):
        raise ValueError(
            f"labels: {int(y.sum())} of {y.size} are positive in {y.shape[1]} columns; expected one column with both."
        )
    positive = np.sort(s[y[:, 0], 0])[::-1]
    threshold = positive[math.ceil(recall * len(positive) / 100.0) - 1]
    return 100.0 * float((s[~y[:, 0], 0] >= threshold).mean())


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Mean over classes of the area under the precision-recall curve, in steps, in percent.

    Formula: per class ``sum over thresholds (R_n - R_(n-1)) P_n``; the mean goes over classes with a positive.

    Args:
        scores: (N,) of one class or (N, C), higher = more likely positive.
        labels: Of the same shape, 0 and 1.

    Raises:
        ValueError: for other shapes or labels, NaN, or no positive at all.

    Example:
        >>> average_precision([0.9, 0.8, 0.1], [1, 0, 1])  # (1 + 2/3) / 2
        83.33333333333333
    """
    values = [
        float((np.diff(hits, prepend=0) * hits / places).sum()) / positives
        for hits, places, positives in _curves(scores, labels)
    ]
    return 100.0 * math.fsum(values) / len(values)


def average_precision_chance(labels: ArrayLike) -> float:
    """Mean of :func:`average_precision` over random orders without ties, in percent.

    Formula: with P positives of N and H_N = 1 + 1/2 + ... + 1/N, ``(H_N + (N - H_N) (P - 1) / (N - 1)) / N``, the
    mean over classes with a positive.

    Source: Bestgen 2015, "Exact expected average precision of the random baseline for system evaluation".

    Example:
        >>> average_precision_chance([1, 0])
        75.0
    """
    y = _columns(labels, labels)[1]
    total = len(y)
    harmonic = math.fsum(1.0 / i for i in range(1, total + 1))
    values = [
        (harmonic + (total - harmonic) * (count - 1) / max(total - 1, 1)) / total
        for count in y.sum(0).tolist()
        if count
    ]
    if not values:
        raise ValueError("labels: no class has a positive; expected at least one.")
    return 100.0 * math.fsum(values) / len(values)


def average_precision_11_points(scores: ArrayLike, labels: ArrayLike, *, rule: Rule11 = "voc2007") -> float:
    """Mean over classes of the 11-point interpolated average precision, in percent.

    Formula: per class ``1/11 sum over t in {0, 0.1, ..., 1} of max {P_n : R_n >= t}``; the mean goes over classes with
    a positive. Recalls are compared with t as fractions of integers.

    Args:
        scores: (N,) of one class or (N, C), higher = more likely positive.
        labels: Of the same shape, 0 and 1.
        rule: ``voc2007``, as above; ``elevater``: the curve starts at recall 0 with precision 1, so that the point
            t = 0 always counts 1, as in the package that ELEVATER uses.

    Raises:
        ValueError: for other shapes or labels, NaN, no positive at all, or another rule.

    Source: Everingham et al. 2010, "The PASCAL Visual Object Classes (VOC) Challenge", section 4.2; Li et al. 2022,
        ELEVATER (arXiv 2204.08790).

    Example:
        >>> round(average_precision_11_points([0.9, 0.8, 0.1], [1, 0, 1]), 2)
        84.85
    """
    one_of("rule", rule, Rule11)
    values = []
    for hits, places, positives in _curves(scores, labels):
        # Precision to the right of each threshold; recall rises with the thresholds.
        best = np.maximum.accumulate((hits / places)[::-1])[::-1]
        first = np.searchsorted(10 * hits, np.arange(11) * positives)
        points = best[first]
        if rule == "elevater":
            points[0] = 1.0
        values.append(float(points.mean()))
    return 100.0 * math.fsum(values) / len(values)


def f1(predicted: Sequence[int], labels: Sequence[int]) -> float:
    """Harmonic mean of precision and recall of class 1, in percent; 0 where it is neither predicted nor there.

    Args:
        predicted: Class of each item, 0 or 1.
        labels: The right ones.

    Example:
        >>> f1([1, 1, 0], [1, 0, 0])
        66.66666666666666
    """
    from sklearn.metrics import f1_score

    return 100.0 * float(f1_score(labels, predicted, zero_division=0.0))


def macro_f1(predicted: Sequence[int | None], labels: Sequence[int]) -> float:
    """Mean over the classes that occur in ``labels`` of their F1, in percent.

    Formula: of class c ``2 TP / (2 TP + FP + FN)``.

    Args:
        predicted: Class of each item; None = no prediction, which is wrong.
        labels: The right ones, at least one, from 0.

    Raises:
        ValueError: without items, or for other lengths.

    Source: Koh et al. 2021, WILDS (arXiv 2012.07421), the metric of iWildCam.

    Example:
        >>> macro_f1([0, 1, 1], [0, 1, 1])
        100.0
    """
    from sklearn.metrics import f1_score

    if not labels:
        raise ValueError("labels: got no items; expected at least one.")
    guesses = [-1 if guess is None else guess for guess in predicted]
    return 100.0 * float(f1_score(labels, guesses, labels=sorted(set(labels)), average="macro"))


def macro_f1_chance(labels: Sequence[int], *, classes: int) -> float:
    """Mean of :func:`macro_f1` over guesses at random among ``classes`` classes, in percent.

    Formula: of a class with n of N items ``2 n / N E[K / (n + K)]``, K the number of times that it is guessed, binomial
    with N and ``1 / classes``: of K guesses ``K n / N`` are right on average.

    Raises:
        ValueError: without items or classes.

    Example:
        >>> macro_f1_chance([0, 1], classes=2)
        41.66666666666667
    """
    if not labels or classes < 1:
        raise ValueError(f"labels, classes: got {len(labels)} and {classes}; expected at least one of each.")
    from scipy.stats import binom

    total = len(labels)
    guessed = np.arange(total + 1)
    weight = binom.pmf(guessed, total, 1.0 / classes)
    sizes = np.unique(np.asarray(labels), return_counts=True)[1]
    values = {
        size: 2.0 * size / total * float((weight * guessed / (size + guessed)).sum())
        for size in set(sizes.tolist())
    }
    return 100.0 * math.fsum(values[size] for size in sizes.tolist()) / len(sizes)


def vqa_accuracy(
    prediction: str, answers: Sequence[str], *, rule: Literal["leave_one_out", "simple"] = "leave_one_out"
) -> float:
    """Accuracy of one answer to a question that several people answered, in percent.

    Formula: ``min(n / 3, 1)``, n the number of people who gave this answer; ``leave_one_out``: its mean over leaving
    one person out at a time. Of 10 people, 1, 2, 3 and 4 agreeing ones give 30, 60, 90 and 100.

    Args:
        prediction: The answer, normalised in the same way as ``answers``.
        answers: The people's answers, at least two.
        rule: ``leave_one_out``, the official evaluation; ``simple``, the formula in the paper.

    Raises:
        ValueError: for fewer answers, or another rule.

    Source: Antol et al. 2015, "VQA: Visual Question Answering" (arXiv 1505.00468).

    Example:
        >>> vqa_accuracy("cat", ["cat"] * 4 + ["dog"] * 6)
        100.0
    """
    one_of("rule", rule, Literal["leave_one_out", "simple"])
    if len(answers) < 2:
        raise ValueError(f"answers: got {len(answers)}; expected at least two people's.")
    agreeing = sum(answer == prediction for answer in answers)
    if rule == "simple":
        return 100.0 * min(agreeing / 3, 1.0)
    without_one = agreeing * min((agreeing - 1) / 3, 1.0) + (len(answers) - agreeing) * min(agreeing / 3, 1.0)
    return 100.0 * without_one / len(answers)


def mean_over_sets(values: Mapping[str, float | None]) -> tuple[float | None, list[str]]:
    """Mean of one number per data set, and the sets without one.

    A missing number (None or NaN) is left out of the mean; it does not count as 0.

    Returns:
        The mean, None where all are missing; the names of the sets without a number, in order.

    Example:
        >>> mean_over_sets({"mnist": 90.0, "pets": 80.0, "cars": None})
        (85.0, ['cars'])
    """
    missing = [name for name, value in values.items() if value is None or math.isnan(value)]
    known = [value for name, value in values.items() if name not in missing and value is not None]
    return (math.fsum(known) / len(known) if known else None), missing


def one_hot(labels: Sequence[Collection[int]], num_classes: int) -> np.ndarray:
    """Sets of classes as a table: N sets -> (N, C) bool. Raises ValueError for a class outside 0 ... C - 1.

    Example:
        >>> one_hot([{0, 2}, set()], 3)
        array([[ True, False,  True],
               [False, False, False]])
    """
    table = np.zeros((len(labels), num_classes), dtype=bool)
    for row, classes in enumerate(labels):
        for c in classes:
            if not 0 <= c < num_classes:
                raise ValueError(f"labels[{row}]: has the class {c}; expected 0 … {num_classes - 1}.")
            table[row, c] = True
    return table


def _columns(scores: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """(N, C) fp64 scores and bool labels, checked."""
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if s.shape != y.shape or s.ndim not in (1, 2) or s.size == 0:
        raise ValueError(
            f"scores, labels: got shapes {s.shape} and {y.shape}; expected one shape (N,) or (N, C)."
        )
    if np.isnan(s).any():
        raise ValueError("scores: hold NaN; expected numbers.")
    if not np.isin(y, (0, 1)).all():
        raise ValueError("labels: hold other values than 0 and 1; expected one column of 0 and 1 per class.")
    return s.reshape(len(s), -1), y.reshape(len(y), -1).astype(bool)


def _curves(scores: ArrayLike, labels: ArrayLike) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Per class with a positive: positives and items at or above each distinct score, descending; and all positives."""
    s, y = _columns(scores, labels)
    curves = []
    for column in range(s.shape[1]):
        positives = int(y[:, column].sum())
        if positives == 0:
            continue
        order = np.argsort(-s[:, column], kind="stable")
        ordered, right = s[order, column], y[order, column]
        last = np.append(ordered[1:] != ordered[:-1], True)  # the last of each group of ties
        places = np.flatnonzero(last) + 1
        curves.append((np.cumsum(right)[places - 1], places, positives))
    if not curves:
        raise ValueError("labels: no class has a positive; expected at least one.")
    return curves
