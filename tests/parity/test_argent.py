"""The argent rows of hyper3.json: Hyper3Labs' reading of ARGENT, its terms, their weights and gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.config import LazyConfig, instantiate
from hypvl.evaluation.pep import entailment_scores
from hypvl.geometry.lorentz import Lorentz
from hypvl.losses.argent import AdaptiveEntailment, NormRegularization
from hypvl.losses.base import Objective, PairContext, View
from tests.losses.toy import GeometryOnly
from tests.parity.recipes import CONFIGS, NegativeDistance
from tests.parity.reference import cases
from tests.parity.uneven import assert_near, share

# The eps of the published angle, near the root: rows and gradients feel it (5e-8 here), means hardly.
PUBLISHED, ROWS = 1e-7, 1e-6
VIEWS = {
    "image": View.parse("image"),
    "text": View.parse("text"),
    "part_image": View.parse("image:box_image"),
    "part_text": View.parse("text:box_text"),
}
PAIRS = {  # published name -> ours
    "text_image": "text_image",
    "part_text_image": "box_text_image",
    "cross_image": "cross_image",
    "cross_text": "cross_text",
}
WITHIN = {"uncha": 0.5, "equal": 1.0}  # further factor of box -> whole


def build(case: dict[str, Any]) -> tuple[Objective, dict[str, float]]:
    """The recipe's terms of order with the case's settings, and the weights that the case adds them with."""
    cfg = LazyConfig.load(CONFIGS / "common" / "objective" / "argent.py").objective
    del cfg.terms["contrastive"], cfg.weights["contrastive"]
    weights = {"norm": case["norm_weight"]}
    for name in PAIRS.values():
        cfg.terms[f"{name}_entailment"].beta = case["beta"]
        within = WITHIN[case["aggregation"]] if name.startswith("cross") else 1.0
        weights[f"{name}_entailment"] = 0.5 * within
    if case["aggregation"] == "uncha":  # what the recipe has
        assert all(
            cfg.weights[name] == pytest.approx(0.2 * w) for name, w in weights.items() if name != "norm"
        )
    cfg.weights = weights
    return instantiate(cfg), weights


@pytest.mark.parametrize("case", cases("hyper3", "argent"))
def test_argent(case: dict[str, Any]) -> None:
    objective, weights = build(case)
    owner = torch.tensor(case["part_owner"])
    features, owner = share(case["features"], owner, rank=0, world=1, boxes="part_")
    model = GeometryOnly(Lorentz(), NegativeDistance())
    with torch.no_grad():
        model.geometry.get_parameter("log_curv").fill_(case["log_curv"])
    views = {VIEWS[name]: case["alpha"] * x for name, x in features.items()}
    ctx = PairContext(views, batch={"box_owner": owner}, model=model)

    output = objective(ctx)
    output.total.backward()

    assert_near(output.total.item(), case["value"], PUBLISHED, "value")
    terms = case["terms"]
    entailment = sum(weights[name] * output.terms[name].item() for name in weights if name != "norm")
    assert_near(entailment, terms["entailment_loss"], PUBLISHED, "entailment_loss")
    assert_near(output.terms["norm"].item(), terms["norm_regularization_loss"], PUBLISHED, "norm")
    for published, name in PAIRS.items():
        term = objective.terms[f"{name}_entailment"]
        assert isinstance(term, AdaptiveEntailment)
        assert_near(
            0.5 * output.terms[f"{name}_entailment"].item(),
            terms[f"{published}_entailment_loss"],
            PUBLISHED,
            f"{published}_entailment_loss",
        )
        if published in case["residual_rows"]:
            assert_near(term.per_pair(ctx), case["residual_rows"][published], ROWS, published)
        check_logged(ctx, term, published, terms)
    for name, gradient in case["grad_features"].items():
        assert_near(features[name].grad, gradient, ROWS, f"gradient of {name}")
    grad = model.geometry.get_parameter("log_curv").grad
    assert_near(grad, case["grad_log_curv"], PUBLISHED, "gradient of log_curv")


@torch.no_grad()
def check_logged(ctx: PairContext, term: AdaptiveEntailment, name: str, terms: dict[str, float]) -> None:
    """Means that the published code logs: the angle, pEnt, distance and weight of the pairs."""
    geometry = ctx.model.geometry
    assert geometry.cones is not None
    apex, point, _ = ctx.paired(term.general, term.specific)
    scores = entailment_scores(geometry, apex, point)
    assert scores is not None
    distance = geometry.distance(apex, point)
    found: dict[str, Tensor] = {
        "angle": geometry.cones.exterior_angle(apex, point),
        "pent": scores[0],
        "distance": distance,
        "adaptive_weight": 1 - torch.exp(-distance),
    }
    for kind, values in found.items():
        if (key := f"argent_{name}_{kind}_mean") in terms:
            assert_near(values.mean().item(), terms[key], PUBLISHED, key)


@pytest.mark.parametrize("case", cases("hyper3", "argent"))
def test_norm_of_each_group(case: dict[str, Any]) -> None:
    geometry = Lorentz().double()
    with torch.no_grad():
        geometry.get_parameter("log_curv").fill_(case["log_curv"])
    model = GeometryOnly(geometry, NegativeDistance())
    total = 0.0
    for name, values in case["features"].items():
        x = case["alpha"] * torch.tensor(values, dtype=torch.float64)
        key = f"argent_{name}_space_norm_mean"
        assert_near(geometry.lift(x).norm(dim=-1).mean().item(), case["terms"][key], PUBLISHED, key)
        view = VIEWS[name]
        batch = {"box_owner": torch.tensor(case["part_owner"]), "index": torch.arange(case["B"])}
        total += NormRegularization([view])(PairContext({view: x}, batch=batch, model=model)).item()
    assert_near(total / len(VIEWS), case["terms"]["norm_regularization_loss"], PUBLISHED, "norm")
