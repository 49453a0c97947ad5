"""Recall and accuracy against the numbers of the published evaluators.

Score matrices are made here from the features of the file, by each rule it describes; which rule a case follows
is found by its own scores, not by its name.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.metrics.ranking import first_hit_ranks, mean_per_class_accuracy, recall_from_ranks
from tests.metrics.composed import retrieval_recall
from tests.parity.reference import cases, load, number

Scores = tuple[Tensor, Tensor]  # text to image (T, I), image to text (I, T)


def _dot(image: Tensor, text: Tensor, case: dict[str, Any]) -> Scores:
    image, text = (x / x.norm(dim=-1, keepdim=True) for x in (image, text))
    return text @ image.T, image @ text.T


def _lift(features: Tensor, alpha: float, c: float) -> Tensor:
    u = features * torch.tensor(alpha, dtype=torch.float64).exp()
    r = c**0.5 * u.norm(dim=-1, keepdim=True)
    return u * r.sinh() / r


def _embed(image: Tensor, text: Tensor, case: dict[str, Any]) -> tuple[Tensor, Tensor, float]:
    c = float(case["curv"])
    return (
        _lift(image, float(case["visual_alpha_raw"]), c),
        _lift(text, float(case["textual_alpha_raw"]), c),
        c,
    )


def _lorentz(x: Tensor, y: Tensor, c: float) -> Tensor:
    time = [(1 / c + v.square().sum(-1)).sqrt() for v in (x, y)]
    return x @ y.T - time[0][:, None] * time[1]


def _inner(image: Tensor, text: Tensor, case: dict[str, Any]) -> Scores:
    image, text, c = _embed(image, text, case)
    return _lorentz(text, image, c), _lorentz(image, text, c)


def _angle(image: Tensor, text: Tensor, case: dict[str, Any]) -> Scores:
    image, text, c = _embed(image, text, case)

    def exterior(apex: Tensor, point: Tensor) -> Tensor:
        q = c * _lorentz(apex, point, c)
        t_apex, t_point = ((1 / c + v.square().sum(-1)).sqrt() for v in (apex, point))
        cosine = (t_point + q * t_apex[:, None]) / (apex.norm(dim=-1)[:, None] * (q.square() - 1).sqrt())
        return cosine.acos()

    return exterior(image, text).T, -exterior(text, image).T


# The corner of the score matrices that the file shows, and which way it is.
PROBES = {"t2i_scores_first_4_texts": 0, "i2t_scores_first_3_images_first_9_texts": 1}
RULES: tuple[Callable[[Tensor, Tensor, dict[str, Any]], Scores], ...] = (_dot, _inner, _angle)


@pytest.mark.parametrize("toy", cases("eval_scores", "recall_toy", "recalls"))
def test_recall_of_lists(toy: tuple[str, float] | None) -> None:
    assert toy is not None
    name, expected = toy
    k = int(name.rpartition("@")[2])
    given = load("eval_scores")["recall_toy"]  # type: ignore[index]
    predictions = {int(query): result for query, result in given["predictions"].items()}
    truth = {int(query): right for query, right in given["ground_truth"].items()}
    ranks = first_hit_ranks([predictions.get(query, ()) for query in truth], list(truth.values()))
    assert recall_from_ranks(ranks, [k])[k] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("named", cases("eval_scores", "retrieval", "models"))
def test_recalls_both_ways(named: tuple[str, dict[str, Any]] | None) -> None:
    assert named is not None
    content: dict[str, Any] = load("eval_scores") or {}
    # The scales of the heads stand with the classification case of that name.
    case = {**content.get("classification", {}).get("models", {}).get(named[0], {}), **named[1]}
    if case["curv"] is not None and "visual_alpha_raw" not in case:
        pytest.skip(f"eval_scores.json gives no scales for {named[0]}")
    if "recalls_percent" not in case or not any(key in case for key in PROBES):
        pytest.skip(f"eval_scores.json gives no recalls or no scores for {named[0]}")
    given = content["retrieval"]
    image = torch.tensor(number(given["image_features"]), dtype=torch.float64)
    groups = given["text_features[image][caption]"]
    text = torch.tensor([row for group in groups for row in number(group)], dtype=torch.float64)
    owner = [i for i, group in enumerate(groups) for _ in group]
    t2i, i2t = _scores(image, text, case)
    right_texts = [{t for t, i in enumerate(owner) if i == own} for own in range(len(groups))]
    ways = {"t2i": (t2i, [{i} for i in owner]), "i2t": (i2t, right_texts)}
    checked = 0
    for key, expected in case["recalls_percent"].items():
        _, way, cut = key.rsplit("_", 2)
        scores, right = ways[way]
        k = int(cut.removeprefix("r"))
        assert retrieval_recall(scores, right, ks=(k,))[k] == pytest.approx(float(expected), rel=1e-12)
        checked += 1
    assert checked


def _scores(image: Tensor, text: Tensor, case: dict[str, Any]) -> Scores:
    """By the rule whose scores are the ones in the file (rounded there to 12 digits; acos amplifies)."""
    rules = RULES if case["curv"] is not None else RULES[:1]
    for rule in rules:
        ways = rule(image, text, case)
        probes = [(ways[way], case[key]) for key, way in PROBES.items() if key in case]
        if all(_starts_with(scores, rows) for scores, rows in probes):
            return ways
    raise AssertionError("no rule of the file gives its scores")


def _starts_with(scores: Tensor, rows: list[Any]) -> bool:
    expected = torch.tensor(number(rows), dtype=torch.float64)
    return torch.allclose(scores[: expected.shape[0], : expected.shape[1]], expected, rtol=1e-9, atol=1e-5)


@pytest.mark.parametrize("named", cases("eval_scores", "classification", "models"))
def test_mean_per_class_accuracy(named: tuple[str, dict[str, Any]] | None) -> None:
    assert named is not None
    case = named[1]
    labels = load("eval_scores")["classification"]["labels"]  # type: ignore[index]
    other = next((case[key] for key in case if key.startswith("labels_atmg")), None)
    pairs = [("accuracy_reported_macro_percent", labels), ("macro_percent_with_labels_atmg", other)]
    given = [(float(case[key]), truth) for key, truth in pairs if key in case and truth is not None]
    if not given or "predictions" not in case:
        pytest.skip(f"eval_scores.json gives no accuracy or no predictions for {named[0]}")
    for expected, truth in given:  # float32 figures
        assert mean_per_class_accuracy(case["predictions"], truth) == pytest.approx(
            expected, rel=1e-6, abs=1e-6
        )
