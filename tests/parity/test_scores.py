"""Zero-shot classification and retrieval scores against eval_scores.json, for every model in the file.

The features there are unprojected: hyperbolic models lift exp(min(alpha, 0)) times them. Tolerance 1e-7 for the
cleaner formulas; 1e-6 absolute for angles, see tests/parity/recipes.py.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.geometry.base import Geometry
from hypvl.geometry.lorentz import Lorentz
from hypvl.geometry.scorers import Cosine, ExteriorAngle, NegativeDistance, Scorer
from hypvl.geometry.sphere import Sphere
from hypvl.metrics.ranking import mean_per_class_accuracy, rank_keys
from tests.metrics.composed import topk_accuracy
from tests.parity.recipes import tolerance
from tests.parity.reference import cases, load, number

MASKED = -1e12


def tensor(value: Any) -> Tensor:
    return torch.tensor(number(value), dtype=torch.float64)


def section(name: str) -> dict[str, Any]:
    content = load("eval_scores")
    assert content is not None
    return content[name]


def parts(name: str, curv: float | None) -> tuple[Geometry, Scorer]:
    """The composition that a published model's name stands for; unknown names are skipped."""
    if name == "CLIP":
        return Sphere(), Cosine()
    if name not in ("MERU", "ATMG", "HyCoCLIP") or curv is None:
        pytest.skip(f"no composition is known for {name}")
    geometry = Lorentz(curv_init=curv).double()
    with torch.no_grad():
        geometry.log_curv.fill_(math.log(curv))
    return geometry, ExteriorAngle(ranking="published") if name == "ATMG" else NegativeDistance()


def scaled(features: Tensor, model: dict[str, Any], alpha: str) -> Tensor:
    raw = model.get(f"{alpha}_raw")
    return features if raw is None else features * math.exp(min(number(raw), 0.0))


def alphas(name: str) -> dict[str, Any]:
    """The retrieval section repeats no alphas: they are the classification section's."""
    return section("classification")["models"].get(name, {})


def close(found: Tensor, wanted: Tensor, name: str) -> None:
    allowed = tolerance(name)  # of angles the absolute difference
    torch.testing.assert_close(found, wanted, rtol=0.0 if name == "ATMG" else allowed, atol=allowed)


def class_scores(name: str, model: dict[str, Any]) -> Tensor:
    """Scores (Q, C) of the images and classes of the file."""
    data = section("classification")
    geometry, scorer = parts(name, number(model["curv"]))
    images = geometry.lift(scaled(tensor(data["image_features"]), model, "visual_alpha"))
    prompts = [scaled(tensor(p), model, "textual_alpha") for p in data["prompt_features[class][prompt]"]]
    return scorer.class_scores(geometry, images, prompts)


@pytest.mark.parametrize("case", cases("eval_scores", "classification", "models"))
@torch.no_grad()
def test_class_scores(case: tuple[str, dict[str, Any]]) -> None:
    name, model = case
    scores = class_scores(name, model)
    # The published ATMG evaluator masks all but the best class after scoring.
    wanted = model.get("mean_angle_scores_first_6_images_before_masking", model["scores_first_6_images"])
    wanted = tensor(wanted)
    assert (wanted > MASKED / 2).all()
    close(scores[: len(wanted)], wanted, name)
    assert scores.argmax(-1).tolist() == [int(p) for p in model["predictions"]]


@pytest.mark.parametrize("case", cases("eval_scores", "classification", "models"))
@torch.no_grad()
def test_accuracies_from_features_to_the_end(case: tuple[str, dict[str, Any]]) -> None:
    name, model = case
    scores = class_scores(name, model)
    predicted = rank_keys(scores, 1)[:, 0].tolist()
    labels = section("classification")["labels"]
    if "micro_percent_for_contrast" in model:
        micro = topk_accuracy(scores, torch.tensor(labels))
        assert micro == pytest.approx(number(model["micro_percent_for_contrast"]), rel=1e-9)
    if "accuracy_reported_macro_percent" in model:  # float32 figures
        macro = mean_per_class_accuracy(predicted, labels)
        assert macro == pytest.approx(number(model["accuracy_reported_macro_percent"]), rel=1e-6, abs=1e-6)
    other = next((model[key] for key in model if key.startswith("labels_atmg")), None)
    recalls = next((model[key] for key in model if key.startswith("per_class_recall")), None)
    if other is not None and recalls is not None:
        assert set(other) == set(range(len(recalls)))
        for label, expected in enumerate(number(recalls)):  # rounded to 8 decimals in the file
            own = [guess for guess, truth in zip(predicted, other, strict=True) if truth == label]
            assert mean_per_class_accuracy(own, [label] * len(own)) == pytest.approx(expected, abs=1e-8)


def masked_cases() -> list[Any]:
    """Models whose evaluator masks all but the best class."""
    result = cases("eval_scores", "classification", "models")
    return [c for c in result if c.values[0] is None or _is_masked(c.values[0][1])]


def _is_masked(model: dict[str, Any]) -> bool:
    return bool((tensor(model["scores_first_6_images"]) <= MASKED / 2).any())


@pytest.mark.parametrize("case", masked_cases())
@torch.no_grad()
def test_masked_scores_keep_the_best_only(case: tuple[str, dict[str, Any]]) -> None:
    name, model = case
    shown = tensor(model["scores_first_6_images"])
    scores = class_scores(name, model)[: len(shown)]
    best = torch.full_like(scores, MASKED).scatter(1, rank_keys(scores, 1), scores.amax(1, keepdim=True))
    close(best, shown, name)


@pytest.mark.parametrize("case", cases("eval_scores", "retrieval", "models"))
@torch.no_grad()
def test_retrieval_scores(case: tuple[str, dict[str, Any]]) -> None:
    name, model = case
    data = section("retrieval")
    geometry, scorer = parts(name, number(model["curv"]))
    raw = {**alphas(name), **model}
    if model["curv"] is not None and "visual_alpha_raw" not in raw:
        pytest.skip(f"eval_scores.json gives no scales for {name}")
    images = geometry.lift(scaled(tensor(data["image_features"]), raw, "visual_alpha"))
    captions = tensor([c for group in data["text_features[image][caption]"] for c in group])
    texts = geometry.lift(scaled(captions, raw, "textual_alpha"))
    to_image = scorer.scores(geometry, texts, images, query_modality="text", key_modality="image")
    to_text = scorer.scores(geometry, images, texts, query_modality="image", key_modality="text")
    wanted = tensor(model["t2i_scores_first_4_texts"])
    close(to_image[: len(wanted)], wanted, name)
    wanted = tensor(model["i2t_scores_first_3_images_first_9_texts"])
    close(to_text[: len(wanted), : wanted.shape[1]], wanted, name)
