"""cloob.json: Hopfield retrievals and InfoLOOB, values and gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import IMAGE, TEXT
from hypvl.losses.cloob import CLOOB, info_loob, retrieve
from tests.losses.implementations import either_implementation  # noqa: F401  # a fixture
from tests.losses.toy import GeometryOnly, context
from tests.parity.reference import cases, load, number

CLOSE = {"rtol": 1e-8, "atol": 1e-8}  # as the file says
# Name in the file -> (who asks, what is stored).
RETRIEVALS = {
    "U_xx": ("image", "image"),
    "U_yy": ("text", "text"),
    "U_xy": ("text", "image"),
    "U_yx": ("image", "text"),
}


def _tensor(value: Any) -> Tensor:
    return torch.tensor(number(value), dtype=torch.float64)


def _inputs() -> dict[str, Tensor]:
    inputs = load("cloob")["inputs"]  # type: ignore[index]
    return {name: _tensor(inputs[name]).requires_grad_() for name in ("image", "text")}


def _check(expected: dict[str, Any], found: dict[str, Tensor | None]) -> None:
    """Each entry of the file whose name starts like one of ours (some explain themselves behind it)."""
    for key, value in found.items():
        for name, reference in expected.items():
            if name == key or name.startswith((f"{key} ", f"{key}(")):
                assert value is not None, name
                torch.testing.assert_close(value.detach(), _tensor(reference), **CLOSE)


@pytest.mark.usefixtures("either_implementation")
@pytest.mark.parametrize("case", cases("cloob", "cases"))
def test_cloob(case: tuple[str, dict[str, Any]]) -> None:
    _, expected = case
    rows, inv_tau = _inputs(), _tensor(expected["inv_tau"]).requires_grad_()
    u = {
        key: retrieve(rows[state], rows[stored], beta=expected["beta_hopfield"])
        for key, (state, stored) in RETRIEVALS.items()
    }
    own = torch.arange(len(rows["image"]))
    image = info_loob(u["U_xx"], u["U_xy"], own, inv_tau=inv_tau)
    text = info_loob(u["U_yy"], u["U_yx"], own, inv_tau=inv_tau)
    (image + text).backward()
    _check(expected, {**u, "loss_img": image, "loss_txt": text, "loss": image + text})
    gradients = {f"grad_{name}": x.grad for name, x in (*rows.items(), ("inv_tau", inv_tau))}
    assert gradients.keys() & expected.keys()
    _check(expected, gradients)


@pytest.mark.usefixtures("either_implementation")
@pytest.mark.parametrize("case", cases("cloob", "cases"))
def test_info_loob_without_retrieval(case: tuple[str, dict[str, Any]]) -> None:
    _, expected = case
    if not any(key.startswith("infoloob_plain") for key in expected):
        pytest.skip("the case has no plain InfoLOOB")
    rows, inv_tau = _inputs(), _tensor(expected["inv_tau"]).requires_grad_()
    value = info_loob(rows["image"], rows["text"], torch.arange(len(rows["image"])), inv_tau=inv_tau)
    value.backward()
    gradients = {f"infoloob_plain_grad_{k}": x.grad for k, x in (*rows.items(), ("inv_tau", inv_tau))}
    _check(expected, {"infoloob_plain": value, **gradients})


@pytest.mark.usefixtures("either_implementation")
@pytest.mark.parametrize("case", cases("cloob", "cases"))
def test_term(case: tuple[str, dict[str, Any]]) -> None:
    """The loss term gives the same, whatever the length of the rows; its gradient has no part along them."""
    _, expected = case
    term = CLOOB(beta=expected["beta_hopfield"], inv_tau=expected["inv_tau"], learn_inv_tau=True).double()
    rows = _inputs()
    scaled = {IMAGE: 3 * rows["image"], TEXT: 0.2 * rows["text"]}
    value = term(context(GeometryOnly(Sphere(), Cosine()), scaled))
    value.backward()
    # the temperature is kept in fp32
    torch.testing.assert_close(value.item(), expected["loss"], rtol=1e-6, atol=1e-6)
    for name, x in rows.items():
        if f"grad_{name}" in expected:
            gradient, unit = _tensor(expected[f"grad_{name}"]), x.detach()
            along = (gradient * unit).sum(1, keepdim=True) * unit
            assert x.grad is not None
            torch.testing.assert_close(x.grad, gradient - along, rtol=1e-6, atol=1e-6)
    if "grad_inv_tau" in expected:
        assert term.log_inv_tau.grad is not None
        result = term.log_inv_tau.grad.item() / expected["inv_tau"]
        torch.testing.assert_close(result, expected["grad_inv_tau"], rtol=1e-6, atol=1e-8)
