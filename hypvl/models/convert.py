"""Names of parameters: the published MERU / CLIP / ATMG / HyCoCLIP files and ours, both ways, bit for bit.

Only names change; tensors are handed on as they are, so the buffers of the file (pixel mean and standard
deviation included: HyCoCLIP was trained with an unusual mean) stay the ones the weights were trained with.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from hypvl.errors import CheckpointError

Naming: TypeAlias = Literal["hypvl", "official"]
Family: TypeAlias = Literal["clip", "hyperbolic"]

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

# Steps that torch's wrappers put into names, and those that stand around a model.
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_AROUND = ("module", "model")
_OURS = {ours: official for official, ours in NAMES.items()}
_OUR_PREFIXES = ("visual.trunk.", "visual_head.", "textual_head.", "geometry.", "scorer.")
_OPEN_CLIP = (
    "token_embedding.weight",
    "visual.class_embedding",
    "text.token_embedding.weight",
    "text_projection",
)


def naming(state_dict: Mapping[str, Tensor]) -> Naming:
    """Whose names a state_dict carries: ``"official"`` or ``"hypvl"``.

    Raises:
        CheckpointError: The names are of both kinds, or of neither.
    """
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
    if any(key in state_dict for key in _OPEN_CLIP):
        raise CheckpointError(
            f"state_dict: open_clip / OpenAI names ({listed(state_dict)}); expected the names of MERU, CLIP, "
            "ATMG or HyCoCLIP checkpoints or of hypvl; convert them with hypvl.models.convert_open_clip."
        )
    raise CheckpointError(
        f"state_dict: names {listed(state_dict)}; expected the names of MERU, CLIP, ATMG or HyCoCLIP "
        "checkpoints (logit_scale, visual_proj.weight, ...) or of hypvl (scorer.log_scale, ...)."
    )


def family(state_dict: Mapping[str, Tensor]) -> Family:
    """``"hyperbolic"`` with a curvature (MERU, ATMG and HyCoCLIP share their names), else ``"clip"``."""
    key = "curv" if naming(state_dict) == "official" else NAMES["curv"]
    return "hyperbolic" if key in state_dict else "clip"


def to_hypvl(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under our names; a state_dict that has our names comes back as it is.

    Args:
        state_dict: ``model`` of a published or of our checkpoint; prefixes of wrappers are taken off
            (:func:`without_wrappers`).

    Raises:
        CheckpointError: Missing or unexpected names, or a text mask that is not the causal one.
    """
    state_dict = without_wrappers(state_dict)
    if naming(state_dict) == "hypvl":
        return dict(state_dict)
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
    converted = {official: state_dict[ours] for official, ours in NAMES.items() if ours in state_dict}
    projections = {key: converted.pop(key) for key in list(converted) if key.endswith("_proj.weight")}
    trunks = {}
    nameless = []
    for key, tensor in state_dict.items():
        if key.startswith("visual.trunk."):
            trunks["visual." + key.removeprefix("visual.trunk.")] = tensor
        elif key.startswith("textual."):
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


def listed(names: Iterable[str], *, limit: int = 6) -> str:
    """Names joined by commas, at most ``limit`` of them, then how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "none") + more


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


def without_wrappers(state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The names without what wrappers put into them, around the whole model or one of its parts.

    ``_orig_mod`` (torch.compile) and the steps of FSDP and of activation checkpointing go wherever they stand;
    ``module.`` (DataParallel, DistributedDataParallel) and ``model.`` (trainers that hold the model) go from the
    front, and ``module.`` from behind a part whose names all have it.

    Raises:
        CheckpointError: Two names become one.
    """
    names = {}
    for key in state_dict:
        steps = [step for step in key.split(".") if step not in _WRAPPERS]
        while len(steps) > 1 and steps[0] in _AROUND:
            del steps[0]
        names[key] = steps
    for part in {steps[0] for steps in names.values()}:
        inside = [steps for steps in names.values() if steps[0] == part]
        while all(len(steps) > 2 and steps[1] == _AROUND[0] for steps in inside):
            for steps in inside:
                del steps[1]
    plain: dict[str, Tensor] = {}
    for key, steps in names.items():
        name = ".".join(steps)
        if name in plain:
            raise CheckpointError(
                f"state_dict: {name} stands there twice, with prefixes of wrappers and without (or with others); "
                "expected one state_dict, save the model alone."
            )
        plain[name] = state_dict[key]
    return plain
