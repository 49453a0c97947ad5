"""Parameter names of CLIP vision transformers of OpenAI and open_clip and ours, in both directions.

Names change, projections are transposed (x @ P there, a linear layer here), and dimensions of length 1 are added or
removed; the values stay. The image encoder is timm's, whose CLIP variants have the same parts under other names.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from hypvl.checks import natural_number, one_of
from hypvl.errors import CheckpointError
from hypvl.models.convert import listed, without_wrappers

Layout: TypeAlias = Literal["clip", "custom_text"]
# Pixel statistics of all of OpenAI's and nearly all of open_clip's CLIP weights; their files do not hold them.
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)

# open_clip name (without the `text.` of its CustomTextCLIP) -> our name
NAMES = {
    "logit_scale": "scorer.log_scale",
    "logit_bias": "scorer.bias",
    "visual.class_embedding": "visual.trunk.cls_token",
    "visual.positional_embedding": "visual.trunk.pos_embed",
    "visual.conv1.weight": "visual.trunk.patch_embed.proj.weight",
    "visual.ln_pre.weight": "visual.trunk.norm_pre.weight",
    "visual.ln_pre.bias": "visual.trunk.norm_pre.bias",
    "visual.ln_post.weight": "visual.trunk.norm.weight",
    "visual.ln_post.bias": "visual.trunk.norm.bias",
    "visual.proj": "visual_head.projection.weight",
    "token_embedding.weight": "textual.token_embed.weight",
    "positional_embedding": "textual.posit_embed",
    "positional_embedding_res": "textual.posit_embed_res",
    "ln_final.weight": "textual.ln_final.weight",
    "ln_final.bias": "textual.ln_final.bias",
    "text_projection": "textual_head.projection.weight",
}
OPTIONAL = ("logit_bias", "positional_embedding_res")
IMAGE_BLOCKS, TEXT_BLOCKS = "visual.transformer.resblocks.", "transformer.resblocks."
OUR_IMAGE_BLOCKS, OUR_TEXT_BLOCKS = "visual.trunk.blocks.", "textual.resblocks."
# Parts of an image block; those of a text block have the same names on both sides.
IMAGE_BLOCK = {
    "ln_1.weight": "norm1.weight",
    "ln_1.bias": "norm1.bias",
    "attn.in_proj_weight": "attn.qkv.weight",
    "attn.in_proj_bias": "attn.qkv.bias",
    "attn.out_proj.weight": "attn.proj.weight",
    "attn.out_proj.bias": "attn.proj.bias",
    "ln_2.weight": "norm2.weight",
    "ln_2.bias": "norm2.bias",
    "mlp.c_fc.weight": "mlp.fc1.weight",
    "mlp.c_fc.bias": "mlp.fc1.bias",
    "mlp.c_proj.weight": "mlp.fc2.weight",
    "mlp.c_proj.bias": "mlp.fc2.bias",
}
_PIXELS = {"visual.pixel_mean": PIXEL_MEAN, "visual.pixel_std": PIXEL_STD}
_OURS = {ours: theirs for theirs, ours in NAMES.items()}
_TEXT_BLOCK = {part: part for part in IMAGE_BLOCK}
# Prefix of a block's parameters, its new one, and the parts.
Blocks: TypeAlias = Sequence[tuple[str, str, Mapping[str, str]]]
_THEIR_BLOCKS: Blocks = (
    (IMAGE_BLOCKS, OUR_IMAGE_BLOCKS, IMAGE_BLOCK),
    (TEXT_BLOCKS, OUR_TEXT_BLOCKS, _TEXT_BLOCK),
)
_OUR_BLOCKS: Blocks = [
    (ours, theirs, {new: old for old, new in parts.items()}) for theirs, ours, parts in _THEIR_BLOCKS
]
_CUSTOM_TEXT = "text."
_PROJECTIONS = ("visual.proj", "text_projection")
_NOTES = ("input_resolution", "context_length", "vocab_size")  # not weights: settings in OpenAI's files
_MASK = "attn_mask"


def to_hypvl(
    state_dict: Mapping[str, Tensor],
    *,
    pixel_mean: Sequence[float] = PIXEL_MEAN,
    pixel_std: Sequence[float] = PIXEL_STD,
) -> dict[str, Tensor]:
    """An open_clip or OpenAI state_dict under our names, of ``CLIP`` or ``CustomTextCLIP``.

    Whether the weights were trained with the quick GELU is not in the file: the model has to be built with the right
    one (``visual.arch=vit_..._clip_quickgelu_...``, ``textual.activation=quick_gelu``).

    Args:
        state_dict: Prefixes of wrappers (``module.``) are taken off.
        pixel_mean: Mean per channel of the pixels in [0, 1] that the weights were trained with.
        pixel_std: Standard deviation per channel.

    Raises:
        CheckpointError: Names are missing or unknown (a ResNet, a timm or a Hugging Face encoder), or the text mask
            is not the causal one.
    """
    state_dict = without_wrappers(state_dict)
    custom = any(key.startswith(_CUSTOM_TEXT) for key in state_dict)
    converted: dict[str, Tensor] = {}
    unknown = []
    for key, tensor in state_dict.items():
        name = key.removeprefix(_CUSTOM_TEXT) if custom else key
        ours = _renamed(name, NAMES, _THEIR_BLOCKS)
        if name in _NOTES:
            continue
        if name == _MASK:
            _check_causal(key, tensor)
        elif ours is None:
            unknown.append(key)
        else:
            converted[ours] = _our_layout(name, tensor)
    missing = [key for key, ours in NAMES.items() if key not in OPTIONAL and ours not in converted]
    if unknown or missing:
        raise CheckpointError(
            f"state_dict: missing {listed(missing)}; unexpected {listed(unknown)}; expected a CLIP of open_clip or "
            "OpenAI with a vision transformer (class token) and a causal text transformer."
        )
    for name, values in (("visual.pixel_mean", pixel_mean), ("visual.pixel_std", pixel_std)):
        converted[name] = torch.tensor([float(v) for v in values]).view(3, 1, 1)
    return converted


def to_open_clip(state_dict: Mapping[str, Tensor], *, layout: Layout = "clip") -> dict[str, Tensor]:
    """The weights of a CLIP model of ours under open_clip's names; :func:`to_hypvl` brings the same tensors back.

    Args:
        state_dict: Ours, of a model on the sphere with a timm CLIP vision transformer.
        layout: The names of open_clip's ``CLIP``, which are OpenAI's, or of its ``CustomTextCLIP``.

    Raises:
        ValueError: For another layout.
        CheckpointError: The model has a part that open_clip has no name for (a curvature, say), lacks one, or was
            trained on pixels normalised in another way than open_clip's transforms do.
    """
    one_of("layout", layout, Layout)
    state_dict = without_wrappers(state_dict)
    converted: dict[str, Tensor] = {}
    nameless = []
    for key, tensor in state_dict.items():
        if key in _PIXELS:
            continue
        theirs = _renamed(key, _OURS, _OUR_BLOCKS)
        if theirs is None:
            nameless.append(key)
            continue
        image = theirs.startswith("visual.") or theirs in ("logit_scale", "logit_bias")
        name = theirs if image or layout == "clip" else _CUSTOM_TEXT + theirs
        converted[name] = _their_layout(theirs, tensor)
    missing = [ours for key, ours in NAMES.items() if key not in OPTIONAL and ours not in state_dict]
    if nameless or missing:
        raise CheckpointError(
            f"state_dict: {listed(nameless)} have no name in open_clip; missing {listed(missing)}; expected a CLIP "
            "model on the sphere with a timm CLIP vision transformer; save this one in hypvl's own format."
        )
    for key, values in _PIXELS.items():
        expected = torch.tensor(values).view(3, 1, 1)
        if key in state_dict and not torch.allclose(state_dict[key].cpu().float(), expected, atol=1e-6):
            raise CheckpointError(
                f"{key}: {state_dict[key].flatten().tolist()}; open_clip normalises by {list(values)} and its files "
                "cannot say otherwise; expected a model trained with these."
            )
    return converted


def _renamed(name: str, names: Mapping[str, str], blocks: Blocks) -> str | None:
    """By the table, or ``<prefix><number>.<part>`` with prefix and part renamed; None for any other name."""
    for prefix, new_prefix, parts in blocks:
        number, _, part = name.removeprefix(prefix).partition(".")
        if name.startswith(prefix) and part in parts and natural_number(number) is not None:
            return f"{new_prefix}{number}.{parts[part]}"
    return names.get(name)


def _our_layout(name: str, tensor: Tensor) -> Tensor:
    if name in _PROJECTIONS:
        return tensor.T.contiguous()  # (W, D) -> (D, W)
    if name == "visual.class_embedding":
        return tensor[None, None]  # (W,) -> (1, 1, W)
    if name == "visual.positional_embedding":
        return tensor[None]  # (N, W) -> (1, N, W)
    return tensor.reshape(()) if name in ("logit_scale", "logit_bias") else tensor


def _their_layout(name: str, tensor: Tensor) -> Tensor:
    if name in _PROJECTIONS:
        return tensor.T.contiguous()
    if name == "visual.class_embedding":
        return tensor[0, 0]
    return tensor[0] if name == "visual.positional_embedding" else tensor


def _check_causal(key: str, mask: Tensor) -> None:
    expected = torch.full(tuple(mask.shape), -torch.inf).triu(1) if mask.ndim == 2 else torch.zeros(0)
    if not torch.equal(mask.cpu().float(), expected):
        raise CheckpointError(
            f"{key}: {tuple(mask.shape)}, not the causal mask (-inf above the diagonal, 0 elsewhere); the text "
            "encoder here is causal."
        )
