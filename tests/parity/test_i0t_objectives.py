"""i0t.json, the training objectives: align and uniform, principal components, Long-CLIP and its companions."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.geometry.scoring import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import LossTerm, Objective, View
from hypvl.losses.cloob import CLOOB
from hypvl.losses.contrastive import Contrastive
from hypvl.losses.cyclip import CrossModalCyclic, InModalCyclic
from hypvl.losses.long_caption import ShortCaption, ShortCyclic, primary_components
from hypvl.losses.uniformity import Align, Uniform, align_loss, uniform_loss
from tests.losses.toy import GeometryOnly, context
from tests.parity.reference import cases, load, number

CLOSE = {"rtol": 1e-9, "atol": 1e-9}  # as the file says
# Gradients of objectives at scale 100 through a projection: entries reach 100, the sums of both differ in
# their last digits.
GRADIENT = {"rtol": 1e-8, "atol": 1e-8}
SHORT = View.parse("text:short_text")
VIEWS = {"image": View.parse("image"), "text_long": View.parse("text"), "text_short": SHORT}


def _tensor(value: Any) -> Tensor:
    return torch.tensor(number(value), dtype=torch.float64)


def _inputs() -> dict[str, Tensor]:
    inputs = load("i0t")["inputs"]  # type: ignore[index]
    names = {"image": "image", "text_long": "text", "text_short": "text_short"}
    return {ours: _tensor(inputs[name]) for ours, name in names.items() if name in inputs}


def _section(key: str) -> Any:
    content = load("i0t")
    if content is None or key not in content:
        pytest.skip(f"i0t.json or its {key} is not in the folder")
    return content[key]


def test_align_uniform() -> None:
    expected, rows = _section("align_uniform"), _inputs()
    own = torch.arange(len(rows["image"]))

    def gradients(value: Tensor, *of: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(value, of))

    image, text = (rows[name].requires_grad_() for name in ("image", "text_long"))
    align = align_loss(image, text)
    uniform = {name: uniform_loss(x, x, own) for name, x in (("image", image), ("text", text))}
    found = {
        "align": align,
        "uniform_image": uniform["image"],
        "uniform_text": uniform["text"],
        **dict(zip(("align_grad_image", "align_grad_text"), gradients(align, image, text), strict=True)),
        "uniform_image_grad": gradients(uniform["image"], image)[0],
        "uniform_text_grad": gradients(uniform["text"], text)[0],
    }
    assert found.keys() & expected.keys()
    for key in found.keys() & expected.keys():
        torch.testing.assert_close(found[key].detach(), _tensor(expected[key]), **CLOSE)


def _without_notes(*keys: str, kind: type) -> list[Any]:
    """The cases of a section that also holds explanations and settings."""
    return [p for p in cases("i0t", *keys) if p.values[0] is None or isinstance(p.values[0][1], kind)]


@pytest.mark.parametrize("case", _without_notes("primary_components", kind=list))
def test_primary_components(case: tuple[str, Any]) -> None:
    name, expected = case
    found = primary_components(_inputs()["image"], count=int(name.partition("=")[2]))
    torch.testing.assert_close(found, _tensor(expected), **CLOSE)


def _recipe(name: str, components: int) -> Objective:
    """The published objectives as compositions of terms with weights."""
    ours, _, note = name.partition(" ")
    long: dict[str, LossTerm] = {"long": Contrastive(label_smoothing=0.1)}
    short: dict[str, LossTerm] = {"short": ShortCaption(components=components, label_smoothing=0.1)}
    cyclic: dict[str, LossTerm] = {"in_modal": InModalCyclic(), "cross_modal": CrossModalCyclic()}
    quarter = dict.fromkeys(cyclic, 0.25)
    if ours == "longclip":
        return Objective({**long, **short})
    if ours == "longcliponly":
        return Objective(long)
    if ours == "longcliponly_align":
        return Objective({**long, "align": Align()})
    if ours == "longcliponly_uniform":
        return Objective({**long, "image": Uniform("image"), "text": Uniform("text")})
    if ours == "longcliponly_cloob":
        beta = re.search(r"scaling ([\d.]+)", note)
        return Objective({"cloob": CLOOB(beta=14.3 if beta is None else float(beta[1]), inv_tau=1 / 0.07)})
    if ours == "longcliponly_cyclip":
        return Objective({"contrastive": Contrastive(), **cyclic}, quarter)
    if ours == "longcliponly_cyclip_return_only_cyclic":
        return Objective(cyclic, quarter)
    if ours == "longclip_cyclip":  # the mean of CyCLIP over long and short texts, and Long-CLIP's two terms
        halves: dict[str, LossTerm] = {
            "contrastive": Contrastive(),
            **cyclic,
            "contrastive_short": ShortCaption(components=components, label_smoothing=0.0),
            "cyclic_short": ShortCyclic(components=components),
        }
        weights = {key: 0.5 if key.startswith("contrastive") else 0.125 for key in halves}
        return Objective({**long, **short, **halves}, weights)
    pytest.skip(f"{name}: no recipe of this name here")


@pytest.mark.parametrize("case", _without_notes("objectives", kind=dict))
def test_objectives(case: tuple[str, dict[str, Any]]) -> None:
    name, expected = case
    section = load("i0t")["objectives"]  # type: ignore[index]
    objective = _recipe(name, int(section["pca_k"]))
    for term in objective.terms.values():
        if isinstance(term, CLOOB):  # kept in fp32 otherwise
            term.double().log_inv_tau.data.fill_(torch.tensor(1 / 0.07, dtype=torch.float64).log())
    model = GeometryOnly(Sphere(), Cosine())
    model.scorer.log_scale.data.fill_(section["logit_scale_log"])
    rows = {key: x.requires_grad_() for key, x in _inputs().items() if VIEWS[key] in objective.needs}
    output = objective(context(model, {VIEWS[key]: x for key, x in rows.items()}))
    output.total.backward()
    torch.testing.assert_close(output.total.item(), expected["loss"], **CLOSE)
    for key, value in expected.get("terms_float64", {}).items():
        torch.testing.assert_close(output.terms[key].item(), value, **CLOSE)
    for key, x in rows.items():
        if expected.get(f"grad_{key}") is not None:
            assert x.grad is not None
            torch.testing.assert_close(x.grad, _tensor(expected[f"grad_{key}"]), **GRADIENT)
    if expected.get("grad_logit_scale_log") is not None:
        found = model.scorer.log_scale.grad
        value = 0.0 if found is None else found.item()
        torch.testing.assert_close(value, expected["grad_logit_scale_log"], **CLOSE)
