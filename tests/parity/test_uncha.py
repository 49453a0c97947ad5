"""uncha.json: values, logged terms and gradients of the published UNCHA, and its exact form; also on two ranks."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hypvl.config import LazyConfig, instantiate
from hypvl.geometry.lorentz import Lorentz
from hypvl.losses.base import LossOutput, Objective
from tests.parity.recipes import CONFIGS, PUBLISHED_ENTAIL_WEIGHT, VIEWS, Parts, with_scalars
from tests.parity.reference import cases
from tests.parity.uneven import OfRanks, assert_near, on_two_ranks, owner_of, ranks_of, share

# Against the exact form; against the published numbers, where no cone is inside the minimum radius, and where one is
# (reference/README.md): the eps of the published aperture and angle.
EXACT, PUBLISHED, NEAR_ROOT = 1e-9, 1e-7, 2e-4
SCALES = {
    "global_logit_scale": "log_scale",
    "local_logit_scale": "log_scale_local",
    "global_local_logit_scale": "log_scale_global_local",
}
CONTRASTS = ("global_contrastive", "local_contrastive", "global_local_contrastive")
HALVES = ("text_image", "box_text_image", "cross_image", "cross_text")  # logged with a factor 0.5


class Uncha(Parts):
    """The model block and the objective of the recipes, with the published objective by default."""

    def __init__(self, constructor: dict[str, Any], objective: str = "uncha_published") -> None:
        model = LazyConfig.load(CONFIGS / "common" / "model" / "uncha.py").model
        terms = LazyConfig.load(CONFIGS / "common" / "objective" / f"{objective}.py").objective
        self.entail_weight = constructor["entail_weight"]
        for name in terms.weights:
            if name not in CONTRASTS:
                terms.weights[name] *= self.entail_weight / PUBLISHED_ENTAIL_WEIGHT
        geometry = Lorentz(curv_init=constructor["curv_init"], learn_curv=constructor["learn_curv"])
        super().__init__(geometry, instantiate(model.scorer), instantiate(terms), alphas=True)
        self.double()

    def raw_scalars(self) -> dict[str, nn.Parameter]:
        named = super().raw_scalars()
        del named["logit_scale"]  # in the published model, and in no loss
        return named | {name: self.scorer.get_parameter(ours) for name, ours in SCALES.items()}

    def logging(self, output: LossOutput) -> dict[str, float]:
        """What the published code logs."""
        terms: dict[str, Tensor] = output.terms
        logged = {f"{name}_entailment_loss": 0.5 * terms[f"{name}_entailment"].item() for name in HALVES}
        logged["contrastive_loss"] = sum(terms[name].item() for name in CONTRASTS)
        weights = Uncha.unit_weights()
        logged["entailment_loss"] = sum(w * terms[name].item() for name, w in weights.items())
        for name, ours in SCALES.items():
            logged[name.replace("logit_", "")] = self.scorer.get_parameter(ours).exp().item()
        logged["curv"] = self.geometry.stats()["curv"]
        return logged

    @staticmethod
    def unit_weights() -> dict[str, float]:
        """Weights within the entailment, whose own weight may be 0."""
        weights = LazyConfig.load(CONFIGS / "common" / "objective" / "uncha_published.py").objective.weights
        return {name: w / PUBLISHED_ENTAIL_WEIGHT for name, w in weights.items() if name not in CONTRASTS}

    def has_saturated_cone(self, features: dict[str, Tensor]) -> bool:
        """Whether a general point lies inside the minimum radius, where every cone is a half space."""
        apertures = [
            self.half_aperture(features[name], modality=VIEWS[name].modality)
            for name in ("text", "box_image", "box_text")
        ]
        return any(bool((x > torch.pi / 2 - 1e-9).any()) for x in apertures)


def run(
    case: dict[str, Any], *, rank: int = 0, world: int = 1, objective: str = "uncha_published"
) -> tuple[Uncha, dict[str, Tensor], LossOutput]:
    parts = with_scalars(Uncha(case["constructor"], objective), case["raw_scalars_before_forward"])
    assert isinstance(parts, Uncha)
    parts.constrain_()
    features, owner = share(case["features"], owner_of(case["num_boxes"]), rank=rank, world=world)
    output = parts.loss(features, box_owner=owner)
    output.total.backward()
    return parts, features, output


@pytest.mark.parametrize("case", cases("uncha", "cases"))
def test_uncha(case: dict[str, Any]) -> None:
    parts, features, output = run(case)
    for key, value in case["raw_scalars_after_forward"].items():
        if key in parts.raw_scalars():
            assert parts.raw_scalars()[key].item() == pytest.approx(value, rel=1e-6), f"{key} after the clamp"
    published = NEAR_ROOT if parts.has_saturated_cone(features) else PUBLISHED
    for what, expected, tolerance in (("exact", case.get("exact"), EXACT), ("published", case, published)):
        if expected is None:
            continue
        assert_near(output.total.item(), expected["loss"], tolerance, f"{what} loss")
        logged = parts.logging(output)
        for key, value in expected["logging"].items():
            assert_near(logged[key], value, tolerance, f"{what} {key}")
        for key, gradient in expected["grad_features"].items():
            assert_near(features[key].grad, gradient, tolerance, f"{what} gradient of {key}")
        for key, value in expected["grad_scalars"].items():
            if key in parts.raw_scalars():
                assert_near(parts.raw_scalars()[key].grad, value, tolerance, f"{what} gradient of {key}")


@pytest.mark.parametrize("case", cases("uncha", "cases"))
def test_the_recipe_differs_where_it_says(case: dict[str, Any]) -> None:
    """On one process the default differs from the published loss by what an image's other boxes add, and by 1e-8."""
    (parts, _, published), (_, _, ours) = run(case), run(case, objective="uncha")
    for name, term in published.terms.items():
        if name != "global_local_contrastive":
            torch.testing.assert_close(ours.terms[name], term, rtol=1e-6, atol=1e-6)
    one_each = max(case["num_boxes"]) <= 1
    assert ours.terms["global_local_contrastive"] <= published.terms["global_local_contrastive"] + 1e-12
    assert one_each == torch.allclose(
        ours.terms["global_local_contrastive"], published.terms["global_local_contrastive"], rtol=1e-12
    )
    # The loss of a box is at least the log of the number of boxes of its image, published.
    numbers = torch.tensor(case["num_boxes"], dtype=torch.float64)
    least = (numbers * numbers.clamp(min=1).log()).sum() / numbers.sum()
    assert published.terms["global_local_contrastive"] >= least
    assert parts.entail_weight == case["constructor"]["entail_weight"]


def _on_rank(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from hypvl import distributed

    results = []
    for case in jobs:
        parts, features, output = run(case, rank=distributed.rank(), world=distributed.world_size())
        results.append(
            {
                "loss": output.total.item(),
                "logging": parts.logging(output),
                "features": {k: x.grad for k, x in features.items()},
                "scalars": {k: p.grad for k, p in parts.raw_scalars().items()},
                "near_root": parts.has_saturated_cone(features),
            }
        )
    return results


@pytest.fixture(scope="module")
def two_ranks() -> OfRanks:
    """Every two-rank case of the file, run on two gloo processes at once."""
    return on_two_ranks("uncha", _on_rank)


@pytest.mark.parametrize("entry", cases("uncha", "two_ranks"))
def test_two_ranks(entry: dict[str, Any], two_ranks: OfRanks) -> None:
    ranks = ranks_of(two_ranks, entry)
    published = NEAR_ROOT if any(r["near_root"] for r in ranks) else PUBLISHED
    for what, expected, tolerance in (("exact", entry.get("exact"), EXACT), ("published", entry, published)):
        if expected is None:
            continue
        for rank, result in enumerate(ranks):
            assert_near(result["loss"], expected["loss_per_rank"][rank], tolerance, f"{what} loss of {rank}")
            logged = expected["logging_per_rank"][rank] if "logging_per_rank" in expected else {}
            for key, value in logged.items():
                assert_near(result["logging"][key], value, tolerance, f"{what} {key} of rank {rank}")
        mean = sum(r["loss"] for r in ranks) / len(ranks)
        assert_near(mean, expected["mean_loss"], tolerance, f"{what} mean")
        for key, gradient in expected["grad_features"].items():
            joined = torch.cat([r["features"][key] for r in ranks]) / len(ranks)  # DDP averages over ranks
            assert_near(joined, gradient, tolerance, f"{what} gradient of {key}")
        for key, value in expected["grad_scalars"].items():
            if value is not None and key in ranks[0]["scalars"]:
                found = sum(r["scalars"][key] for r in ranks) / len(ranks)
                assert_near(found, value, tolerance, f"{what} gradient of {key}")


def test_the_blocks_differ_in_three_settings() -> None:
    """The published block is the recipe's with other values of ``over``, ``same_image`` and ``eps``."""
    blocks = {}
    for name in ("uncha", "uncha_published"):
        cfg = LazyConfig.load(CONFIGS / "common" / "objective" / f"{name}.py").objective
        assert isinstance(instantiate(cfg), Objective)
        blocks[name] = cfg
    for term in blocks["uncha"].terms:
        ours, theirs = copy.deepcopy(blocks["uncha"].terms[term]), blocks["uncha_published"].terms[term]
        changed = {key for key in theirs if ours[key] != theirs[key]}
        assert changed <= {"over", "same_image", "eps"}, term
        if term != "global_contrastive":  # one row for each sample: there is nothing to choose
            assert theirs.over == "local" and ours.over == "gathered"
    assert blocks["uncha"].weights == blocks["uncha_published"].weights
