"""cyclip.json: CyCLIP's loss with and without augmented views, values and gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.config import LazyConfig, instantiate
from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import PairContext, View
from tests.losses.implementations import either_implementation  # noqa: F401  # a fixture
from tests.losses.toy import GeometryOnly
from tests.parity.recipes import CONFIGS
from tests.parity.reference import cases, load, number

CLOSE = {"rtol": 1e-9, "atol": 1e-9}  # as the file says
VIEWS = {
    "image": View.parse("image"),
    "text": View.parse("text"),
    "image_aug": View.parse("image:augmented_image"),
    "text_aug": View.parse("text:augmented_text"),
}


class GivenRows(Sphere):
    """Rows count as unit rows as they are: the gradients of the file are those of the normalised rows."""

    def lift(self, features: Tensor) -> Tensor:
        return features


@pytest.mark.usefixtures("either_implementation")
@pytest.mark.parametrize("case", cases("cyclip", "cases"))
def test_cyclip(case: tuple[str, dict[str, Any]]) -> None:
    _, expected = case
    inputs = load("cyclip")["inputs"]  # type: ignore[index]
    name = "cyclip_augmented" if expected.get("inmodal_augmented", False) else "cyclip"
    cfg = LazyConfig.load(CONFIGS / "common" / "objective" / f"{name}.py").objective
    cfg.weights.in_modal = expected["lambda1_inmodal"]
    cfg.weights.cross_modal = expected["lambda2_crossmodal"]
    objective = instantiate(cfg)
    model = GeometryOnly(GivenRows(), Cosine())
    model.scorer.log_scale.data.fill_(inputs["logit_scale_log"])
    rows = {
        name: torch.tensor(number(inputs[name]), dtype=torch.float64, requires_grad=True)
        for name, view in VIEWS.items()
        if view in objective.needs
    }
    output = objective(PairContext({VIEWS[k]: x for k, x in rows.items()}, batch={}, model=model))
    output.total.backward()

    weighted = sum(
        objective.weights[name] * output.terms[name].item() for name in ("in_modal", "cross_modal")
    )
    for key, result in (
        ("loss", output.total.item()),
        ("contrastive_loss", output.terms["contrastive"].item()),
        ("cyclic_loss_weighted", weighted),
        ("grad_logit_scale_log", model.scorer.log_scale.grad),
        *((f"grad_{name}", x.grad) for name, x in rows.items()),
    ):
        if key in expected:
            value = torch.tensor(number(expected[key]), dtype=torch.float64)
            torch.testing.assert_close(torch.as_tensor(result, dtype=torch.float64), value, **CLOSE)
