"""model_forward.json: features, loss and gradients of whole ViT-S models with hash-formula weights."""

import functools
import math
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hypvl.config import LazyConfig, instantiate
from hypvl.data.tokenizer import get_tokenizer
from hypvl.losses.base import PairContext
from hypvl.models.convert.meru import to_hypvl, to_official
from tests.losses.implementations import forced
from tests.parity.recipes import VIEWS, build, official_to_ours, tolerance
from tests.parity.reference import cases, load

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FEATURES = {"rtol": 1e-7, "atol": 1e-9}
GRADIENT = {"rtol": 1e-4, "atol": 1e-6}  # angle eps of the published code, amplified; see reference/README.md


@functools.cache  # the models have the same encoders
def hashed(key: str, count: int, salt: int) -> np.ndarray:
    """The hash formula of the file: ``count`` numbers in [-1, 1)."""
    mask = np.uint64(0xFFFFFFFF)
    seed = np.uint64((zlib.crc32(key.encode()) + salt) % 2**32)
    out = np.empty(count)
    for start in range(0, count, 2**16):  # so that it stays in the processor's cache
        h = np.arange(start, min(start + 2**16, count), dtype=np.uint64)
        h = (h * np.uint64(0x9E3779B1) + seed) & mask
        h ^= h >> np.uint64(16)
        h = (h * np.uint64(0x85EBCA6B)) & mask
        h ^= h >> np.uint64(13)
        h = (h * np.uint64(0xC2B2AE35)) & mask
        h ^= h >> np.uint64(16)
        out[start : start + len(h)] = h.astype(np.float64) / 2147483648 - 1
    return out


def hashed_weights(state: dict[str, Tensor], salt: int) -> dict[str, Tensor]:
    """Official names -> float32 weights by the rules of the file; other entries unchanged."""
    kept = {"curv", "logit_scale", "pixel_mean", "pixel_std", "textual.attn_mask", "textual_alpha",
            "visual.pos_embed", "visual_alpha"}  # fmt: skip
    out = {}
    for name, tensor in state.items():
        if name in kept:
            out[name] = tensor
            continue
        u = hashed(name, tensor.numel(), salt).reshape(tensor.shape)
        if name in ("textual.token_embed.weight", "textual.posit_embed", "visual.cls_token"):
            u = 0.5 * u
        elif tensor.ndim >= 2:
            u = math.sqrt(3 / (tensor.numel() / tensor.shape[0])) * u
        elif name.endswith(".weight"):
            u = 1 + 0.2 * u
        else:
            u = 0.1 * u
        out[name] = torch.from_numpy(u.astype(np.float32))
    return out


def formula_image(formula: str, batch: int) -> Tensor:
    """(batch, 3, 224, 224) float64 of a formula over b, c, h, w that uses sin, cos and arithmetic only."""
    if not re.fullmatch(r"(?:[\d.\s+\-*()]|\b(?:sin|cos|b|c|h|w)\b)+", formula):
        raise ValueError(f"image formula: got {formula!r}; expected sin, cos and arithmetic over b, c, h, w")
    b, c, h, w = np.ogrid[:batch, :3, :224, :224]
    names = {"sin": np.sin, "cos": np.cos, "b": b, "c": c, "h": h, "w": w, "__builtins__": {}}
    values = eval(formula, names)  # checked above: arithmetic only
    return torch.from_numpy(np.broadcast_to(values, (batch, 3, 224, 224)).astype(np.float64))


# Each takes ten seconds: the default suite has the first.
MODELS = cases("model_forward", "models")
MODELS[1:] = [
    pytest.param(*case.values, id=case.id, marks=(*case.marks, pytest.mark.slow)) for case in MODELS[1:]
]


@pytest.mark.parametrize("case", MODELS)
def test_model_forward(case: tuple[str, dict[str, Any]]) -> None:
    name, expected = case
    meta = load("model_forward")["meta"]  # type: ignore[index]
    family = name.split("_")[0]
    recipe = {"CLIP": "clip", "ATMG": "atmg"}.get(family, "meru")
    model = instantiate(LazyConfig.load(CONFIGS / f"train_{recipe}_vit_s.py").model)
    state = hashed_weights(to_official(model.state_dict()), meta["salt"])
    state |= {key: torch.tensor(value) for key, value in expected["scalars"].items()}
    for key in ("pixel_mean", "pixel_std"):
        state[key] = torch.tensor(expected[f"{key}_in_state_dict"]).reshape(3, 1, 1)
    model.load_state_dict(to_hypvl(state), strict=True)
    model.double()

    tokenizer = get_tokenizer()
    images = {
        key: formula_image(formula, 4).float().double()
        for key, formula in meta["images_float64_formula_then_float32"].items()
    }
    tokens = {"text": tokenizer(meta["captions"]), "box_text": tokenizer(meta["box_captions_HyCoCLIP_only"])}
    assert [row[row != 0].tolist() for row in tokens["text"]] == meta["token_ids"]

    parts = build(name, expected["constructor"] or {})
    needed = {view for view in VIEWS if VIEWS[view] in parts.objective.needs}
    features: dict[str, Tensor] = {}
    for key, batch in (images | tokens).items():
        if key in needed:
            encode = model.encode_image if VIEWS[key].modality == "image" else model.encode_text
            features[key] = encode(batch, stage="features")
    _check_features(model, features, expected["float64"])

    ctx = PairContext({VIEWS[k]: v for k, v in features.items()}, batch={}, model=model)
    output = parts.objective(ctx)
    output.total.backward()
    forward = expected["float64"]["forward"]
    rtol = tolerance(name)
    torch.testing.assert_close(output.total.item(), forward["loss"], rtol=rtol, atol=1e-9)
    with forced("tiled"), torch.no_grad():
        torch.testing.assert_close(parts.objective(ctx).total, output.total.detach(), rtol=1e-12, atol=1e-12)
    for key, term in output.terms.items():
        value = forward["logging"].get(f"{key}_loss")
        if value is not None:
            torch.testing.assert_close(term.item(), value, rtol=rtol, atol=1e-9)
    _check_gradients(model, expected["float64"]["grads"])


def _check_features(model: torch.nn.Module, features: dict[str, Tensor], expected: dict[str, Any]) -> None:
    for key, result in features.items():
        head = model.visual_head if VIEWS[key].modality == "image" else model.textual_head
        scale = head.log_scale.exp() if hasattr(head, "log_scale") else 1.0
        for wanted_key, value in (
            (f"encode_{key}_project_false", result / scale),
            (f"encode_{key}_project_true", model.embed(result, modality=VIEWS[key].modality)),
        ):
            wanted = expected.get(wanted_key)
            if isinstance(wanted, dict):
                torch.testing.assert_close(
                    value[:, :16], torch.tensor(wanted["first16"], dtype=torch.float64), **FEATURES
                )
                torch.testing.assert_close(
                    value.norm(dim=1), torch.tensor(wanted["l2"], dtype=torch.float64), **FEATURES
                )


def _check_gradients(model: torch.nn.Module, expected: dict[str, Any]) -> None:
    own = dict(model.named_parameters(remove_duplicate=False))
    ours = official_to_ours(model)
    for key, wanted in expected.items():
        gradient = own[ours[key]].grad
        if wanted is None:
            assert gradient is None, f"{key} should get no gradient"
            continue
        assert gradient is not None, f"{key} got no gradient"
        if "value" in wanted:
            torch.testing.assert_close(gradient.item(), wanted["value"], **GRADIENT)
            continue
        torch.testing.assert_close(gradient.norm().item(), wanted["l2"], **GRADIENT)
        if "first8" in wanted:
            first = torch.tensor(wanted["first8"], dtype=torch.float64)
            torch.testing.assert_close(gradient.flatten()[: len(first)], first, **GRADIENT)
        if "first8_of_that_row" in wanted:
            row = torch.tensor(wanted["first8_of_that_row"], dtype=torch.float64)
            torch.testing.assert_close(gradient[wanted["row_of_token"], : len(row)], row, **GRADIENT)
