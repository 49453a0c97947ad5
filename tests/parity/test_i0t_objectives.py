"""i0t.json, the training objectives: align and uniform, principal components, Long-CLIP and its companions."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.config import LazyConfig, instantiate
from hypvl.geometry.scorers import Cosine
from hypvl.geometry.sphere import Sphere
from hypvl.losses.base import Objective, View
from hypvl.losses.cloob import CLOOB
from hypvl.losses.long_caption import primary_components
from hypvl.losses.uniformity import align_loss, uniform_loss
from tests.losses.implementations import either_implementation  # noqa: F401  # a fixture
from tests.losses.toy import GeometryOnly, context
from tests.parity.recipes import CONFIGS
from tests.parity.reference import cases, load, number

CLOSE = {"rtol": 1e-9, "atol": 1e-9}  # as the file says
# Gradients of objectives at scale 100 through a projection: entries reach 100, the sums of both differ in
# their last digits.
GRADIENT = {"rtol": 1e-8, "atol": 1e-8}
SHORT = View.parse("text:short_text")
# Published name -> our noun and the terms that are left out.
NOUNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "longclip": ("long_clip", ()),
    "longcliponly": ("long_clip", ("short",)),
    "longcliponly_align": ("align_uniform", ("uniform_image", "uniform_text")),
    "longcliponly_uniform": ("align_uniform", ("align",)),
    "longcliponly_cloob": ("cloob", ()),
    "longcliponly_cyclip": ("cyclip", ()),
    "longcliponly_cyclip_return_only_cyclic": ("cyclip", ("contrastive",)),
    "longclip_cyclip": ("long_clip_cyclip", ()),
}
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


@pytest.mark.usefixtures("either_implementation")
def test_align_uniform() -> None:
    expected, rows = _section("align_uniform"), _inputs()
    own = torch.arange(len(rows["image"]))

    def gradients(value: Tensor, *of: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(value, of))

    image, text = (rows[name].requires_grad_() for name in ("image", "text_long"))
    align = align_loss(image, text)
    uniform = {name: uniform_loss(x, x, own) for name, x in (("image", image), ("text", text))}
    result = {
        "align": align,
        "uniform_image": uniform["image"],
        "uniform_text": uniform["text"],
        **dict(zip(("align_grad_image", "align_grad_text"), gradients(align, image, text), strict=True)),
        "uniform_image_grad": gradients(uniform["image"], image)[0],
        "uniform_text_grad": gradients(uniform["text"], text)[0],
    }
    assert result.keys() & expected.keys()
    for key in result.keys() & expected.keys():
        torch.testing.assert_close(result[key].detach(), _tensor(expected[key]), **CLOSE)


def _without_notes(*keys: str, kind: type) -> list[Any]:
    """The cases of a section that also holds explanations and settings."""
    return [p for p in cases("i0t", *keys) if p.values[0] is None or isinstance(p.values[0][1], kind)]


@pytest.mark.parametrize("case", _without_notes("primary_components", kind=list))
def test_primary_components(case: tuple[str, Any]) -> None:
    name, expected = case
    result = primary_components(_inputs()["image"], count=int("".join(filter(str.isdigit, name))))
    torch.testing.assert_close(result, _tensor(expected), **CLOSE)


def _noted(name: str, note: str, *, default: float) -> float:
    """A number, or a fraction, behind its name in the explanation of a case: "inv_tau 1/0.07"."""
    result = re.search(rf"{name} ([\d.]+)(?:/([\d.]+))?", note)
    return default if result is None else float(result[1]) / float(result[2] or 1)


def _recipe(name: str, components: int) -> Objective:
    """The published objectives from the nouns of configs/, at the number of components of the file."""
    ours, _, note = name.partition(" ")
    if ours not in NOUNS:
        pytest.skip(f"{name}: no recipe of this name here")
    noun, without = NOUNS[ours]
    cfg = LazyConfig.load(CONFIGS / "common" / "objective" / f"{noun}.py").objective
    for term in without:
        del cfg.terms[term], cfg.weights[term]
    for term in cfg.terms.values():
        if "components" in term:
            term.components = components
    if noun == "align_uniform":  # published beside the long captions' smoothed term
        cfg.terms.contrastive.label_smoothing = 0.1
    if noun == "cloob":
        cfg.terms.cloob.beta = _noted("scaling", note, default=14.3)
        cfg.terms.cloob.inv_tau = _noted("inv_tau", note, default=1 / 0.07)
    return instantiate(cfg)


@pytest.mark.usefixtures("either_implementation")
@pytest.mark.parametrize("case", _without_notes("objectives", kind=dict))
def test_objectives(case: tuple[str, dict[str, Any]]) -> None:
    name, expected = case
    section = load("i0t")["objectives"]  # type: ignore[index]
    objective = _recipe(name, int(section["pca_k"]))
    for term in objective.terms.values():
        if isinstance(term, CLOOB):  # kept in fp32 otherwise
            inv_tau = _noted("inv_tau", name, default=1 / 0.07)
            term.double().log_inv_tau.data.fill_(math.log(inv_tau))
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
        result = model.scorer.log_scale.grad
        value = 0.0 if result is None else result.item()
        torch.testing.assert_close(value, expected["grad_logit_scale_log"], **CLOSE)
