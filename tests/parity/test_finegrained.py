"""finegrained.json: CE-CLIP's objective and its parts, values, gradients and thresholds, by named settings.

The gradients of the file are those with respect to unit rows and to the scale itself.
"""

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from hypvl.geometry.base import Geometry
from hypvl.geometry.scorers import Cosine
from hypvl.losses.base import IMAGE, TEXT, LossTerm, Objective, PairContext, View
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.cross_modal_rank import CrossModalRank, Kind, adaptive_thresholds
from hypvl.losses.hard_negative import NEGATIVE_TEXT, HardNegativeContrastive
from hypvl.losses.intra_modal import IntraModal, Variant
from tests.losses.implementations import either_implementation  # noqa: F401  # a fixture
from tests.parity.reference import cases, load, number

CLOSE = {"rtol": 1e-9, "atol": 1e-9}  # as the file says, in float64
VIEWS = {"image": IMAGE, "text": TEXT, "hard_negative": NEGATIVE_TEXT}
VARIANTS: dict[str, Variant] = {"head": "head", "fixed": "fixed", "first": "first_release"}


class Rows(Geometry):
    """Given rows as they are: their gradients are not those of normalised ones."""

    cones = None
    curvature = None

    def lift(self, features: Tensor) -> Tensor:
        return features

    def flatten(self, embeddings: Tensor) -> Tensor:
        return embeddings

    def pool(self, features: Tensor) -> Tensor:
        return features.mean(-2)

    def pairwise_similarity(self, x: Tensor, y: Tensor) -> Tensor:
        return x @ y.mT

    def interpolate(self, x: Tensor, root: Tensor, weights: Tensor) -> Tensor:
        return torch.lerp(root, x, weights[:, None])

    def root(self, dim: int) -> None:
        return None


class Scored(nn.Module):
    """The file's scale on products of rows."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.geometry, self.scorer = Rows(), Cosine().double()
        with torch.no_grad():
            self.scorer.log_scale.copy_(torch.tensor(scale, dtype=torch.float64).log())

    def embed(self, features: Tensor, *, modality: str) -> Tensor:
        return self.geometry.lift(features)


def tensor(value: Any) -> Tensor:
    return torch.tensor(number(value), dtype=torch.float64)


def given() -> tuple[dict[View, Tensor], PairContext]:
    inputs = load("finegrained")["inputs"]  # type: ignore[index]
    rows = {view: tensor(inputs[name]).requires_grad_() for name, view in VIEWS.items()}
    mask = torch.tensor(inputs["mask"]).bool()
    return rows, PairContext(rows, batch={"negative_mask": mask}, model=Scored(inputs["scale"]))


def ranked(case: dict[str, Any]) -> CrossModalRank:
    """The published rank term with the thresholds that come into the step."""
    kind = cast(Kind, case["threshold_type"])
    start = tensor(case["thresholds_in"]).reshape(-1)
    if kind == "fixed":
        return CrossModalRank(kind, fixed_threshold=start.item(), denominator="all")
    term = CrossModalRank(kind, denominator="all", positives="all").double()
    types = len(load("finegrained")["inputs"]["mask"][0])  # type: ignore[index]
    term.load_state_dict({"thresholds": start.expand(types).clone()})
    return term


def objective(case: dict[str, Any]) -> tuple[Objective, dict[str, str]]:
    """What a case computed, and the entries of the file that its terms are."""
    if "hardnegative" in case:
        terms: dict[str, LossTerm] = {
            "itc": HardNegativeContrastive() if case["hardnegative"] else Contrastive()
        }
        if case["cmr"]:
            terms["cmr"] = ranked(case)
        if case["imc"]:
            terms["imc"] = IntraModal(VARIANTS[case["imc_variant"]])
        weights = {key: case[f"{key}_weight"] for key in ("cmr", "imc") if key in terms}
        return Objective(terms, weights), {key: f"{key}_loss" for key in terms}
    # Variants of one term alone, which the published code does not run. Only their name would tell which: the one
    # with this value, whose gradients are then compared.
    entry = "imc_loss" if case.get("imc_loss") is not None else "total"
    variants: list[LossTerm] = (
        [
            IntraModal("own_negatives"),
            IntraModal("own_negatives", invalid_negatives="mask"),
            IntraModal(invalid_negatives="mask"),
        ]
        if entry == "imc_loss"
        else [HardNegativeContrastive(), HardNegativeContrastive(invalid_negatives="mask")]
    )
    for term in variants:
        if torch.allclose(term(given()[1]), tensor(case[entry]), **CLOSE):
            return Objective({"alone": term}), {"alone": entry}
    raise AssertionError(f"no setting of {type(variants[0]).__name__} gives {entry} = {case[entry]}")


@pytest.mark.usefixtures("either_implementation")
@pytest.mark.parametrize("case", cases("finegrained", "cases"))
def test_values_and_gradients(case: tuple[str, dict[str, Any]]) -> None:
    name, expected = case
    (rows, ctx), (total, entries) = given(), objective(expected)
    output = total(ctx)
    output.total.backward()
    for term, entry in entries.items():
        if expected.get(entry) is not None:
            torch.testing.assert_close(output.terms[term], tensor(expected[entry]), **CLOSE)
    if expected.get("total") is not None:
        torch.testing.assert_close(output.total.detach(), tensor(expected["total"]), **CLOSE)
    checked = 0
    for key, view in VIEWS.items():
        reference = expected.get(f"grad_{key}")
        if reference is not None:
            result = rows[view].grad
            torch.testing.assert_close(
                torch.zeros_like(rows[view]) if result is None else result, tensor(reference), **CLOSE
            )
            checked += 1
    if expected.get("grad_scale") is not None:
        scorer = cast(Scored, ctx.model).scorer
        assert scorer.log_scale.grad is not None
        by_scale = scorer.log_scale.grad / scorer.scale.detach()  # d/ds = (d / d log s) / s
        torch.testing.assert_close(by_scale, tensor(expected["grad_scale"]), **CLOSE)
        checked += 1
    assert checked, f"{name}: has no gradient to check"


RANKED = [p for p in cases("finegrained", "cases") if p.values[0] is None or p.values[0][1].get("cmr")]


@pytest.mark.parametrize("case", RANKED)
def test_thresholds(case: tuple[str, dict[str, Any]]) -> None:
    _, expected = case
    term, ctx = ranked(expected), given()[1]
    kind = expected["threshold_type"]
    if kind != "fixed" and "thresholds_out_before_clamp" in expected:
        with torch.no_grad():
            raw = adaptive_thresholds(
                ctx.own_logits(IMAGE, TEXT).squeeze(1),
                ctx.own_logits(IMAGE, NEGATIVE_TEXT),
                valid=ctx.batch["negative_mask"],
                kind=kind,
                previous=term.thresholds,
                positives="all",
            )
        reference = tensor(expected["thresholds_out_before_clamp"])
        if kind == "max":  # published: an invalid sample counts as 0; the clamp at 0 makes both the same
            raw = torch.where(ctx.batch["negative_mask"].all(0), raw, raw.clamp(min=0))
        torch.testing.assert_close(raw, reference, **CLOSE)
    with torch.no_grad():
        Objective({"cmr": term}).update_(ctx)
    clamped = [value for key, value in expected.items() if key.startswith("thresholds_out_clamped")]
    after = clamped[0] if clamped else expected.get("thresholds_out_before_clamp", expected["thresholds_in"])
    if kind == "fixed" or clamped:
        torch.testing.assert_close(
            term.thresholds.double(), tensor(after).reshape(-1).expand_as(term.thresholds), **CLOSE
        )


@pytest.mark.parametrize("case", RANKED)
def test_repaired_denominator_is_the_published_one_over_valid(case: tuple[str, dict[str, Any]]) -> None:
    """What the default divides by differs, nothing else."""
    _, expected = case
    term, ctx = ranked(expected), given()[1]
    term.denominator = "valid"
    mask = ctx.batch["negative_mask"]
    published = expected["cmr_loss"] * mask.numel() / mask.sum().item()
    torch.testing.assert_close(term(ctx).detach(), tensor(published), **CLOSE)
