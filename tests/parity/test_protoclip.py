"""itra_losses.json: ProtoCLIP's prototype loss and back translation."""

from typing import Any

import pytest
import torch
from torch import Tensor

from hypvl.losses.proto_clip import back_translate, prototype_loss
from tests.parity.reference import cases, load

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
# Student's space, teacher's space of a case, by the start of its name.
SPACES = {
    "proto_img2text": ("image", "text"),
    "proto_text2img": ("text", "image"),
    "proto_img2external": ("image", "external"),
}


def _inputs() -> dict[str, Any]:
    given = load("itra_losses")["inputs"]["protoclip"]  # type: ignore[index]  # cases are skipped without it
    return {k: torch.tensor(v, dtype=_dtype(k)) if isinstance(v, list) else v for k, v in given.items()}


def _dtype(key: str) -> torch.dtype:
    return torch.int64 if key.endswith("labels") else torch.float64


def _translated(inputs: dict[str, Any], student: str, teacher: str) -> Tensor:
    return back_translate(inputs[f"{student}_projected"], inputs[f"{teacher}_labels"], count=inputs["k"])


@pytest.mark.parametrize("case", cases("itra_losses", "protoclip_cases"))
def test_prototype_loss(case: dict[str, Any]) -> None:
    inputs = _inputs()
    scale = torch.tensor(load("itra_losses")["inputs"]["logit_scale"], dtype=torch.float64)  # type: ignore[index]
    scale.requires_grad_()
    student, teacher = next(v for k, v in SPACES.items() if case["name"].startswith(k))
    x = inputs[f"{student}_projected"].requires_grad_()
    teacher_centroids = inputs.get(f"{teacher}_centroids")
    translated = _translated(inputs, student, teacher)
    temperature = case["target_temperature"]
    value = prototype_loss(
        x,
        teacher_centroids if "noPBT" in case["name"] else translated,
        inputs[f"{teacher}_labels"],
        scale=scale,
        teacher_centroids=teacher_centroids,
        target_temperature=temperature if temperature > 0 else None,
    )
    value.backward()
    for found, name in (
        (value.detach(), "value"),
        (x.grad, "grad_student"),
        (scale.grad, "grad_logit_scale"),
    ):
        torch.testing.assert_close(found, torch.tensor(case[name], dtype=torch.float64), **CLOSE)


@pytest.mark.parametrize("case", cases("itra_losses", "inputs", "protoclip", "expected"))
def test_back_translation(case: tuple[str, Any]) -> None:
    name, expected = case
    inputs = _inputs()
    if name.startswith("pbt_"):
        student, teacher = name.removeprefix("pbt_").split("_from_")
        torch.testing.assert_close(
            _translated(inputs, student, teacher), torch.tensor(expected, dtype=torch.float64), **CLOSE
        )
    elif name == "L_proto":
        soft = {c["name"]: c["value"] for c in load("itra_losses")["protoclip_cases"]}  # type: ignore[index]
        pair = [value for key, value in soft.items() if key.endswith("soft_PBT")]
        assert sum(pair) / len(pair) == pytest.approx(expected, rel=1e-9)
    else:
        assert name == "note"
