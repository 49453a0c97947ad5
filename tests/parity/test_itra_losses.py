"""itra_losses.json: values, gradients and states of ITRA's objectives, and of the original papers'."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.losses.barlow_twins import BarlowTwins
from hypvl.losses.base import IMAGE, TEXT
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.rkd import RKDAngle, RKDDistance
from hypvl.losses.simreg import SimReg
from hypvl.losses.vicreg import VICReg
from tests.losses.toy import GeometryOnly, context
from tests.parity.reference import cases, load

Case = dict[str, Any]
CLOSE = {"rtol": 1e-9, "atol": 1e-11}
VIEWS: dict[str, Any] = {"student": "image", "teacher": "text"}


def _tensor(value: Any) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _inputs() -> dict[str, Any]:
    return load("itra_losses")["inputs"]  # type: ignore[index]  # the case is there


def _rows(case: Case) -> dict[str, Tensor]:
    """Student and teacher; what the file says behind a name ("teacher_logits[:4] (2 global crops)") is for readers."""
    found = {}
    for role in ("student", "teacher"):
        match = re.match(r"\w+", case[f"{role}_input"])
        assert match is not None
        found[role] = _tensor(_inputs()[match[0]]).requires_grad_()
    return found


def _close(found: Tensor | None, expected: Any, message: str) -> None:
    assert found is not None, message
    torch.testing.assert_close(found.detach(), _tensor(expected), **CLOSE, msg=lambda m: f"{message}: {m}")


def _term(case: Case) -> Callable[[Any], Tensor] | None:
    """The term of a case without state; None for other cases."""
    name, params, published = case["name"], case["params"], "original" in case["name"]
    taught: dict[str, Any] = VIEWS | {"detach_teacher": case["grad_teacher"] is None}
    if name.startswith("SimReg"):
        taught["distance"] = "smooth_l1" if "Smooth" in name else "l1" if "L1" in name else "squared"
        return SimReg(**taught, variant="original" if published else "itra")
    if name.startswith("RKD"):
        taught["variant"] = "itra" if params.get("row_normalise") else "original"
        only_distance, only_angle = (
            {"w_d": 1.0, "w_a": 0.0}, {"w_d": 0.0, "w_a": 1.0},
        )  # fmt: skip
        weights = params if "w_d" in params else only_distance if "distance" in name else only_angle
        terms = [(weights["w_d"], RKDDistance(**taught)), (weights["w_a"], RKDAngle(**taught))]
        return lambda ctx: torch.stack([w * term(ctx) for w, term in terms if w]).sum()
    if name.startswith("VICReg"):
        weights = {f"{long}_weight": params[short] for long, short in _VICREG.items()}
        variant = "itra" if params["row_normalise"] else "original"
        return VICReg(**taught, **weights, eps=params["eps"], variant=variant)
    if name.startswith("BarlowTwins"):
        variant = "itra" if params.get("row_normalise") else "original"
        return BarlowTwins(**taught, off_diagonal=params["lambd"], variant=variant)
    return None


_VICREG = {"invariance": "sim", "variance": "std", "covariance": "cov"}


@pytest.mark.parametrize("case", cases("itra_losses", "cases"))
def test_terms_without_state(case: Case) -> None:
    if case.get("state_after") or "value" not in case or "logit_scale" in case.get("params", {}):
        pytest.skip("another test has it")
    rows, term = _rows(case), _term(case)
    if term is None:
        pytest.skip(f"no term goes by a name like {case['name']}")
    value = term(context(_model(), {IMAGE: rows["student"], TEXT: rows["teacher"]}))
    value.backward()
    _close(value, case["value"], "value")
    for role, x in rows.items():
        if case[f"grad_{role}"] is not None:
            _close(x.grad, case[f"grad_{role}"], f"gradient of the {role}")
        else:
            assert x.grad is None


def _model(scale: float | None = None) -> GeometryOnly:
    model = GeometryOnly(Sphere(), Cosine())
    if scale is not None:
        with torch.no_grad():
            model.scorer.log_scale.fill_(scale).log_()
    return model


@pytest.mark.parametrize("case", cases("itra_losses", "cases"))
def test_contrastive_terms(case: Case) -> None:
    """InfoNCE and UniCL with the learned scale; SimCSE is one at a fixed scale."""
    if "logit_scale" not in case.get("params", {}):
        pytest.skip("another test has it")
    params, rows, model = case["params"], _rows(case), _model(case["params"]["logit_scale"])
    labels = params.get("labels")
    batch = {} if labels is None else {"labels": torch.tensor(_inputs()[labels])}
    term = Contrastive(labels=None if labels is None else "labels")
    value = term(context(model, {IMAGE: rows["student"], TEXT: rows["teacher"]}, **batch))
    value.backward()
    _close(value, case["value"], "value")
    for role, x in rows.items():
        _close(x.grad, case[f"grad_{role}"], f"gradient of the {role}")
    gradient = model.scorer.log_scale.grad
    assert gradient is not None
    _close(gradient / params["logit_scale"], case["grad_logit_scale"], "gradient of the scale")
