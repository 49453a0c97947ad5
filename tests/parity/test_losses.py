"""losses.json and losses_2rank.json: values, logged terms and gradients of the published losses."""

import math
from typing import Any

import pytest
import torch

from hypvl.losses.entailment import Entailment
from tests.losses.implementations import either_implementation, forced  # noqa: F401  # a fixture
from tests.parity.recipes import VIEWS, Parts, build, tolerance, with_scalars
from tests.parity.reference import cases, load
from tests.ranks import run_ranks

# float64 against the published eps and clamps, per reference/README.md: 1e-7 for a cleaner formula, 1e-6 for ATMG
# (tests/parity/recipes.py); where the angle's eps is amplified (ATMG, cones) gradients differ in the 6th digit.
# The published aperture stops at asin(1 - 1e-8) = pi/2 - 1.42e-4 inside the minimum radius, ours at pi/2:
# terms with such an apex differ by at most that.
SATURATED = 1.5e-4
GRADIENT = {"rtol": 2e-5, "atol": 2e-6}

_PARAMS = [
    pytest.param(p.values[0], name, id=f"{p.id}-{name}", marks=p.marks)
    for p in cases("losses", "cases")
    for name in (p.values[0]["models"] if p.values[0] is not None else ["absent"])
]


def _run(case: dict[str, Any], name: str, rows: slice = slice(None)) -> tuple[Parts, dict[str, Any], Any]:
    expected = case["models"][name]
    parts = with_scalars(build(name, expected["constructor"]), expected["raw_scalars_before_forward"])
    parts.constrain_()
    features = {
        key: torch.tensor(value, dtype=torch.float64)[rows].requires_grad_()
        for key, value in case["features"].items()
    }
    output = parts.loss(features)
    output.total.backward()
    return parts, features, output


@pytest.mark.usefixtures("either_implementation")
@pytest.mark.parametrize(("case", "name"), _PARAMS)
def test_losses(case: dict[str, Any], name: str) -> None:
    expected = case["models"][name]
    parts, features, output = _run(case, name)
    for key, value in expected["raw_scalars_after_forward"].items():
        assert parts.raw_scalars()[key].item() == pytest.approx(value, rel=1e-6), f"{key} after the clamp"
    slack = _slack(parts, features)
    rtol = tolerance(name)
    torch.testing.assert_close(output.total.item(), expected["loss"], rtol=rtol, atol=slack["loss"])
    for key, term in output.terms.items():
        value = expected["logging"].get(f"{key}_loss")
        if value is not None:
            torch.testing.assert_close(term.item(), value, rtol=rtol, atol=slack[key])
    for key, gradient in expected["grad_features"].items():
        if gradient is not None:
            result = features[key].grad if features[key].grad is not None else torch.zeros_like(features[key])
            torch.testing.assert_close(result, torch.tensor(gradient, dtype=torch.float64), **GRADIENT)
    for key, value in expected["grad_scalars"].items():
        result = parts.raw_scalars()[key].grad
        if value is None:
            assert result is None, f"{key} should get no gradient"
        else:
            assert result is not None, f"{key} got no gradient"
            torch.testing.assert_close(result.item(), value, **GRADIENT)


def _slack(parts: Parts, features: dict[str, Any]) -> dict[str, float]:
    """Absolute tolerance of the loss and each term: what saturated cones may differ by, else 1e-9."""
    slack = {"loss": 1e-9}
    for name, term in parts.objective.terms.items():
        slack[name] = 1e-9
        if isinstance(term, Entailment):
            (source,) = [key for key, view in VIEWS.items() if view == term.general]
            aperture = parts.half_aperture(features[source], modality=term.general.modality)
            if (aperture > math.pi / 2 - 1e-9).any():
                slack[name] += term.aperture_factor * SATURATED
        slack["loss"] += parts.objective.weights[name] * slack[name]
    return slack


def _on_rank(jobs: list[tuple[dict[str, Any], str]], implementation: str) -> list[dict[str, Any]]:
    from hypvl import distributed

    results = []
    for case, name in jobs:
        half = case["B"] // distributed.world_size()
        rows = slice(distributed.rank() * half, (distributed.rank() + 1) * half)
        with forced(implementation):
            parts, features, output = _run(case, name, rows)
        results.append(
            {
                "loss": output.total.item(),
                "features": {k: x.grad for k, x in features.items()},
                "scalars": {k: p.grad for k, p in parts.raw_scalars().items()},
                "slack": _slack(parts, features)["loss"],
            }
        )
    return results


@pytest.fixture(scope="module", params=["chosen", "tiled"])
def two_ranks(request: pytest.FixtureRequest) -> dict[str, list[dict[str, Any]]]:
    """Every case of losses_2rank.json, run on two gloo processes at once."""
    if load("losses") is None or load("losses_2rank") is None:
        return {}
    by_name = {case["name"]: case for case in load("losses")["cases"]}  # type: ignore[index]
    keys = [k for k in load("losses_2rank")["results"] if k.rsplit("/", 1)[0] in by_name]  # type: ignore[index]
    jobs = [(by_name[key.rsplit("/", 1)[0]], key.rsplit("/", 1)[1]) for key in keys]
    per_rank = run_ranks(2, _on_rank, jobs, request.param)
    return {key: [results[i] for results in per_rank] for i, key in enumerate(keys)}


@pytest.mark.parametrize("case", cases("losses_2rank", "results"))
def test_losses_2rank(case: tuple[str, dict[str, Any]], two_ranks: dict[str, list[dict[str, Any]]]) -> None:
    if load("losses") is None:
        pytest.skip("losses.json, which holds the inputs, is not in the folder")
    key, expected = case
    ranks = two_ranks[key]
    name, model = key.rsplit("/", 1)
    for result, value in zip(ranks, expected["loss_per_rank"], strict=True):
        torch.testing.assert_close(result["loss"], value, rtol=tolerance(model), atol=result["slack"])
    (whole,) = [c["models"][model] for c in load("losses")["cases"] if c["name"] == name]  # type: ignore[index]
    for view, gradient in whole["grad_features"].items():
        if gradient is not None and ranks[0]["features"][view] is not None:
            # DDP averages over ranks: the sum over ranks of our row gradients over the world size
            joined = torch.cat([r["features"][view] for r in ranks]) / len(ranks)
            torch.testing.assert_close(joined, torch.tensor(gradient, dtype=torch.float64), **GRADIENT)
    for scalar, value in whole["grad_scalars"].items():
        if value is not None:
            mean = sum(r["scalars"][scalar].item() for r in ranks) / len(ranks)
            torch.testing.assert_close(mean, value, **GRADIENT)
