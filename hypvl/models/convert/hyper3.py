"""Parameter names of the published Hyper3-CLIP files and ours, in both directions.

The text encoder has the names of Hugging Face's `CLIPTextModel`, with or without the `text_model.` that versions of
transformers before 5 put in front; its three projections of attention are one here. The files hold no pixel statistics:
their data are normalised by ImageNet's. An earlier model of the hub has one logit scale where the paper's has three.
"""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hypvl.encoders.image_base import IMAGENET_MEAN, IMAGENET_STD
from hypvl.errors import CheckpointError
from hypvl.models.convert import listed, without_wrappers

IMAGE, TEXT, OLD_TEXT = "vision_encoder.backbone.", "text_encoder.backbone.", "text_model."
POOLING = "query_pooling."
_OUR_IMAGE, _OUR_TEXT = "visual.trunk.", "textual."
SCALES = {
    "global_logit_scale": "scorer.log_scale",
    "local_logit_scale": "scorer.log_scale_local",
    "global_local_logit_scale": "scorer.log_scale_global_local",
}
ONE_SCALE = {"logit_scale": "scorer.log_scale"}  # of the earlier model
# published name -> our name
NAMES = {
    "visual_alpha": "visual_head.log_scale",
    "textual_alpha": "textual_head.log_scale",
    "log_curv": "geometry.log_curv",
    "image_proj.weight": "visual_head.projection.weight",
    "image_proj.bias": "visual_head.projection.bias",
    "text_proj.weight": "textual_head.projection.weight",
    "text_proj.bias": "textual_head.projection.bias",
}
TEXT_NAMES = {
    "embeddings.token_embedding.weight": "token_embed.weight",
    "embeddings.position_embedding.weight": "posit_embed",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_PARTS = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_BLOCK = re.compile(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_OUR_BLOCK = re.compile(r"resblocks\.(\d+)\.(.+)[._](weight|bias)")
_QKV = "qkv"  # the order of the rows of the joint projection
_POSITION_IDS = "embeddings.position_ids"  # a buffer of earlier versions of transformers: 0, 1, 2 ...


def is_hyper3(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether a state_dict carries the published names."""
    return any(key.startswith((IMAGE, TEXT)) for key in without_wrappers(state_dict))


def to_hypvl(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers under our names, with ImageNet's pixel statistics.

    Raises:
        CheckpointError: Missing or unexpected names, or one that stands there twice.
    """
    state_dict = without_wrappers(state_dict)
    scales = ONE_SCALE if next(iter(ONE_SCALE)) in state_dict else SCALES
    named = scales | NAMES
    converted = {ours: state_dict[name] for name, ours in named.items() if name in state_dict}
    missing = [name for name in named if name not in state_dict]
    unexpected: list[str] = []
    text: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        if key.startswith(IMAGE):
            converted[_OUR_IMAGE + key.removeprefix(IMAGE)] = tensor
        elif key.startswith(POOLING):
            converted[key] = tensor
        elif key.startswith(TEXT):
            name = key.removeprefix(TEXT).removeprefix(OLD_TEXT)
            if name in text:
                raise CheckpointError(
                    f"state_dict: {name} stands there twice, with {OLD_TEXT} and without; expected one of the two."
                )
            if name != _POSITION_IDS:
                text[name] = tensor
        elif key not in named:
            unexpected.append(key)
    ours, lacking, unknown = _our_text(text)
    missing += [TEXT + name for name in lacking]
    unexpected += [TEXT + name for name in unknown]
    if not any(key.startswith(IMAGE) for key in state_dict):
        missing.append(f"{IMAGE}*")
    if missing or unexpected:
        raise CheckpointError(
            f"state_dict: missing {listed(missing)}; unexpected {listed(unexpected)}; expected the names of a "
            "published Hyper3-CLIP checkpoint."
        )
    pixels = {"visual.pixel_mean": IMAGENET_MEAN, "visual.pixel_std": IMAGENET_STD}
    return converted | ours | {name: torch.tensor(values).view(3, 1, 1) for name, values in pixels.items()}


def to_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers under the published names (those of transformers 5).

    Raises:
        CheckpointError: The model has a part that the published naming has no name for, or lacks one, or pixel
            statistics other than ImageNet's, which the files do not hold.
    """
    state_dict = without_wrappers(state_dict)
    if is_hyper3(state_dict):
        return dict(state_dict)
    scales = SCALES if SCALES["local_logit_scale"] in state_dict else ONE_SCALE
    named = scales | NAMES
    if missing := [ours for ours in named.values() if ours not in state_dict]:
        raise CheckpointError(
            f"state_dict: missing {listed(missing)}; expected a Hyper3-CLIP model (heads with a bias and a scale, a "
            "curvature)."
        )
    for name, values in (("visual.pixel_mean", IMAGENET_MEAN), ("visual.pixel_std", IMAGENET_STD)):
        own = state_dict.get(name)
        if own is not None and not torch.allclose(own.float().flatten().cpu(), torch.tensor(values)):
            raise CheckpointError(
                f"{name}: got {_rounded(own)}, expected ImageNet's {_rounded(values)}; published Hyper3-CLIP files "
                "hold no pixel statistics, save this model in hypvl's own format."
            )
    converted = {name: state_dict[ours] for name, ours in named.items()}
    nameless: list[str] = []
    pooling: dict[str, Tensor] = {}
    text: dict[str, Tensor] = {}
    projections = {name: converted.pop(name) for name in list(converted) if "_proj." in name}
    for key, tensor in state_dict.items():
        if key.startswith(_OUR_IMAGE):
            converted[IMAGE + key.removeprefix(_OUR_IMAGE)] = tensor
        elif key.startswith(POOLING):
            pooling[key] = tensor
        elif key.startswith(_OUR_TEXT):
            names = _published_text(key.removeprefix(_OUR_TEXT))
            nameless += [] if names else [key]
            parts = tensor.chunk(3) if len(names) > 1 else (tensor,)
            text |= {TEXT + name: part.clone() for name, part in zip(names, parts, strict=True) if names}
        elif key not in named.values() and key not in ("visual.pixel_mean", "visual.pixel_std"):
            nameless.append(key)
    if nameless:
        raise CheckpointError(
            f"state_dict: {listed(nameless)} have no name in published Hyper3-CLIP checkpoints; save this model in "
            "hypvl's own format."
        )
    return {**converted, **text, **projections, **pooling}


def _our_text(text: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Weights of the text encoder by our names, and names that are missing and that are unknown."""
    ours = {_OUR_TEXT + TEXT_NAMES[name]: text[name] for name in TEXT_NAMES if name in text}
    missing = [name for name in TEXT_NAMES if name not in text]
    unknown = []
    joint: dict[str, dict[str, Tensor]] = {}
    for name, tensor in text.items():
        match = _BLOCK.fullmatch(name)
        if match is None:
            unknown += [] if name in TEXT_NAMES else [name]
            continue
        layer, part, kind = match.groups()
        block = f"{_OUR_TEXT}resblocks.{layer}."
        if part in _PARTS:
            ours[f"{block}{_PARTS[part]}.{kind}"] = tensor
        elif part in {f"self_attn.{letter}_proj" for letter in _QKV}:
            letter = part.removeprefix("self_attn.")[0]
            joint.setdefault(f"{block}attn.in_proj_{kind}", {})[letter] = tensor
        else:
            unknown.append(name)
    for name, parts in joint.items():
        if lacking := [letter for letter in _QKV if letter not in parts]:
            _, layer, _ = name.removeprefix(_OUR_TEXT).split(".", 2)
            kind = name.rpartition("_")[2]
            missing += [f"encoder.layers.{layer}.self_attn.{letter}_proj.{kind}" for letter in lacking]
        else:
            ours[name] = torch.cat([parts[letter] for letter in _QKV])  # (3 W, W) or (3 W,)
    return ours, missing, unknown


def _published_text(name: str) -> list[str]:
    """Published names of a parameter of our text encoder: one, three of a joint projection, or none."""
    for theirs, ours in TEXT_NAMES.items():
        if name == ours:
            return [theirs]
    match = _OUR_BLOCK.fullmatch(name)
    if match is None:
        return []
    layer, part, kind = match.groups()
    block = f"encoder.layers.{layer}."
    if part == "attn.in_proj":
        return [f"{block}self_attn.{letter}_proj.{kind}" for letter in _QKV]
    return [f"{block}{theirs}.{kind}" for theirs, ours in _PARTS.items() if ours == part]


def _rounded(values: Sequence[float] | Tensor) -> list[float]:
    return [round(float(value), 4) for value in torch.as_tensor(values).flatten()]
