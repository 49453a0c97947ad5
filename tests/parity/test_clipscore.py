"""Caption scores and their correlation with ratings against clipscore.json.

Which rule a case follows is found by its own numbers, not by its name.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.metrics.captions import (
    caption_score,
    reference_augmented,
    reference_cosine,
    standardized,
)
from hypvl.metrics.correlation import kendall_tau, pearson
from tests.parity.reference import cases, load, number

Rule = Callable[[Tensor], Tensor]
RULES: tuple[Rule, ...] = (lambda rows: rows, standardized)
CORRELATIONS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "kendall_tau_b": lambda x, y: kendall_tau(x, y, variant="b"),
    "kendall_tau_c": lambda x, y: kendall_tau(x, y, variant="c"),
    "tau_b": lambda x, y: kendall_tau(x, y, variant="b"),
    "tau_c": lambda x, y: kendall_tau(x, y, variant="c"),
    "pearson": pearson,
}


def tensor(values: Any) -> Tensor:
    return torch.tensor(number(values), dtype=torch.float64)


@cache
def inputs() -> tuple[Tensor, Tensor, list[Tensor]]:
    given = (load("clipscore") or {})["inputs"]
    return tensor(given["image"]), tensor(given["candidate"]), [tensor(own) for own in given["references"]]


def scored(rule: Rule, weight: float) -> dict[str, Tensor]:
    image, candidate, references = inputs()
    result = {"per_instance": caption_score(rule(image), rule(candidate), weight=weight)}
    if rule is RULES[0]:
        result["reference_max_cosine"] = reference_cosine(candidate, references)
        result["reference_augmented_per_instance"] = reference_augmented(
            result["per_instance"], result["reference_max_cosine"], negative="as_is"
        )
    return result | {
        name.replace("per_instance", "mean"): values.mean()
        for name, values in result.items()
        if "per_" in name
    }


def agree(found: Tensor, expected: Any) -> bool:
    other = tensor(expected)
    return found.shape == other.shape and torch.allclose(found, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("named", cases("clipscore", "scores"))
def test_scores(named: tuple[str, dict[str, Any]] | None) -> None:
    assert named is not None
    case = named[1]
    if "w" not in case or "per_instance" not in case:
        pytest.skip(f"clipscore.json gives no weight or no scores for {named[0]}")
    ways = [scored(rule, float(case["w"])) for rule in RULES]
    fitting = [way for way in ways if agree(way["per_instance"], case["per_instance"])]
    assert fitting, "no rule gives these scores"
    for name in fitting[0].keys() & case.keys():
        assert agree(fitting[0][name], case[name]), name


@pytest.mark.parametrize("named", cases("clipscore", "correlation"))
def test_correlations(named: tuple[str, dict[str, Any]] | None) -> None:
    assert named is not None
    content = load("clipscore") or {}
    human = tensor(content["inputs"]["human"])
    lists = [
        values
        for case in content.get("scores", {}).values()
        if "w" in case
        for rule in RULES
        for name, values in scored(rule, float(case["w"])).items()
        if name.endswith("per_instance")
    ]

    def fits(scores: Tensor) -> bool:
        return all(
            100 * CORRELATIONS[name.removesuffix("_x100")](scores, human)
            == pytest.approx(number(value), abs=1e-8)
            for name, value in named[1].items()
        )

    if not lists:
        pytest.skip("clipscore.json gives no weights of scores")
    assert named[1] and any(map(fits, lists))


def tau_cases() -> list[Any]:
    """The correlations of the example, without its inputs."""
    result = cases("clipscore", "ties_example")
    return [case for case in result if case.values[0] is None or case.values[0][0] in CORRELATIONS]


@pytest.mark.parametrize("named", tau_cases())
def test_ties(named: tuple[str, Any] | None) -> None:
    assert named is not None
    example = (load("clipscore") or {})["ties_example"]
    result = CORRELATIONS[named[0]](tensor(example["x"]), tensor(example["y"]))
    assert result == pytest.approx(number(named[1]), abs=1e-10)
