"""Parameter names of the published MERU / CLIP / ATMG / HyCoCLIP files and ours, in both directions.

Only names change, never tensors: pixel mean and standard deviation stay those that the weights were trained with
(HyCoCLIP used an unusual mean).
"""

from collections.abc import Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from hypvl.errors import CheckpointError
from hypvl.models.convert import current_name, is_open_clip, listed, without_wrappers

Naming: TypeAlias = Literal["hypvl", "official"]

# official name -> our name
NAMES = {
    "logit_scale": "scorer.log_scale",
    "curv": "geometry.log_curv",
    "visual_alpha": "visual_head.log_scale",
    "textual_alpha": "textual_head.log_scale",
    "pixel_mean": "visual.pixel_mean",
    "pixel_std": "visual.pixel_std",
    "visual_proj.weight": "visual_head.projection.weight",
    "textual_proj.weight": "textual_head.projection.weight",
}
HYPERBOLIC = ("curv", "visual_alpha", "textual_alpha")
REQUIRED = (
    *(name for name in NAMES if name not in HYPERBOLIC),
    "textual.posit_embed",
    "textual.token_embed.weight",
)
# A mask that follows from the context length: in the published files, not in ours.
MASK = "textual.attn_mask"
POSITIONS = "textual.posit_embed"

_OURS = {ours: official for official, ours in NAMES.items()}
_OUR_PREFIXES = ("visual.trunk.", "visual_head.", "textual_head.", "geometry.", "scorer.")


def naming(state_dict: Mapping[str, Tensor]) -> Naming:
    """Whose names a state_dict carries; CheckpointError where they are of both kinds, or of neither."""
    official = [key for key in state_dict if key in NAMES or key == MASK]
    ours = [key for key in state_dict if key in _OURS or key.startswith(_OUR_PREFIXES)]
    if official and ours:
        raise CheckpointError(
            f"state_dict: ambiguous, it has published names ({listed(official)}) and hypvl names "
            f"({listed(ours)}); expected one of the two, keep the ones that belong to the model."
        )
    if official:
        return "official"
    if ours:
        return "hypvl"
    if is_open_clip(state_dict):
        raise CheckpointError(
            f"state_dict: open_clip / OpenAI names ({listed(state_dict)}); expected the names of MERU, CLIP, "
            "ATMG or HyCoCLIP checkpoints or of hypvl; convert them with hypvl.models.convert.open_clip."
        )
    raise CheckpointError(
        f"state_dict: names {listed(state_dict)}; expected the names of MERU, CLIP, ATMG or HyCoCLIP "
        "checkpoints (logit_scale, visual_proj.weight, ...) or of hypvl (scorer.log_scale, ...)."
    )


def to_hypvl(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under our names; our own names come back as they are today.

    Args:
        state_dict: ``model`` of a published or of our checkpoint; prefixes of wrappers are taken off
            (:func:`without_wrappers`).

    Raises:
        CheckpointError: Missing or unexpected names, or a text mask that is not the causal one.
    """
    state_dict = without_wrappers(state_dict)
    if naming(state_dict) == "hypvl":
        return {current_name(key): tensor for key, tensor in state_dict.items()}
    _check_official(state_dict)
    converted = {}
    for key, tensor in state_dict.items():
        if key == MASK:
            expected = _causal_mask(state_dict[POSITIONS])
            if tensor.shape != expected.shape or not torch.equal(tensor.to(expected), expected):
                raise CheckpointError(
                    f"{MASK}: {tuple(tensor.shape)}, not the causal mask {tuple(expected.shape)} "
                    f"(True above the diagonal) that {POSITIONS} asks for; the text encoder here is causal."
                )
        elif key in NAMES:
            converted[NAMES[key]] = tensor
        elif key.startswith("visual."):
            converted["visual.trunk." + key.removeprefix("visual.")] = tensor
        else:
            converted[key] = tensor
    return converted


def to_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the published names, in the published order, with the text mask made anew.

    Raises:
        CheckpointError: The model has a part that the published naming has no name for, or lacks one.
    """
    state_dict = without_wrappers(state_dict)
    if naming(state_dict) == "official":
        _check_official(state_dict)
        return dict(state_dict)
    curv = state_dict.get(NAMES["curv"])
    if curv is not None and curv.ndim:
        raise CheckpointError(
            f"state_dict: a curvature for each of {len(curv)} factors; expected a CLIP, MERU, ATMG or HyCoCLIP model; "
            "convert this one with hypvl.models.convert.published."
        )
    return renamed(state_dict)


def renamed(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """:func:`to_official` of names that are ours, whatever the shapes of the scalars."""
    converted = {official: state_dict[ours] for official, ours in NAMES.items() if ours in state_dict}
    projections = {key: converted.pop(key) for key in list(converted) if key.endswith("_proj.weight")}
    trunks = {}
    nameless = []
    for key, tensor in state_dict.items():
        if key.startswith("visual.trunk."):
            trunks["visual." + key.removeprefix("visual.trunk.")] = tensor
        elif key.startswith("textual.") and not key.startswith("textual.adapter."):
            trunks[key] = tensor
            if key == POSITIONS:
                trunks[MASK] = _causal_mask(tensor)
        elif key not in _OURS:
            nameless.append(key)
    if nameless:
        raise CheckpointError(
            f"state_dict: {listed(nameless)} have no name in published checkpoints; expected a CLIP, MERU, "
            "ATMG or HyCoCLIP model; save this one in hypvl's own format."
        )
    converted = {**converted, **trunks, **projections}
    _check_official(converted)
    return converted


def _check_official(state_dict: Mapping[str, Tensor]) -> None:
    missing = [name for name in REQUIRED if name not in state_dict]
    hyperbolic = [name for name in HYPERBOLIC if name in state_dict]
    if hyperbolic:
        missing += [name for name in HYPERBOLIC if name not in state_dict]
    if not any(key.startswith("visual.") for key in state_dict):
        missing.append("visual.*")
    unexpected = [
        key for key in state_dict if key not in NAMES and not key.startswith(("visual.", "textual."))
    ]
    if missing or unexpected:
        raise CheckpointError(
            f"state_dict: missing {listed(missing)}; unexpected {listed(unexpected)}; expected the "
            f"names of a published {'MERU, ATMG or HyCoCLIP' if hyperbolic else 'CLIP'} checkpoint."
        )
    if state_dict[POSITIONS].ndim != 2:
        raise CheckpointError(
            f"{POSITIONS}: shape {tuple(state_dict[POSITIONS].shape)}; expected (context length, width)."
        )


def _causal_mask(positions: Tensor) -> Tensor:
    length = positions.shape[0]
    return torch.ones(length, length, dtype=torch.bool, device=positions.device).triu(diagonal=1)  # (L, L)
